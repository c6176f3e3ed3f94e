"""Samples from a folder with one folder of images a class."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from headway.data.dataset import Dataset
from headway.records import DataError, TensorSpec

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """How pixels become numbers: ``(pixel * scale - mean) / std`` by channel.

    The default gives [0, 1]. They must be those of the model's training, or quality is wrong from the start: many ImageNet
    models want mean (0.485, 0.456, 0.406) and std (0.229, 0.224, 0.225). A model with integer input gets the pixels as they are.

    Attributes:
        scale: factor on the pixel values 0..255.
        mean, std: one value, or one a channel.
        crop: 1 squeezes the whole image into the model's size; below 1 the image is resized (keeping its shape) so that the centre
            of that share of the shorter side is cut out, as ImageNet evaluation does with 0.875 (256 to 224).
        size: height and width [pixels], where the model leaves them free.
    """

    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    crop: float = 1.0
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class _Form:
    name: str
    dtype: np.dtype
    channels: int
    channels_first: bool
    size: tuple[int, int]


def read_images(root: Path, source: str, inputs: Sequence[TensorSpec] | None, settings: ImageSettings) -> Dataset:
    """Images with the number of their class folder as label: folders sorted by name, or, when all names are whole numbers, that
    number itself (so that some of a model's classes may be missing). Images turn as their EXIF data say. No groups.

    Without ``inputs`` the input is called ``image``, float32, channels first, with the size of the first image.

    Raises:
        DataError: no class folders, no images, a damaged image, a model with several inputs or one that takes no images.
    """
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise DataError(f"{source}: an image folder must hold one folder a class, got none; move the images into folders named by class")
    names = [folder.name for folder in folders]
    numbers = [int(name) if name.isascii() and name.isdigit() else -1 for name in names]
    if min(numbers) < 0 or len(set(numbers)) < len(numbers):
        numbers = list(range(len(names)))
    order = sorted(range(len(names)), key=numbers.__getitem__)
    files = [(file, numbers[at]) for at in order for file in sorted(folders[at].iterdir()) if file.suffix.lower() in SUFFIXES]
    if not files:
        raise DataError(f"{source}: the class folders must hold images ({', '.join(SUFFIXES)}), got none")
    form = _form(inputs, settings, files[0][0], source)
    pixels = np.stack([_read(file, form, settings) for file, _ in files])
    labels = np.array([number for _, number in files], dtype=np.int64)
    complete = sorted(numbers) == list(range(len(numbers)))
    return Dataset({form.name: pixels}, labels, source=source, class_names=tuple(names[at] for at in order) if complete else ())


def _form(inputs: Sequence[TensorSpec] | None, settings: ImageSettings, first: Path, source: str) -> _Form:
    if inputs is None:
        width, height = _open(first).size
        return _Form("image", np.dtype(np.float32), 3, True, settings.size or (height, width))
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        got = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in inputs)
        raise DataError(f"{source}: an image folder fits a model with one input of four dimensions, got {got}; use .npz for others")
    spec = inputs[0]
    axes = [axis for axis in (1, 3) if spec.shape[axis] in _MODES]
    if not axes:
        raise DataError(f"{source}: the model must take 1, 3 or 4 channels, got input {spec.name} {list(spec.shape)}; use .npz instead")
    first_axis = min(axes, key=lambda axis: (spec.shape[axis] == 4, axis)) == 1  # 4 is more likely a height than a channel count
    channels = int(spec.shape[1] if first_axis else spec.shape[3])
    if {len(settings.mean), len(settings.std)} - {1, channels}:
        raise DataError(f"{source}: mean and std must have 1 or {channels} values, got {settings.mean} and {settings.std}")
    height, width = spec.shape[2:] if first_axis else spec.shape[1:3]
    size = (height, width) if isinstance(height, int) and isinstance(width, int) else settings.size
    if size is None:
        raise DataError(f"{source}: the model leaves the image size free ({spec.name} {list(spec.shape)}); give the size in ImageSettings")
    try:
        dtype = np.dtype(spec.dtype)
    except TypeError as error:
        raise DataError(
            f"{source}: the model's input must have a numpy type, got {spec.dtype} for {spec.name}; use .npz instead"
        ) from error
    return _Form(spec.name, dtype, channels, first_axis, (int(size[0]), int(size[1])))


def _open(file: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(file)
            image.load()
            return ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{file}: must be a readable image, got: {error}; repair or remove it") from error


def _read(file: Path, form: _Form, settings: ImageSettings) -> np.ndarray:
    image = _open(file).convert(_MODES[form.channels])
    height, width = form.size
    if settings.crop < 1:
        inner = ImageOps.fit(image, (round(width / settings.crop), round(height / settings.crop)), Image.Resampling.BICUBIC)
        left, top = (inner.width - width) // 2, (inner.height - height) // 2
        image = inner.crop((left, top, left + width, top + height))
    elif image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(image).reshape(height, width, form.channels)
    if form.dtype.kind == "f":
        mean, std = np.asarray(settings.mean, np.float32), np.asarray(settings.std, np.float32)
        pixels = (pixels * np.float32(settings.scale) - mean) / std
    pixels = pixels.transpose(2, 0, 1) if form.channels_first else pixels
    return np.ascontiguousarray(pixels, dtype=form.dtype)

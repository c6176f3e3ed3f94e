"""A bundle folder, checked before anything in it is used. It knows files and digests; it runs nothing.

A bundle is data: a manifest, ONNX files, a golden set of plain arrays. What is checked: the manifest's size, form and format
number; that every file lies inside the folder, is a regular file, and has the digest that the manifest gives; that ONNX files
point at no file outside their folder; sizes; that the runtimes are known.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import orjson

from headway.records import Bundle, BundledVariant, BundleError, RecordError, Unsupported, from_json
from headway.runtime import runtime_names
from headway.serve.external import external_files
from headway.serve.wire import datatype

FORMAT = 1
MANIFEST = "bundle.json"
MANIFEST_BYTES = 8 * 2**20
GOLDEN_BYTES = 256 * 2**20
NULL_BYTES = 2**16
MODEL_BYTES = 32 * 2**30


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs, and the outputs that each variant (by its place in the manifest) gave where the bundle was made."""

    inputs: dict[str, np.ndarray]
    outputs: tuple[dict[str, np.ndarray], ...]


@dataclass(frozen=True, slots=True)
class OpenBundle:
    """A bundle that passed all checks."""

    root: Path
    manifest: Bundle
    golden: Golden

    def model_path(self, index: int) -> Path:
        """The ONNX file of the variant at ``index``."""
        return self.root / self.manifest.variants[index].file


def open_bundle(path: Path | str) -> OpenBundle:
    """A checked bundle from its folder, or from a run folder that holds one in ``bundle/``.

    Raises:
        BundleError: the sentence says what is wrong with which file.
    """
    root = _find(Path(path))
    manifest = _manifest(root)
    for bundled in manifest.variants:
        model = inside(root, bundled.file)
        if model_digest(root, bundled.file) != bundled.digest:
            raise BundleError(
                f"{model}: the digest must be the one in {MANIFEST}, got another: the file was changed. Package the model again."
            )
    return OpenBundle(root, manifest, _golden(root, manifest))


def inside(root: Path, name: str) -> Path:
    """The file that ``name`` means inside ``root``.

    Raises:
        BundleError: it is no regular file, or leads outside, by its text or through a link.
    """
    pure = PurePosixPath(name)
    if not name or pure.is_absolute() or ".." in pure.parts or "\\" in name or ":" in name or "\0" in name:
        raise BundleError(f"{root}: file names must stay inside the bundle, got {name!r}. Do not use this bundle.")
    path = root / pure
    if not path.resolve().is_relative_to(root.resolve()):
        raise BundleError(f"{root}: files must stay inside the bundle, got a link that leads out: {name!r}. Do not use this bundle.")
    if not path.is_file():
        raise BundleError(f"{root}: the bundle must hold the file {name!r}, and it is missing. Package the model again.")
    return path


def model_files(root: Path, name: str) -> tuple[Path, ...]:
    """A model file of a bundle and, behind an ONNX file, its external data files in order of their names.

    Raises:
        BundleError: one of them is missing, outside, or too large.
    """
    model = inside(root, name)
    folder = PurePosixPath(name).parent
    external = frozenset[str]() if _is_json(model) else external_files(model)
    files = (model, *(inside(root, str(folder / location)) for location in sorted(external)))
    size = sum(file.stat().st_size for file in files)
    if size > MODEL_BYTES:
        raise BundleError(f"{model}: a model must be at most {MODEL_BYTES} bytes, got {size}. Do not use this bundle.")
    return files


def model_digest(root: Path, name: str) -> str:
    """SHA-256 over an ONNX file of a bundle and then its external data files in order of their names, as hex."""
    return file_digest(*model_files(root, name))


def bundle_digest(bundle: OpenBundle) -> str:
    """SHA-256 over the manifest and the golden set as hex: the manifest holds the digests of the models, so two bundles of one digest are the same."""
    return file_digest(bundle.root / MANIFEST, bundle.root / bundle.manifest.golden)


def file_digest(*paths: Path) -> str:
    """SHA-256 over the files one after another, as hex."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def _is_json(path: Path) -> bool:
    """Whether a file is a small JSON object, which the null runtime runs in place of an ONNX graph."""
    if path.stat().st_size > NULL_BYTES:
        return False
    try:
        return isinstance(orjson.loads(path.read_bytes()), dict)
    except orjson.JSONDecodeError:
        return False


def check_name(name: str) -> None:
    """Make sure that a model's name can stand in a URL and a header as it is.

    Raises:
        BundleError: it is empty, too long, or holds other characters than letters, digits, ``.``, ``_`` and ``-``.
    """
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", name) or name.startswith("."):
        raise BundleError(
            f"the name must be 1 to 128 letters, digits, '.', '_' or '-', not starting with '.', got {name!r}. Choose another."
        )


def _find(path: Path) -> Path:
    for root in (path, path / "bundle"):
        if (root / MANIFEST).is_file():
            return root
    if not path.exists():
        raise BundleError(f"{path}: must be a bundle or a run folder, and it does not exist. Give the folder that holds {MANIFEST}.")
    raise BundleError(f"{path}: must be a bundle, or a run that holds one, and has no {MANIFEST}. Did the run finish? Try tune --resume.")


def _manifest(root: Path) -> Bundle:
    path = inside(root, MANIFEST)
    size = path.stat().st_size
    if size > MANIFEST_BYTES:
        raise BundleError(f"{path}: must be at most {MANIFEST_BYTES} bytes, got {size}. Do not use this bundle.")
    text = path.read_bytes()
    try:
        found = from_json(text, dict, str(path)).get("format")
        if found != FORMAT:
            raise BundleError(f"{path}: the format must be {FORMAT}, got {found!r}. Use the version of Headway that made it.")
        manifest = from_json(text, Bundle, str(path))
        for spec in (*manifest.inputs, *manifest.outputs):
            datatype(spec)
    except (RecordError, Unsupported, RecursionError) as error:
        raise BundleError(str(error) if not isinstance(error, RecursionError) else f"{path}: nested too deep") from error
    if not manifest.variants or not manifest.inputs or not manifest.outputs:
        raise BundleError(f"{path}: a variant, an input and an output must be listed, and one is missing. Package the model again.")
    check_name(manifest.name)
    for bundled in manifest.variants:
        _check_plan(path, bundled)
    return manifest


def _check_plan(path: Path, bundled: BundledVariant) -> None:
    plan = bundled.plan
    if plan.runtime not in runtime_names():
        known = ", ".join(runtime_names())
        raise BundleError(f"{path}: the runtime must be one of {known}, got {plan.runtime!r}. Use the version of Headway that made it.")
    for name, value, least, most in (
        ("instances", plan.instances, 1, 1024),
        ("threads", plan.threads, 1, 1024),
        ("max_batch", plan.max_batch, 1, 65536),
        ("max_wait_s", plan.max_wait_s, 0, 60),
    ):
        if not least <= value <= most:
            raise BundleError(f"{path}: plan.{name} must lie between {least} and {most}, got {value}. Package the model again.")


def _golden(root: Path, manifest: Bundle) -> Golden:
    path = inside(root, manifest.golden)
    if path.stat().st_size > GOLDEN_BYTES:
        raise BundleError(f"{path}: must be at most {GOLDEN_BYTES} bytes, got {path.stat().st_size}. Do not use this bundle.")
    if file_digest(path) != manifest.golden_digest:
        raise BundleError(f"{path}: the digest must be the one in {MANIFEST}, got another: the file was changed. Package the model again.")
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > GOLDEN_BYTES:
            raise BundleError(f"{path}: must unpack to at most {GOLDEN_BYTES} bytes, got {unpacked}. Do not use this bundle.")
        with np.load(path, allow_pickle=False) as arrays:
            inputs = {spec.name: arrays[f"input/{spec.name}"] for spec in manifest.inputs}
            outputs = tuple(
                {spec.name: arrays[f"output/{index}/{spec.name}"] for spec in manifest.outputs} for index in range(len(manifest.variants))
            )
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, EOFError) as error:
        raise BundleError(f"{path}: must hold plain arrays for every input and output, got: {error}. Package the model again.") from error
    return Golden(inputs, outputs)

"""Whole data sets corrupted: the files of ``corruptions`` applied to the inputs that they fit."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray

from headway.discovery import Found, discover
from headway.quality import corruptions as folder
from headway.quality.corruptions.contract import Corruption, Text
from headway.quality.kinds import Kind
from headway.quality.metric import Array

ROWS_AT_ONCE = 64


def corruptions() -> Found:
    """The corruption files: those that import, and the reason for each that does not."""
    return discover(folder)


def fitting(kinds: Mapping[str, Kind]) -> dict[str, Corruption]:
    """Corruptions by name that fit at least one input."""
    words = {kind.word for kind in kinds.values()}
    found = {name: cast(Corruption, module) for name, module in corruptions().present.items()}
    return {name: corruption for name, corruption in found.items() if corruption.KIND in words}


def corrupted(
    inputs: Mapping[str, Array], kinds: Mapping[str, Kind], name: str, corruption: Corruption, severity: int, *, seed: int
) -> dict[str, Array]:
    """The inputs with one corruption at a severity (1 to 5), in their own shapes and types; the same arguments give the same bytes.

    Ranges, means and tokens are those of the rows given here. Peak memory is a second copy of the inputs and 64 rows in float32.
    """
    strength = corruption.SEVERITIES[severity - 1]
    made = dict(inputs)
    for input_name, kind in kinds.items():
        if kind.word != corruption.KIND:
            continue
        start = zlib.crc32(f"{name}/{input_name}".encode())
        if kind.word == "tokens":
            made.update(_text(inputs, input_name, kind, corruption, strength, np.random.default_rng((seed, start))))
        else:
            made[input_name] = _numbers(inputs[input_name], kind, corruption, strength, (seed, start))
    return made


def _text(
    inputs: Mapping[str, Array], name: str, kind: Kind, corruption: Corruption, strength: float, generator: np.random.Generator
) -> dict[str, Array]:
    ids = inputs[name]
    inside = inputs[kind.mask].astype(bool) if kind.mask else np.ones(ids.shape, dtype=bool)
    outside = ids[~inside]
    filling = int(np.bincount(outside - outside.min()).argmax() + outside.min()) if outside.size else int(ids.min())
    free = Text(ids, inside, ids, filling).free
    text = corruption.corrupt(Text(ids, inside, ids[free] if free.any() else ids.reshape(-1), filling), strength, generator)
    made = {name: text.ids}
    if kind.mask:
        made[kind.mask] = text.inside.astype(inputs[kind.mask].dtype)
    return made


def _numbers(array: Array, kind: Kind, corruption: Corruption, strength: float, seed: tuple[int, int]) -> Array:
    low, scale = _range(array, kind) if kind.word == "image" else _spread(array, kind)
    made = np.empty_like(array)
    for start in range(0, len(array), ROWS_AT_ONCE):
        some = slice(start, start + ROWS_AT_ONCE)
        held = ((_turned(array[some], kind).astype(np.float64) - low) / scale).astype(np.float32)
        changed = corruption.corrupt(held, strength, np.random.default_rng((*seed, start)))
        changed = changed.clip(0, 1) if kind.word == "image" else changed
        back = _turned(changed.astype(np.float64) * scale + low, kind, back=True).reshape(array[some].shape)
        made[some] = np.round(back) if array.dtype.kind in "iu" else back
    return made


def _turned(array: Array, kind: Kind, *, back: bool = False) -> Array:
    """Images with channels last, series with time first; ``back`` undoes it."""
    if kind.word == "image":
        return array if kind.axis == 3 else np.moveaxis(array, 3 if back else 1, 1 if back else 3)
    wide = array[:, :, None] if array.ndim == 2 else array
    return wide if kind.axis == 1 else wide.swapaxes(1, 2)


def _range(array: Array, kind: Kind) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest value of each channel, and the width of its range; bytes have the range of bytes."""
    others = tuple(axis for axis in range(4) if axis != kind.axis)
    low, high = (np.asarray(end(array, axis=others), np.float64) for end in (np.min, np.max))
    if array.dtype == np.uint8:
        low, high = np.zeros_like(low), np.full_like(high, 255.0)
    return low, np.where(high > low, high - low, 1.0)


def _spread(array: Array, kind: Kind) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each feature."""
    turned = _turned(array, kind)
    mean = turned.mean(axis=(0, 1), dtype=np.float64)
    spread = turned.std(axis=(0, 1), dtype=np.float64)
    return mean, np.where(spread > 0, spread, 1.0)

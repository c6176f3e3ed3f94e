"""What samples are, so far as their names, shapes and types say: pictures, text, series, or nothing that could be corrupted fairly."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headway.quality.metric import Array
from headway.records import ConfigError

KINDS = ("image", "tokens", "series", "none")
SMALLEST_SIDE = 8
SHORTEST_TEXT = 4
SHORTEST_SOUND = 1024
CHANNELS = (1, 3, 4)
_TEXT_NAME = re.compile(r"token|input_?ids|text|word|sentence", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Kind:
    """What one input is.

    Attributes:
        word: ``image``, ``tokens``, ``series`` or ``none``.
        axis: of the channels of an image (1 or 3), or of time in a series (1 or 2).
        mask: name of the input that says which tokens count, or empty.
        why: for ``none``, the reason.
    """

    word: str
    axis: int = 1
    mask: str = ""
    why: str = ""


def kinds(inputs: Mapping[str, Array], given: Mapping[str, str] | None = None) -> dict[str, Kind]:
    """The kind of every input.

    - ``image``: four axes, 1, 3 or 4 channels first or last, both sides at least 8.
    - ``tokens``: whole numbers [N, L], L at least 4, beside a mask of the same shape (0 and 1, beginning with 1, or called so), or
      named like text (``input_ids``, ``tokens``, ``text``...). Numbers of users and items are therefore none.
    - ``series``: real numbers [N, T, F] (time is the longer of the two), or [N, T] with T at least 1024, a waveform.
    - ``none``: all else: columns of a table, ids, masks. Noise on them would not be what happens in use.

    Args:
        given: the kind of an input by its name, where this guess is wrong.

    Raises:
        ConfigError: a given kind or name is unknown, or the input's shape cannot be of that kind.
    """
    for name, word in (given or {}).items():
        if name not in inputs or word not in KINDS:
            raise ConfigError(f"kinds: must name inputs ({', '.join(inputs)}) and one of {', '.join(KINDS)}, got {name!r}: {word!r}")
    return {name: _forced(name, (given or {})[name], inputs) if name in (given or {}) else _guess(name, inputs) for name in inputs}


def _guess(name: str, inputs: Mapping[str, Array]) -> Kind:
    array = inputs[name]
    if array.ndim == 4:
        return _image(array) or Kind("none", why=f"has four axes but no 1, 3 or 4 channels and sides of {SMALLEST_SIDE} or more")
    whole = array.dtype.kind in "iu"
    if whole and array.ndim == 2 and array.shape[1] >= SHORTEST_TEXT and not _binary(array):
        mask = _mask(name, inputs)
        return Kind("tokens", mask=mask) if mask or _TEXT_NAME.search(name) else Kind("none", why="holds whole numbers not known as text")
    if array.dtype.kind == "f" and (array.ndim == 3 or (array.ndim == 2 and array.shape[1] >= SHORTEST_SOUND)):
        return _series(array)
    return Kind("none", why="holds whole numbers" if whole else "holds a mask" if _binary(array) else "is a table")


def _forced(name: str, word: str, inputs: Mapping[str, Array]) -> Kind:
    array = inputs[name]
    made: Kind | None = None
    if word == "none":
        made = Kind("none", why="was said to be none")
    elif word == "image" and array.ndim == 4:
        made = _image(array)
    elif word == "tokens" and array.dtype.kind in "iu" and array.ndim == 2:
        made = Kind("tokens", mask=_mask(name, inputs))
    elif word == "series" and array.dtype.kind == "f" and array.ndim in (2, 3):
        made = _series(array)
    if made is None:
        raise ConfigError(f"kinds: input {name!r} of shape {list(array.shape)} and type {array.dtype} cannot be {word!r}")
    return made


def _image(array: Array) -> Kind | None:
    for axis, sides in ((1, array.shape[2:]), (3, array.shape[1:3])):
        if array.shape[axis] in CHANNELS and min(sides) >= SMALLEST_SIDE and array.dtype.kind in "iuf":
            return Kind("image", axis=axis)
    return None


def _series(array: Array) -> Kind:
    return Kind("series", axis=2 if array.ndim == 3 and array.shape[2] > array.shape[1] else 1)


def _mask(name: str, inputs: Mapping[str, Array]) -> str:
    shape = inputs[name].shape
    able = [other for other, array in inputs.items() if other != name and array.shape == shape and _binary(array)]
    named = [other for other in able if "mask" in other.lower()]
    begins = [other for other in able if bool((inputs[other][:, 0] == 1).all())]
    return next(iter([*named, *begins]), "")


def _binary(array: Array) -> bool:
    return bool(array.dtype.kind == "b" or np.isin(array, (0, 1)).all())

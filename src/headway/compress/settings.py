"""The settings of a step, checked: an unknown key or value is an error with the nearest known one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from headway.records import ConfigError, Setting


def did_you_mean(got: str, known: Iterable[str]) -> str:
    """``did you mean 'x'? known are ...`` for a message."""
    names = sorted(known)
    close = difflib.get_close_matches(got, names, n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + f"known are {', '.join(names) or 'none'}"


def read_settings(
    technique: str, given: Mapping[str, Setting], defaults: Mapping[str, Setting], choices: Mapping[str, Iterable[Setting]] | None = None
) -> dict[str, Setting]:
    """``defaults`` overlaid with ``given``.

    Raises:
        ConfigError: a key that ``defaults`` does not hold, a value of another type, or one outside ``choices``.
    """
    for key, value in given.items():
        if key not in defaults:
            raise ConfigError(f"{technique}: a setting must be known, got {key!r}; {did_you_mean(key, defaults)}")
        wanted = type(defaults[key])
        fits = isinstance(value, wanted) and isinstance(value, bool) == (wanted is bool)
        if not fits and not (wanted is float and type(value) is int):
            raise ConfigError(f"{technique}: {key} must be of type {wanted.__name__}, got {value!r}; the default is {defaults[key]!r}")
        allowed = tuple((choices or {}).get(key, ()))
        if allowed and value not in allowed:
            raise ConfigError(f"{technique}: {key} must be known, got {value!r}; {did_you_mean(str(value), map(str, allowed))}")
    return {**defaults, **given}

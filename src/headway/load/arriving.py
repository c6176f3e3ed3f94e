"""Due times of the requests of a run, from an arrival process found by its file name, with its settings in text."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from headway.discovery import Found, discover
from headway.load import arrivals as arrival_files
from headway.records import ConfigError

SettingValue = float | str


@functools.cache
def arrivals() -> Found:
    """Every arrival process."""
    return discover(arrival_files)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """An arrival process and its settings, as ``bursty:c2=8`` says them.

    Attributes:
        settings: those that were given; the rest keep their defaults.
    """

    name: str
    module: ModuleType
    settings: Mapping[str, SettingValue] = field(default_factory=dict)

    @property
    def recorded(self) -> tuple[float, float] | None:
        """Rate [1/s] and length [s] of what is replayed; none for a process that is drawn."""
        told = getattr(self.module, "recorded", None)
        found: tuple[float, float] | None = told(**self.settings) if told else None
        return found

    def times(self, rate_per_s: float, duration_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
        """Due times, ascending from 0 to ``duration_s`` [s]."""
        due_s: NDArray[np.float64] = self.module.times(rate_per_s, duration_s, rng, **self.settings)
        return due_s


def parse_arrivals(text: str) -> Arrivals:
    """The process that ``NAME`` or ``NAME:SETTING=VALUE,...`` means; a value without a name belongs to the first setting.

    Settings are what ``times`` of the process's file takes by keyword. They are separated by commas, or by semicolons where a comma
    would end the text (inside an objective: ``p99<=20ms, arrivals=step:factor=3;at=0.5``).

    Raises:
        ConfigError: no such process or setting, a value that is no number where one must stand, or one that is out of range.
    """
    name, _, rest = text.strip().partition(":")
    found = arrivals().present
    if name not in found:
        raise ConfigError(f"the arrival process must be known, got {name!r}; {_hint(name, tuple(found))}")
    known = settings_of(found[name])
    settings: dict[str, SettingValue] = {}
    for part in (part.strip() for part in re.split("[,;]", rest) if part.strip()):
        key, equals, value = part.partition("=")
        if not equals and known:
            key, value = next(iter(known)), part
        key = key.strip()
        if key not in known:
            hint = _hint(key, tuple(known)) if known else "it has none; leave it out"
            raise ConfigError(f"arrivals {name}: a setting must be known, got {part!r}; {hint}")
        if key in settings:
            raise ConfigError(f"arrivals {name}: each setting must be given once, got {key!r} twice; remove one")
        settings[key] = value.strip() if isinstance(known[key], str) else _number(name, key, value)
    parsed = Arrivals(name, found[name], settings)
    parsed.times(1.0, 1.0, np.random.default_rng(0))  # values out of range are said now, not in the middle of a run
    return parsed


def settings_of(module: ModuleType) -> dict[str, SettingValue]:
    """Names and defaults of a process's settings: the keyword arguments of its ``times``, in order."""
    parameters = inspect.signature(module.times).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY}


def arrival_times(process: str, rate_per_s: float, duration_s: float, seed: int) -> NDArray[np.float64]:
    """Due times of one run, ascending from 0 to ``duration_s`` [s]; the same seed gives the same times.

    Args:
        process: as ``parse_arrivals`` reads it.

    Raises:
        ConfigError: no such process or setting, or a rate or duration that is not above zero.
    """
    parsed = _parsed(process)
    if not 0 < rate_per_s < math.inf or not 0 < duration_s < math.inf:
        raise ConfigError(f"rate and duration of a load must be above zero and finite, got {rate_per_s:g}/s for {duration_s:g} s")
    return parsed.times(rate_per_s, duration_s, np.random.default_rng(seed))


@functools.lru_cache(maxsize=64)
def _parsed(text: str) -> Arrivals:
    return parse_arrivals(text)


def _number(name: str, key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError as error:
        raise ConfigError(f"arrivals {name}: {key} must be a number, got {value!r}") from error
    if not math.isfinite(number):
        raise ConfigError(f"arrivals {name}: {key} must be finite, got {value!r}")
    return number


def _hint(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"

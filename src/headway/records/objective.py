"""What a deployment must hold, and the text form people write: ``p99<=20ms, rate>=200/s, drop<=1%``."""

from __future__ import annotations

import difflib
import math
import re

from headway.records.base import Record
from headway.records.errors import ConfigError, ObjectiveError

_TIME = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_BYTES = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
GUARDS = ("ece", "shift_drop", "attack_drop")
_SHARES = ("drop", "group_drop", *GUARDS)
PREFERENCES = ("cores", "memory", "latency", "rate")
_NAMES = ("p50", "p90", "p95", "p99", "p99.9", "rate", *_SHARES, "memory", "arrivals", "prefer")
_BOUND = re.compile(r"^\s*([A-Za-z_0-9.]+)\s*(<=|>=|==|=|<|>)\s*([^=<>].*?)\s*$")
_QUANTITY = re.compile(r"^([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z%/]*)$")
EXAMPLE = "p99<=20ms, rate>=200/s, drop<=1%"


class Objective(Record, frozen=True, kw_only=True):
    """The promise to keep.

    Attributes:
        percentile: which percentile of latency is bounded, in (0, 1); 0.99 means p99.
        latency_s: bound on that percentile [s]; none: latency is minimised, not bounded.
        rate_per_s: arrival rate that must be held [1/s]; none: as much as this machine can.
        drop: largest loss of quality against the parent, in units of the metric (0.01 is one point of accuracy).
        group_drop: the same for the worst group.
        ece: largest rise of the expected calibration error against the parent (0.02 is two points).
        shift_drop: largest loss against the parent under the worst of the stated corruptions, both given the same corrupted inputs.
        attack_drop: largest loss against the parent when the inputs are attacked.
        memory_bytes: bound on the resident memory of the serving process [B].
        arrivals: name of the arrival process the promise is for.
        prefer: of the deployments that keep every bound, which is best: the one with the fewest ``cores``, the least ``memory``, the lowest
            ``latency`` at the stated rate, or the highest ``rate``. Empty: ``cores`` where a rate is stated, else ``rate``.
    """

    percentile: float = 0.99
    latency_s: float | None = None
    rate_per_s: float | None = None
    drop: float | None = None
    group_drop: float | None = None
    ece: float | None = None
    shift_drop: float | None = None
    attack_drop: float | None = None
    memory_bytes: int | None = None
    arrivals: str = "poisson"
    prefer: str = ""

    @property
    def preference(self) -> str:
        """``prefer``, or what it means when it is empty."""
        return self.prefer or ("rate" if self.rate_per_s is None else "cores")

    @property
    def percentile_name(self) -> str:
        """``p99``, ``p99.9``: the percentile as people write it."""
        return f"p{self.percentile * 100:.6g}"

    @property
    def guards(self) -> tuple[str, ...]:
        """Names of the bounds that ask for more than answers on the samples as they are: of ``ece``, ``shift_drop`` and ``attack_drop``."""
        return tuple(name for name in GUARDS if getattr(self, name) is not None)

    def __str__(self) -> str:
        parts = []
        if self.latency_s is not None:
            parts.append(f"{self.percentile_name}<={self.latency_s * 1e3:.12g}ms")
        if self.rate_per_s is not None:
            parts.append(f"rate>={self.rate_per_s:.12g}/s")
        shares = {name: getattr(self, name) for name in _SHARES}
        parts += [f"{name}<={share * 100:.12g}%" for name, share in shares.items() if share is not None]
        if self.memory_bytes is not None:
            parts.append(f"memory<={self.memory_bytes / 1e6:.12g}MB")
        if self.arrivals != "poisson":
            parts.append(f"arrivals={self.arrivals}")
        if self.prefer:
            parts.append(f"prefer={self.prefer}")
        return ", ".join(parts)


def parse_objective(text: str) -> Objective:
    """An Objective from its text form.

    Bounds are separated by commas: ``pNN<=TIME`` (us, ms, s), ``rate>=R/s``, ``drop<=X%``, ``group_drop<=X%``,
    ``ece<=X%``, ``shift_drop<=X%``, ``attack_drop<=X%``, ``memory<=SIZE`` (MB, GB, MiB, GiB), ``arrivals=NAME``, ``prefer=WHAT``. Shares
    without ``%`` are fractions.

    Raises:
        ObjectiveError: an unknown name, a wrong direction, a missing unit, a bound given twice.
    """
    fields: dict[str, object] = {}
    seen: set[str] = set()
    for part in text.split(","):
        if not part.strip():
            continue
        match = _BOUND.match(part)
        if not match:
            raise ObjectiveError(
                f"objective: each bound must read NAME<=VALUE or NAME>=VALUE, got {part.strip()!r}; write it like {EXAMPLE!r}"
            )
        name, sign, value = match.groups()
        key = "latency" if re.fullmatch(r"p[0-9]+(\.[0-9]+)?", name) else name
        if key in seen:
            raise ObjectiveError(f"objective: each bound must be given once, got {key!r} twice; remove one")
        seen.add(key)
        fields.update(_bound(name, key, sign, value))
    if not seen - {"arrivals", "prefer"}:
        raise ObjectiveError(f"objective: at least one bound must be given, got {text!r}; write it like {EXAMPLE!r}")
    if fields.get("prefer") not in (None, "rate") and "rate" not in seen:
        raise ObjectiveError(f"objective: prefer={fields['prefer']} needs a rate to hold, got {text!r}; add rate>=50/s, or prefer=rate")
    return Objective(**fields)  # type: ignore[arg-type]


def parse_time_s(text: str, name: str) -> float:
    """Seconds from a time such as ``500us``, ``20ms`` or ``1.5s``.

    Args:
        name: of what it is, for the message.

    Raises:
        ConfigError: the text is no time, or not above zero.
    """
    match = _QUANTITY.match(text)
    seconds = float(match.group(1)) * _TIME.get(match.group(2), math.nan) if match else math.nan
    if not 0 < seconds < math.inf:
        raise ConfigError(f"{name} must be a time above zero such as 20ms, got {text!r}")
    return seconds


def _bound(name: str, key: str, sign: str, value: str) -> dict[str, object]:
    if key in ("arrivals", "prefer"):
        return _word(key, sign, value)
    wanted = {"latency": "<=", "rate": ">=", "memory": "<=", **dict.fromkeys(_SHARES, "<=")}.get(key)
    if wanted is None:
        close = difflib.get_close_matches(name, _NAMES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(_NAMES)}"
        raise ObjectiveError(f"objective: the name of a bound must be known, got {name!r}; {hint}")
    if sign not in (wanted, wanted[0]):
        raise ObjectiveError(f"objective: {name} must be bounded with {wanted!r}, got {sign!r}; write {name}{wanted}{value}")
    number, unit = _quantity(name, value)
    if key == "latency":
        percentile = round(float(name[1:]) / 100, 12)
        if not 0 < percentile < 1:
            raise ObjectiveError(f"objective: a percentile must lie between p0 and p100, got {name!r}; write p99")
        return {"percentile": percentile, "latency_s": number * _unit(name, unit, _TIME)}
    if key == "rate":
        if unit not in ("/s", ""):
            raise ObjectiveError(f"objective: rate must be in requests a second, got {value!r}; write rate>={number:g}/s")
        return {"rate_per_s": number}
    if key == "memory":
        size = round(number * _unit(name, unit, _BYTES))
        if size < 1:
            raise ObjectiveError(f"objective: memory must be at least one byte, got {value!r}; write memory<=500MB")
        return {"memory_bytes": size}
    if unit not in ("%", "", "pt", "pp"):
        raise ObjectiveError(f"objective: {name} must be in percent points or a fraction, got {value!r}; write {name}<=1%")
    fraction = number / 100 if unit else number
    if fraction >= 1:
        raise ObjectiveError(f"objective: {name} must be below 100%, got {value!r}; write {name}<=1%")
    return {key: fraction}


def _word(key: str, sign: str, value: str) -> dict[str, object]:
    if sign not in ("=", "=="):
        raise ObjectiveError(f"objective: {key} must be given with '=', got {sign!r}; write {key}={value}")
    if key == "prefer" and value not in PREFERENCES:
        raise ObjectiveError(f"objective: prefer must be one of {', '.join(PREFERENCES)}, got {value!r}")
    return {key: value}


def _quantity(name: str, value: str) -> tuple[float, str]:
    match = _QUANTITY.match(value)
    if not match:
        raise ObjectiveError(f"objective: {name} must be a number with a unit, got {value!r}; write it like {EXAMPLE!r}")
    number = float(match.group(1))
    if not math.isfinite(number):
        raise ObjectiveError(f"objective: {name} must be finite, got {value!r}; leave the bound out instead")
    if number <= 0 and name not in _SHARES:
        raise ObjectiveError(f"objective: {name} must be above zero, got {value!r}")
    return number, match.group(2)


def _unit(name: str, unit: str, units: dict[str, float] | dict[str, int]) -> float:
    if unit not in units:
        raise ObjectiveError(f"objective: {name} needs a unit out of {', '.join(units)}, got {unit or 'none'!r}")
    return units[unit]

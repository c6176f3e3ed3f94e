"""Numbers and plans in words. Seconds become milliseconds here and nowhere earlier."""

from __future__ import annotations

import math
from collections.abc import Iterable

from headway.records import Interval, Objective, Plan, Quality, Variant

NONE = "–"  # noqa: RUF001  # an en dash where a table has no number
_MINUS = "\N{MINUS SIGN}"
_SCALES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def number(value: float | None, digits: int = 3) -> str:
    """``digits`` significant digits without an exponent: 0.0123, 1.23, 12.3, 1,230; a dash for none and not-a-number."""
    if value is None or math.isnan(value):
        return NONE
    if math.isinf(value):
        return "∞" if value > 0 else f"{_MINUS}∞"
    if value == round(value) and abs(value) < 1e15:
        return fixed(value, 0)
    return fixed(value, max(0, min(9, digits - 1 - math.floor(math.log10(abs(value))))))


def fixed(value: float, decimals: int) -> str:
    """A number with this many decimals, thousands separated, a true minus sign and no minus zero."""
    text = f"{abs(value):,.{decimals}f}"
    return f"{_MINUS}{text}" if value < 0 and any(c in "123456789" for c in text) else text


def interval(found: Interval, *, scale: float = 1.0, unit: str = "") -> str:
    """``6.67x [6.20, 7.10]``: as many decimals as the width of the interval deserves."""
    value, low, high = (scale * x for x in (found.value, found.low, found.high))
    width = high - low
    if not math.isfinite(width) or width <= 1e-9 * abs(value):  # rounding is no width
        return f"{number(value)}{unit} [{number(low)}, {number(high)}]"
    decimals = max(0, min(6, 1 - math.floor(math.log10(width))))
    return f"{fixed(value, decimals)}{unit} [{fixed(low, decimals)}, {fixed(high, decimals)}]"


def ms(seconds: float | None) -> str:
    """``12.1 ms``."""
    return NONE if seconds is None or math.isnan(seconds) else f"{number(seconds * 1e3)} ms"


def rate(per_s: float | None) -> str:
    """``541/s``."""
    return NONE if per_s is None or math.isnan(per_s) else f"{number(per_s)}/s"


def times(found: Interval) -> str:
    """A ratio with its interval: ``6.67x [6.20, 7.10]``."""
    return interval(found, unit="×")  # noqa: RUF001


def scaled(value: float | None, unit: str) -> str:
    """``797 MFLOP``, ``18.6 MB``: a quantity with a decimal prefix."""
    if value is None or not math.isfinite(value):
        return NONE
    size, prefix = next(((s, p) for s, p in _SCALES if abs(value) >= s), (1.0, ""))
    return f"{number(value / size)} {prefix}{unit}"


def duration(seconds: float) -> str:
    """``3.1 s``, ``4 min 02 s``."""
    return f"{number(seconds, 2)} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


def percent(fraction: float) -> str:
    """``81%``."""
    return f"{number(100 * fraction, 3 if abs(fraction) >= 0.1 else 2)}%"


def in_points(quality: Quality) -> bool:
    """Whether the metric is a share, so that a difference reads in percent points (accuracy, recall, AUC; not MSE)."""
    return quality.higher_is_better and 0 <= quality.parent_value <= 1


def value_words(quality: Quality) -> str:
    """The metric with its interval, in percent where it is a share."""
    return interval(quality.value, scale=100, unit="%") if in_points(quality) else interval(quality.value)


def drop_words(quality: Quality, found: Interval | None = None) -> str:
    """The paired loss with its interval, in points where the metric is a share; positive is worse."""
    found = found or quality.drop
    return interval(found, scale=100, unit=" pt") if in_points(quality) else interval(found)


def change_words(quality: Quality) -> str:
    """``accuracy 74.4%, 0.40 points below the original [-0.40, 1.20]``, in words that say the direction."""
    share = in_points(quality)
    scale, unit = (100.0, " points") if share else (1.0, "")
    value = f"{number(quality.value.value * scale)}{'%' if share else ''}"
    if quality.drop.value == 0 and quality.drop.low == quality.drop.high:
        return f"{quality.metric} {value}, the same as the original on {quality.n:,} samples"
    text = interval(quality.drop, scale=scale)
    amount = text.split(" ", 1)[0]
    side = "worse than" if quality.drop.value > 0 else "better than" if quality.drop.value < 0 else "from"
    amount = amount.removeprefix(_MINUS)
    return f"{quality.metric} {value}, {amount}{unit} {side} the original (drop {text}{unit}) on {quality.n:,} samples"


def each_task(quality: Quality) -> tuple[Quality, ...]:
    """The quality of each task, or the one there is."""
    return quality.by_task or (quality,)


def objective_words(objective: Objective) -> str:
    """``p99 ≤ 20 ms, rate ≥ 200/s, drop ≤ 1%``."""
    signs = {"<=": " ≤ ", ">=": " ≥ ", "ms": " ms", "MB": " MB"}
    bounds = str(objective).split(", ")
    for sign, words in signs.items():
        bounds = [bound.replace(sign, words) for bound in bounds]
    return ", ".join(bound.replace(" ", "\N{NO-BREAK SPACE}") for bound in bounds)


def recipe_words(variant: Variant) -> str:
    """The steps of a recipe, or that there are none."""
    return " → ".join(str(step) for step in variant.recipe) or "as it came"


def plan_words(plan: Plan) -> str:
    """A plan as a sentence would say it."""
    instances = f"{plan.instances} instance{'s' if plan.instances != 1 else ''} of {plan.threads} thread{'s' if plan.threads != 1 else ''}"
    batches = "one request at a time" if plan.max_batch == 1 else f"batches of at most {plan.max_batch}"
    wait = f", waiting up to {ms(plan.max_wait_s)} for a fuller batch" if plan.max_wait_s else ""
    device = "" if plan.device == "cpu" else f" on {plan.device}"
    return f"{plan.runtime}{device}, {instances}, {batches}{wait}"


def listed(parts: Iterable[str]) -> str:
    """``a, b and c``."""
    items = list(parts)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""

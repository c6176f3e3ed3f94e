"""Numbers in words: digits that mean something, signs that are true, units that are named."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.records import Interval, Objective, Plan
from headway.report.headline import gains, prediction_words
from headway.report.wording import (
    NONE,
    change_words,
    drop_words,
    duration,
    in_points,
    interval,
    ms,
    number,
    percent,
    plan_words,
    rate,
    scaled,
)
from test_report_example import comparison, quality


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"),
        (60.0, "60"),
        (0.01234, "0.0123"),
        (1.234, "1.23"),
        (12.34, "12.3"),
        (1234.5, "1,234"),
        (float("nan"), NONE),
        (None, NONE),
        (math.inf, "∞"),
    ],
)
def test_number(value: float | None, words: str) -> None:
    assert number(value) == words


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_number_keeps_three_digits(value: float) -> None:
    read = float(number(value).replace(",", ""))
    assert read == pytest.approx(value, rel=0.006)


@given(st.floats(-1e6, 1e6), st.floats(0.0, 1e5), st.floats(0.0, 1e5))
def test_an_interval_never_prints_out_of_order(value: float, below: float, above: float) -> None:
    words = interval(Interval(value=value, low=value - below, high=value + above)).replace("\N{MINUS SIGN}", "-").replace(",", " ")
    first, low, high = (float(part.strip("[]")) for part in _split(words))
    assert low <= first <= high or math.isclose(low, high, rel_tol=0.01, abs_tol=1e-3)


def _split(words: str) -> list[str]:
    value, rest = words.split("[")
    low, high = rest.split("  ") if "  " in rest else (rest, rest)
    return [part.replace(" ", "") for part in (value, low, high)]


def test_minus_zero_is_zero() -> None:
    assert interval(Interval(value=-0.0001, low=-0.5, high=0.5)) == "0.0 [\N{MINUS SIGN}0.5, 0.5]"


def test_units() -> None:
    assert (ms(0.0121), rate(541.3), scaled(18_600_000, "B"), percent(0.0042), duration(242)) == (
        "12.1 ms",
        "541/s",
        "18.6 MB",
        "0.42%",
        "4 min 02 s",
    )
    assert ms(None) == rate(float("nan")) == scaled(None, "B") == number(None)


def test_plan_in_words() -> None:
    assert plan_words(Plan(runtime="onnx_runtime", threads=2)) == "onnx_runtime, 1 instance of 2 threads, one request at a time"
    waiting = Plan(runtime="openvino", device="GPU", instances=2, max_batch=8, max_wait_s=0.002)
    assert plan_words(waiting) == "openvino on GPU, 2 instances of 1 thread, batches of at most 8, waiting up to 2 ms for a fuller batch"


def test_the_direction_of_a_change_is_said() -> None:
    base = quality("lite0/fold+static-u8s8", "openvino", "report", 1988)
    assert "0.4 points worse than the original" in change_words(base)
    gained = msgspec.structs.replace(base, drop=Interval(value=-0.004, low=-0.012, high=0.004))
    assert "0.4 points better than the original (drop \N{MINUS SIGN}0.4" in change_words(gained)
    same = msgspec.structs.replace(base, drop=Interval(value=0.0, low=0.0, high=0.0))
    assert change_words(same) == "accuracy 74.4%, the same as the original on 1,988 samples"


def test_an_error_metric_is_not_told_in_points() -> None:
    base = quality("lite0/fold", "openvino", "report", 1988)
    error = msgspec.structs.replace(base, metric="mse", higher_is_better=False, drop=Interval(value=0.02, low=0.01, high=0.03))
    assert not in_points(error)
    assert drop_words(error) == "0.020 [0.010, 0.030]"


def test_a_loss_against_the_others_is_not_told_as_a_gain() -> None:
    worse = msgspec.structs.replace(comparison(), latency_ratio={"naive": Interval(value=0.5, low=0.4, high=0.8)})
    assert "2.0\N{MULTIPLICATION SIGN} [1.2, 2.5] higher than the naive deployment's" in gains(worse, Objective())[1]


def test_predictions_are_judged_by_the_middle_and_the_worst() -> None:
    assert prediction_words([0.05, -0.2, 0.1]) == "Predicted capacity is off by 10% in the middle of 3 candidates, at worst by -20%."
    assert prediction_words([]).startswith("No candidate")

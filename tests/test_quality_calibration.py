"""Expected calibration error: closed forms, no bias for calibrated models, paired intervals that cover, and honest refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.data import Dataset
from headway.quality import compare, metric
from headway.quality.confidence import refuse
from headway.records import Calibration, DataError, Objective, Quality, from_json, to_json


def scored(mine: np.ndarray, parent: np.ndarray, labels: np.ndarray, objective: Objective | None = None, **more: np.ndarray) -> Quality:
    data = Dataset({"x": np.zeros(len(mine))}, labels, source="here", **more)
    return compare(
        variant="v", runtime="null", part="selection", metric=metric("accuracy"), outputs={"y": mine}, parent_outputs={"y": parent},
        dataset=data, objective=objective,
    )  # fmt: skip


def found(*arguments: np.ndarray, **more: np.ndarray) -> Calibration:
    calibration = scored(*arguments, **more).calibration
    assert calibration is not None
    return calibration


def two_columns(yes: np.ndarray) -> np.ndarray:
    return np.stack([1 - yes, yes], axis=1)


def drawn(generator: np.random.Generator, n: int, sharpen: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of ten classes that are true of their labels; ``sharpen`` makes them more confident than they should be."""
    logits = 2 * generator.normal(size=(n, 10))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (true.cumsum(1) > generator.random((n, 1))).argmax(1)
    stated = np.exp(sharpen * logits)
    return stated / stated.sum(1, keepdims=True), labels


def test_a_closed_form() -> None:
    labels = np.array(([1] * 7 + [0] * 3) * 100)
    sure = found(two_columns(np.full(1000, 0.9)), two_columns(np.full(1000, 0.7)), labels)
    assert (sure.parent_value, sure.bins, sure.scores) == (pytest.approx(0, abs=1e-12), 15, "probabilities")
    assert sure.value == pytest.approx(0.2, abs=1e-3)
    assert sure.rise.low < 0.2 < sure.rise.high


@given(st.integers(0, 1000))
def test_logits_and_their_probabilities_state_the_same(seed: int) -> None:
    generator = np.random.default_rng(seed)
    logits, labels = 3 * generator.normal(size=(200, 5)), generator.integers(0, 5, 200)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    by_logits, by_probabilities = found(logits, logits, labels), found(probabilities, probabilities, labels)
    assert (by_logits.scores, by_probabilities.scores) == ("logits", "probabilities")
    assert by_logits.value == pytest.approx(by_probabilities.value)
    assert by_logits.rise.value == by_logits.rise.low == by_logits.rise.high == 0


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_one_column(shape: tuple[int, ...]) -> None:
    labels = np.arange(400) % 2
    logits = np.where(np.arange(400) % 4 < 3, 2.0 * labels - 1, 1.0 - 2 * labels)
    sigmoid = 1 / (1 + np.exp(-logits))
    by_logit, by_yes = found(*[logits.reshape(shape)] * 2, labels), found(*[sigmoid.reshape(shape)] * 2, labels)
    assert (by_logit.scores, by_yes.scores) == ("logits", "probabilities")
    assert by_logit.value == pytest.approx(by_yes.value) == pytest.approx(abs(1 / (1 + np.exp(-1)) - 0.75), abs=0.02)


def test_few_rows_of_a_calibrated_model_are_not_called_uncalibrated() -> None:
    generator = np.random.default_rng(0)
    values = [found(*[probabilities] * 2, labels).value for probabilities, labels in (drawn(generator, 150) for _ in range(100))]
    assert np.mean(values) < 0.03  # uncorrected it is 0.08
    probabilities, labels = drawn(generator, 20_000)
    assert found(*[probabilities] * 2, labels).value < 0.01


def test_the_interval_of_a_large_rise_covers_it() -> None:
    generator = np.random.default_rng(1)
    sharp, labels = drawn(generator, 50_000, sharpen=1.5)
    plain = np.log(sharp) / 1.5
    plain = np.exp(plain) / np.exp(plain).sum(1, keepdims=True)
    true = found(sharp, plain, labels).rise.value
    assert true > 0.05
    covered = 0
    for trial in range(100):
        rows = slice(trial * 500, (trial + 1) * 500)
        rise = found(sharp[rows], plain[rows], labels[rows]).rise
        covered += rise.low <= true <= rise.high
    assert covered >= 85


def test_the_bound_is_on_the_rise() -> None:
    generator = np.random.default_rng(2)
    sharp, labels = drawn(generator, 4000, sharpen=2)
    plain = np.sqrt(sharp)
    plain /= plain.sum(1, keepdims=True)
    worse = scored(sharp, plain, labels, Objective(ece=0.02))
    assert worse.verdict == "violated"
    assert "the calibration error rose from" in worse.reason
    assert scored(sharp, sharp, labels, Objective(ece=0.02)).verdict == "proven"  # bad, but no worse than the parent
    better = scored(plain, sharp, labels, Objective(ece=0.0, drop=0.5))
    assert better.verdict == "proven"
    assert "fell" in better.reason
    assert from_json(to_json(worse), Quality) == worse


def test_clusters_widen_the_rise() -> None:
    generator = np.random.default_rng(3)
    sharp, labels = drawn(generator, 400, sharpen=2)
    plain = np.sqrt(sharp) / np.sqrt(sharp).sum(1, keepdims=True)
    sharp, plain, labels = (np.repeat(array, 10, axis=0) for array in (sharp, plain, labels))
    alone, together = (found(sharp, plain, labels, **more) for more in ({}, {"clusters": np.arange(4000) // 10}))
    assert together.rise.high - together.rise.low > alone.rise.high - alone.rise.low


def test_outputs_that_state_no_confidence() -> None:
    labels = np.arange(40) % 2
    multi = np.full((40, 2), 0.9)
    for outputs, why in ((multi, "do not sum to 1"), (labels.astype(np.int64), "no score for each class")):
        assert scored(outputs, outputs, labels).calibration is None
        with pytest.raises(DataError, match=f"a bound on ece needs .*{why}"):
            scored(outputs, outputs, labels, Objective(ece=0.01))
    assert "judges no classes" in str(refuse(metric("mse"), {"y": multi}, labels))
    assert "one class label a row" in str(refuse(metric("accuracy"), {"y": multi}, None))
    assert "not finite" in str(refuse(metric("accuracy"), {"y": np.full((4, 2), np.inf)}, labels[:4]))


def test_records_of_older_runs_are_read() -> None:
    labels = np.arange(40) % 2
    text = to_json(scored(two_columns(labels * 1.0), two_columns(labels * 1.0), labels)).decode()
    start = text.index(',"calibration"')
    old = text[:start] + "}"
    assert from_json(old.replace(',"p_loss":1.0', ""), Quality).calibration is None

"""Many groups at once: the chance of a false alarm stays what it should be, real losses are found, exact tests agree with closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from headway.data import Dataset
from headway.quality import compare, metric
from headway.quality.flips import holm_adjusted, loss_above_p
from headway.records import Objective, Quality
from headway.stats import holm

ALPHA = 0.05


def judged(worse: np.ndarray, better: np.ndarray, groups: np.ndarray, bound: float) -> Quality:
    """Quality of a variant that errs where ``worse`` and mends where ``better``; labels are 0, the parent errs where ``better``."""
    labels = np.zeros(len(groups), dtype=np.int64)
    mine, parent = np.eye(2)[worse.astype(int)], np.eye(2)[better.astype(int)]
    data = Dataset({"x": np.zeros(len(groups))}, labels, groups=groups, source="here")
    return compare(
        variant="v", runtime="null", part="selection", metric=metric("accuracy"), outputs={"y": mine}, parent_outputs={"y": parent},
        dataset=data, objective=Objective(group_drop=bound),
    )  # fmt: skip


def alarms(*, rows: int, groups: int, bound: float, drop: float, churn: float, runs: int) -> float:
    """How often a variant is called ``violated`` whose true drop is ``drop`` in every group, with ``churn`` flips the other way."""
    generator = np.random.default_rng(rows + groups)
    names = np.repeat(np.arange(groups), rows).astype(str)
    violated = 0
    for _ in range(runs):
        flip = generator.random(rows * groups)
        worse, better = flip < churn + drop, flip > 1 - churn
        violated += judged(worse, better, names, bound).verdict == "violated"
    return violated / runs


@pytest.mark.parametrize(("rows", "groups", "churn"), [(20, 40, 0.05), (100, 20, 0.02), (500, 10, 0.03)])
def test_a_variant_that_harms_nobody_is_seldom_accused(rows: int, groups: int, churn: float) -> None:
    assert alarms(rows=rows, groups=groups, bound=0.02, drop=0.0, churn=churn, runs=60) <= 0.1


@pytest.mark.parametrize(("rows", "groups", "bound", "churn"), [(20, 40, 0.05, 0.0), (60, 30, 0.05, 0.02), (150, 15, 0.03, 0.01)])
def test_small_groups_at_the_bound_are_seldom_accused(rows: int, groups: int, bound: float, churn: float) -> None:
    assert alarms(rows=rows, groups=groups, bound=bound, drop=bound, churn=churn, runs=60) <= 0.1


def test_a_group_far_beyond_the_bound_is_found_among_many() -> None:
    generator = np.random.default_rng(0)
    found = 0
    for _ in range(30):
        groups = np.repeat(np.arange(50), 40).astype(str)
        worse = generator.random(2000) < np.where(groups == "7", 0.4, 0.01)
        verdict = judged(worse, np.zeros(2000, dtype=bool), groups, 0.03)
        found += verdict.verdict == "violated" and "'7'" in verdict.reason
    assert found >= 25


def test_every_group_must_be_within_for_a_proof() -> None:
    """The true drop of one group is at the bound: "proven" must come in at most 2.5% of runs, however many groups there are."""
    generator = np.random.default_rng(1)
    proven = 0
    groups = np.repeat(np.arange(5), 800).astype(str)
    for _ in range(60):
        worse = generator.random(4000) < np.where(groups == "2", 0.03, 0.0)
        proven += judged(worse, np.zeros(4000, dtype=bool), groups, 0.03).verdict == "proven"
    assert proven <= 4


@given(st.integers(1, 400), st.floats(0.001, 0.3), st.integers(0, 20))
def test_the_tail_is_a_p_value(n: int, bound: float, worse: int) -> None:
    worse = min(worse, n)
    p = loss_above_p(worse, 0, n, bound)
    assert 0 <= p <= 1
    assert p >= binom.sf(worse - 1, n, bound) - 1e-9 or worse / n <= bound  # never surer than the exact test that knows of no churn
    assert loss_above_p(max(0, worse - 1), 0, n, bound) >= p - 1e-9


@given(st.integers(0, 30), st.integers(0, 30))
def test_without_a_bound_it_is_mcnemars(worse: int, better: int) -> None:
    p = loss_above_p(worse, better, 100, 0)
    assert p == pytest.approx(binomtest(worse, worse + better, 0.5, alternative="greater").pvalue if worse + better else 1.0)


def test_large_sizes_and_broken_counts() -> None:
    assert loss_above_p(900, 300, 50_000, 0.01) < 0.05
    assert loss_above_p(3, 0, 0.5 + 3, 0.01) <= 1
    assert loss_above_p(0.4, 0, 0.6, 0.01) == 1
    with pytest.raises(ValueError, match="flips"):
        loss_above_p(5, 0, 4, 0.01)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_adjusted_p_values_reject_what_holm_rejects(values: list[float]) -> None:
    adjusted = np.array(holm_adjusted(values))
    near = np.abs(adjusted - ALPHA) < 1e-9
    assert ((adjusted <= ALPHA) == holm(values, ALPHA))[~near].all()
    assert (adjusted >= np.array(values) - 1e-12).all() and (adjusted <= 1).all()


def test_each_group_says_how_sure_its_loss_is() -> None:
    groups = np.repeat(["a", "b", "c"], 100)
    worse = np.zeros(300, dtype=bool)
    worse[:20] = True
    losses = {group.group: group.p_loss for group in judged(worse, np.zeros(300, dtype=bool), groups, 0.5).groups}
    assert losses["a"] == pytest.approx(3 * 0.5**20)
    assert losses["b"] == losses["c"] == 1

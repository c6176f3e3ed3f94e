"""Intervals and tests against closed forms, against each other, and against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binom, binomtest, norm
from scipy.stats import t as student

from headway.stats import (
    Estimate,
    bootstrap_statistic,
    clopper_pearson,
    effective_size,
    holm,
    mcnemar,
    mean_above_p,
    order_statistic_interval,
    paired_bootstrap,
    paired_difference_p,
    paired_relative_bootstrap,
    planned_looks,
    proves,
    ratio_interval,
    ratio_of_medians,
    refutes,
    requests_to_prove,
    resampled_means,
    skewed_mean_above_p,
    tango,
    wilson,
)

settings.register_profile("steady", deadline=None)  # timing never decides a test
settings.load_profile("steady")

counts = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
flips = st.integers(1, 500).flatmap(lambda n: st.integers(0, n).flatmap(lambda b: st.tuples(st.just(b), st.integers(0, n - b), st.just(n))))


@given(counts, st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_and_clopper_pearson_agree_with_scipy(count: tuple[int, int], confidence: float) -> None:
    k, n = count
    for mine, method in ((wilson(k, n, confidence), "wilson"), (clopper_pearson(k, n, confidence), "exact")):
        theirs = binomtest(k, n).proportion_ci(confidence, method=method)
        assert mine.low == pytest.approx(theirs.low, abs=1e-9)
        assert mine.high == pytest.approx(theirs.high, abs=1e-9)
        assert 0 <= mine.low <= mine.value <= mine.high <= 1


def test_rule_of_three() -> None:
    assert clopper_pearson(0, 300, 0.90).high == pytest.approx(1 - 0.05 ** (1 / 300))
    assert clopper_pearson(0, 300, 0.90).high == pytest.approx(3 / 300, rel=0.01)


@pytest.mark.parametrize("call", [lambda: wilson(3, 2), lambda: wilson(0, 0), lambda: clopper_pearson(-1, 4), lambda: wilson(1, 2, 1.0)])
def test_impossible_counts_are_refused(call: object) -> None:
    with pytest.raises(ValueError, match="must lie between"):
        call()  # type: ignore[operator]


def test_requests_to_prove_the_known_table() -> None:
    assert [requests_to_prove(0.99, 0.99, misses) for misses in range(4)] == [459, 662, 838, 1001]


@given(st.sampled_from([0.5, 0.9, 0.95, 0.99, 0.999]), st.sampled_from([0.9, 0.95, 0.99]), st.integers(0, 20))
def test_requests_to_prove_is_the_smallest(q: float, confidence: float, misses: int) -> None:
    n = requests_to_prove(q, confidence, misses)
    assert proves(misses, n, q, confidence)
    assert not proves(misses, n - 1, q, confidence)


def test_requests_to_prove_without_a_miss_is_a_logarithm() -> None:
    for q, confidence in ((0.9, 0.95), (0.99, 0.99), (0.999, 0.9)):
        assert requests_to_prove(q, confidence) == math.ceil(math.log(1 - confidence) / math.log(q))


@given(st.integers(1, 2000), st.data(), st.sampled_from([0.9, 0.99]))
def test_nothing_is_both_proved_and_refuted(n: int, data: st.DataObject, q: float) -> None:
    misses = data.draw(st.integers(0, n))
    assert not (proves(misses, n, q) and refutes(misses, n, q))
    assert refutes(misses, n, q) == bool(binom.sf(misses - 1, n, 1 - q) <= 1 - 0.99)
    if misses:
        assert proves(misses, n, q) <= proves(misses - 1, n, q)
        assert refutes(misses - 1, n, q) <= refutes(misses, n, q)


def test_no_request_says_nothing() -> None:
    assert not proves(0, 0, 0.99)
    assert not refutes(0, 0, 0.99)


@pytest.mark.parametrize("q", [0.0, 1.0, 99.0])
def test_a_percentage_is_no_quantile(q: float) -> None:
    for call in (lambda: proves(0, 10, q), lambda: requests_to_prove(q), lambda: order_statistic_interval([1.0], q)):
        with pytest.raises(ValueError, match=r"p99 is 0\.99"):
            call()


@given(st.integers(1, 1500), st.sampled_from([0.5, 0.9, 0.95, 0.99]), st.sampled_from([0.9, 0.95, 0.99]))
def test_order_statistic_ranks_cover_and_are_tight(n: int, q: float, confidence: float) -> None:
    found = order_statistic_interval(np.arange(1.0, n + 1), q, confidence)
    tail = (1 - confidence) / 2 + 1e-12
    assert found.value == max(1, math.ceil(q * n - 1e-9))
    if math.isfinite(found.low) and found.low < found.value:
        assert binom.cdf(found.low - 1, n, q) <= tail
        assert binom.cdf(found.low, n, q) > tail - 2e-12
    if math.isinf(found.high):
        assert binom.sf(n - 1, n, q) > tail - 2e-12
    elif found.high > found.value:
        assert binom.sf(found.high - 1, n, q) <= tail


def test_order_statistic_has_no_upper_end_from_few_samples() -> None:
    assert order_statistic_interval(np.arange(367.0), 0.99).high == math.inf
    assert order_statistic_interval(np.arange(368.0), 0.99).high == 367.0


def test_order_statistic_covers_the_true_median() -> None:
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        found = order_statistic_interval(np.sort(generator.exponential(size=60)), 0.5, 0.9)
        hits += found.low <= math.log(2) <= found.high
    assert hits / 400 >= 0.87


@pytest.mark.parametrize("samples", [[], [2.0, 1.0], [math.nan, math.nan]])
def test_order_statistic_refuses(samples: list[float]) -> None:
    with pytest.raises(ValueError, match="samples must be"):
        order_statistic_interval(samples, 0.5)


def test_mcnemar_exact() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 0) == pytest.approx(2 * 0.5**5)
    assert mcnemar(10, 2) == pytest.approx(2 * binom.cdf(2, 12, 0.5))
    assert mcnemar(3, 9) == mcnemar(9, 3)


@given(st.integers(1, 5000), st.sampled_from([0.9, 0.95, 0.99]))
def test_tango_without_flips_is_the_score_bound(n: int, confidence: float) -> None:
    z = norm.ppf(0.5 + confidence / 2)
    found = tango(0, 0, n, confidence)
    assert found.value == 0
    assert found.high == pytest.approx(z * z / (n + z * z), rel=1e-6)
    assert found.low == pytest.approx(-found.high, rel=1e-6)


@given(flips, st.sampled_from([0.8, 0.95]))
def test_tango_is_symmetric_ordered_and_matches_its_test(flip: tuple[int, int, int], confidence: float) -> None:
    b, c, n = flip
    found, mirrored = tango(b, c, n, confidence), tango(c, b, n, confidence)
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert mirrored.low == pytest.approx(-found.high, abs=1e-7)
    if -0.999 < found.low < found.value:
        assert paired_difference_p(b, c, n, found.low) == pytest.approx((1 - confidence) / 2, abs=1e-4)


def test_tango_nuisance_is_the_maximum_likelihood() -> None:
    b, c, n, drop = 9, 4, 60, 0.15

    def loss(q: float) -> float:
        return -(b * math.log(q + drop) + c * math.log(q) + (n - b - c) * math.log(1 - 2 * q - drop))

    q = minimize_scalar(loss, bounds=(1e-9, (1 - drop) / 2 - 1e-9), method="bounded", options={"xatol": 1e-12}).x
    z = (b - c - n * drop) / math.sqrt(n * (2 * q + drop * (1 - drop)))
    assert paired_difference_p(b, c, n, drop) == pytest.approx(norm.sf(z), abs=1e-6)


def test_tango_covers_where_the_bootstrap_does_not() -> None:
    generator = np.random.default_rng(2)
    hits = 0
    for _ in range(500):
        b, c, _ = generator.multinomial(40, [0.06, 0.03, 0.91])
        found = tango(b, c, 40)
        hits += found.low <= 0.03 <= found.high
    assert hits / 500 > 0.92


def test_paired_flips_must_fit_the_rows() -> None:
    with pytest.raises(ValueError, match="flips must not"):
        tango(4, 4, 7)
    with pytest.raises(ValueError, match="bound must lie"):
        paired_difference_p(1, 0, 7, 1.0)


def test_bootstrap_matches_the_normal_interval() -> None:
    generator = np.random.default_rng(3)
    a, b = generator.normal(1.0, 1.0, 4000), generator.normal(0.8, 1.0, 4000)
    found = paired_bootstrap(a, b, seed=0)
    error = (a - b).std() / math.sqrt(a.size)
    assert found.value == pytest.approx((a - b).mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert found == paired_bootstrap(a, b, seed=0)
    assert found != paired_bootstrap(a, b, seed=1)


def test_general_statistic_agrees_with_the_mean() -> None:
    generator = np.random.default_rng(4)
    difference = generator.exponential(size=300)
    mean = paired_bootstrap(difference, np.zeros(300), seed=0)
    general = bootstrap_statistic(lambda rows: float(difference[rows].mean()), 300, seed=0)
    assert general.value == pytest.approx(mean.value)
    assert general.low == pytest.approx(mean.low, rel=0.02)
    assert general.high == pytest.approx(mean.high, rel=0.02)


def test_relative_bootstrap() -> None:
    generator = np.random.default_rng(5)
    parent = generator.uniform(1, 2, 500)
    found = paired_relative_bootstrap(parent * 1.1, parent)
    assert found.value == pytest.approx(0.1)
    assert found.low == pytest.approx(0.1)
    assert found.high == pytest.approx(0.1)
    assert math.isfinite(paired_relative_bootstrap([1.0, 2.0], [0.0, 0.0]).high)


def test_clusters_of_copies_are_worth_one_row_each() -> None:
    generator = np.random.default_rng(6)
    once = generator.normal(size=60)
    copies, clusters = np.repeat(once, 25), np.repeat(np.arange(60), 25)
    plain, clustered = paired_bootstrap(copies, 0 * copies), paired_bootstrap(copies, 0 * copies, clusters)
    single = paired_bootstrap(once, 0 * once)
    assert clustered.high - clustered.low == pytest.approx(single.high - single.low, rel=0.15)
    assert clustered.high - clustered.low > 3 * (plain.high - plain.low)
    assert 0.9 * 60 < effective_size(copies, clusters) <= 60
    whole = bootstrap_statistic(lambda rows: float(copies[rows].mean()), copies.size, clusters)
    assert whole.high - whole.low == pytest.approx(single.high - single.low, rel=0.15)


def test_clusters_of_other_sizes_keep_the_mean_over_rows() -> None:
    values, clusters = np.array([0.0, 0.0, 0.0, 1.0]), np.array(["a", "a", "a", "b"])
    means = resampled_means(values, clusters)[:, 0]
    assert set(np.round(means, 6)) == {0.0, 0.25, 1.0}


def test_large_bootstrap_is_chunked() -> None:
    assert resampled_means(np.ones((10_000, 2)), resamples=500).shape == (500, 2)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40), st.integers(0, 3))
def test_bootstrap_contains_its_value_and_is_deterministic(values: list[float], seed: int) -> None:
    zeros = np.zeros(len(values))
    found = paired_bootstrap(values, zeros, seed=seed, resamples=50)
    assert found.low <= found.value <= found.high
    assert found == paired_bootstrap(values, zeros, seed=seed, resamples=50)


def test_bootstrap_refuses() -> None:
    with pytest.raises(ValueError, match="same length"):
        paired_bootstrap([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="at least one row"):
        resampled_means(np.zeros((0, 2)))
    with pytest.raises(ValueError, match="name one cluster for each"):
        paired_bootstrap([1.0, 2.0], [1.0, 2.0], ["a"])
    with pytest.raises(ValueError, match="most resamples"):
        bootstrap_statistic(lambda rows: math.nan, 10)


def test_effective_size_limits() -> None:
    assert effective_size(np.ones(10), None) == 10
    assert effective_size(np.arange(10.0), np.zeros(10)) == 1
    generator = np.random.default_rng(7)
    independent = generator.normal(size=3000)
    assert effective_size(independent, np.repeat(np.arange(1000), 3)) > 2500
    assert effective_size(np.zeros(100), np.repeat(np.arange(20), 5)) <= 20


def test_mean_above_is_a_t_test() -> None:
    values = np.array([0.1, 0.4, 0.2, 0.5, 0.3])
    expected = student.sf((values.mean() - 0.2) / (values.std(ddof=1) / math.sqrt(5)), 4)
    assert mean_above_p(values, 0.2) == pytest.approx(expected)
    assert mean_above_p([1.0], 0.0) == 1.0
    assert mean_above_p([1.0, 1.0], 0.5) == 0.0
    assert mean_above_p([1.0, 1.0], 1.0) == 1.0
    with pytest.raises(ValueError, match="at least one"):
        mean_above_p([], 0.0)


def test_the_correction_for_skewness() -> None:
    generator = np.random.default_rng(9)
    symmetric = np.concatenate([x := generator.normal(size=300), -x]) + 0.05
    assert skewed_mean_above_p(symmetric, 0.0) == pytest.approx(mean_above_p(symmetric, 0.0), abs=2e-3)
    rare = np.zeros(500)
    rare[:3] = 0.5
    assert mean_above_p(-rare, -0.01) < 1e-4 and skewed_mean_above_p(-rare, -0.01) > 0.01
    assert skewed_mean_above_p(np.ones(30), 0.5) == 0.0 and skewed_mean_above_p(np.ones(30), 1.0) == 1.0
    clusters = np.repeat(np.arange(50), 12)
    sums = symmetric.reshape(50, 12).sum(axis=1)
    assert skewed_mean_above_p(symmetric, 0.0, clusters) == pytest.approx(skewed_mean_above_p(sums, 0.0), rel=0.05)


@given(st.integers(1, 100_000))
def test_a_race_looks_at_twice_as_many_rows_each_time(rows: int) -> None:
    looks = planned_looks(rows)
    assert list(looks) == [64 * 2**number for number in range(len(looks))]
    assert all(rows - look >= rows / 4 for look in looks)
    assert rows - 64 * 2 ** len(looks) < rows / 4


def test_some_looks() -> None:
    assert planned_looks(85) == () and planned_looks(86) == (64,)
    assert planned_looks(360) == (64, 128, 256)
    assert planned_looks(1244) == (64, 128, 256, 512)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005], 0.05).tolist() == [True, False, False, True]
    assert holm([], 0.05).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_at_least_what_bonferroni_does(p_values: list[float]) -> None:
    values = np.array(p_values)
    rejected = holm(values, 0.05)
    assert np.all(rejected >= (values <= 0.05 / values.size))
    assert np.all(rejected <= (values <= 0.05))


def test_ratio_of_rounds() -> None:
    found = ratio_interval([2.0, 4.0, 8.0], [1.0, 2.0, 4.0])
    assert found == Estimate(*[pytest.approx(x) for x in (2.0, 2.0, 2.0, 0.95)])
    logs = np.log([2.0, 3.0])
    half = student.ppf(0.975, 1) * logs.std(ddof=1) / math.sqrt(2)
    assert ratio_interval([2.0, 3.0], [1.0, 1.0]).high == pytest.approx(math.exp(logs.mean() + half))
    one = ratio_interval([3.0], [2.0])
    assert one.low == one.value == one.high == pytest.approx(1.5)
    for bad in (([0.0], [1.0]), ([math.inf], [1.0])):
        with pytest.raises(ValueError, match="positive and finite"):
            ratio_interval(*bad)
    with pytest.raises(ValueError, match="one figure a round"):
        ratio_interval([1.0, 2.0], [1.0])


def test_ratio_of_medians_cancels_what_disturbs_a_round() -> None:
    generator = np.random.default_rng(9)
    slowness = (1.0, 5.0, 2.0, 9.0)
    slow = [generator.normal(0.020, 0.001, 200) * s for s in slowness]
    fast = [generator.normal(0.010, 0.001, 200) * s for s in slowness]
    found = ratio_of_medians(slow, fast)
    assert 1.9 < found.low <= 2.0 <= found.high < 2.1
    single = ratio_of_medians(slow[:1], fast[:1], seed=3)
    assert single.low < single.value < single.high
    assert single == ratio_of_medians(slow[:1], fast[:1], seed=3)
    with pytest.raises(ValueError, match="same rounds"):
        ratio_of_medians(slow, fast[:2])
    with pytest.raises(ValueError, match="at least one sample"):
        ratio_of_medians([[]], [[1.0]])

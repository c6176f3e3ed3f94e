"""The capacity search, on targets made of arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.api.load_find import FoundCapacity, find_target
from headway.api.load_session import LoadAsked, Loading
from headway.api.progress import Silent
from headway.load import find_capacity
from headway.predict import predict_capacity
from headway.records import BatchTiming, ConfigError, LoadPoint, Objective, Plan, ServiceCurve
from paper_target import PaperTarget


def made(rate_per_s: float, achieved_per_s: float, misses: float, verdict: str = "unproven") -> LoadPoint:
    return LoadPoint(
        target="http",
        arrivals="poisson",
        offered_rate_per_s=rate_per_s,
        achieved_rate_per_s=achieved_per_s,
        goodput_per_s=achieved_per_s * (1 - misses),
        duration_s=2.0,
        sent=400,
        completed=400,
        failed=0,
        refused=0,
        percentiles=(),
        mean_s=0.01,
        naive_p99_s=0.01,
        lateness_p99_s=0.0,
        in_flight_mean=1.0,
        little_ratio=1.0,
        miss_fraction=misses,
        mean_batch=1.0,
        verdict=verdict,
    )


def test_a_bound_below_the_time_of_one_request_is_given_up_where_the_target_is_idle() -> None:
    rates: list[float] = []

    def slow(rate_per_s: float) -> LoadPoint:
        rates.append(rate_per_s)
        return msgspec.structs.replace(made(rate_per_s, rate_per_s, 1.0), mean_s=0.002, in_flight_mean=rate_per_s * 0.002)

    found = find_capacity(slow, start_per_s=400.0, trials=5)
    assert found.low_per_s == 0.0 and rates[-1] * 0.002 < 0.1 <= rates[-2] * 0.002


class Target:
    """Holds up to ``capacity``; a little above it some requests are late, from mu on nearly all."""

    def __init__(self, capacity: float, disturbed: Callable[[int], bool] = lambda number: False) -> None:
        self.capacity, self.mu = capacity, 1.15 * capacity
        self.disturbed = disturbed
        self.rates: list[float] = []

    def __call__(self, rate_per_s: float) -> LoadPoint:
        self.rates.append(rate_per_s)
        if rate_per_s >= self.mu:
            return made(rate_per_s, self.mu, 0.95)
        misses = 0.001 if rate_per_s <= self.capacity else 0.05
        if self.disturbed(len(self.rates)):
            misses = 0.08
        return made(rate_per_s, rate_per_s, misses)


@given(capacity=st.floats(2.0, 1e5), guess=st.floats(0.3, 5.0))
def test_the_capacity_is_bracketed_within_few_trials(capacity: float, guess: float) -> None:
    target = Target(capacity)
    found = find_capacity(target, start_per_s=guess * capacity, trials=14)
    assert len(found.points) == len(target.rates) <= 14
    assert found.low_per_s <= capacity < found.high_per_s
    assert not found.open_above and not found.generator_bound
    assert found.high_per_s / max(found.low_per_s, 1.0) < 1.5


@given(trials=st.integers(1, 12), capacity=st.floats(0.1, 1e4), guess=st.floats(1e-3, 1e3))
def test_it_goes_beyond_its_trials_only_while_nothing_has_held(trials: int, capacity: float, guess: float) -> None:
    target = Target(capacity)
    found = find_capacity(target, start_per_s=guess * capacity, trials=trials)
    assert 1 <= len(target.rates) <= 3 * trials
    assert len(target.rates) <= trials or all(point.miss_fraction > 0.01 for point in found.points[:-1])
    assert found.low_per_s <= found.high_per_s
    assert found.low_per_s == 0 or found.low_per_s <= capacity


@given(st.integers(1, 8))
def test_one_stall_does_not_lower_the_result(when: int) -> None:
    target = Target(500.0, lambda number: number == when)
    found = find_capacity(target, start_per_s=300.0, trials=12)
    assert 500 / 1.3 < found.low_per_s <= 500


def test_a_drowned_first_guess_tells_where_to_look() -> None:
    target = Target(100.0)
    found = find_capacity(target, start_per_s=700.0, trials=5)
    assert target.rates[1] == pytest.approx(0.8 * target.mu)
    assert found.low_per_s > 90


def test_a_target_that_holds_nothing_ends_soon_with_zero() -> None:
    found = find_capacity(lambda rate: made(rate, 0.0, 1.0), start_per_s=200.0, trials=20)
    assert found.low_per_s == 0
    assert found.high_per_s == 1.0
    assert len(found.points) < 6


def test_a_target_that_holds_everything_leaves_the_bracket_open() -> None:
    found = find_capacity(Target(math.inf), start_per_s=10.0, trials=4)
    assert found.open_above and found.low_per_s == found.high_per_s == pytest.approx(10 * 1.5**5)
    capped = find_capacity(Target(math.inf), start_per_s=10.0, trials=9, high_per_s=50.0)
    assert capped.open_above and capped.low_per_s == 50.0 and len(capped.points) < 9


def test_a_looser_percentile_holds_more() -> None:
    found = find_capacity(Target(100.0), start_per_s=80.0, trials=12, percentile=0.9)
    assert 100 < found.low_per_s <= 115


def test_an_end_set_by_the_generator_is_said() -> None:
    found = find_capacity(lambda rate: made(rate, rate, 0.0 if rate < 50 else 0.5, "generator-bound"), start_per_s=40.0, trials=6)
    assert found.generator_bound


def test_noise_near_the_edge_costs_little() -> None:
    """Miss shares drawn binomially around a steep but smooth curve: over many searches the result stays near the true edge."""
    rng = np.random.default_rng(0)

    def trial(rate: float) -> LoadPoint:
        share = 0.01 * math.exp(18 * (rate / 400 - 1))  # 1% late at exactly 400/s
        n = max(20, int(2 * rate))
        return made(rate, rate, rng.binomial(n, min(1.0, share)) / n)

    results = [find_capacity(trial, start_per_s=300.0, trials=8).low_per_s for _ in range(100)]
    assert 370 < float(np.median(results)) < 430
    assert min(results) > 300


def test_a_narrow_step_around_a_known_rate_finds_what_changed_in_either_direction() -> None:
    for capacity in (70.0, 90.0, 100.0, 125.0, 150.0):
        found = find_capacity(Target(capacity), start_per_s=100.0, trials=6, step=1.2)
        assert found.low_per_s <= capacity <= found.high_per_s or found.open_above
        assert found.high_per_s <= 1.2**2 * found.low_per_s * 1.001


# --- the whole search, on a target made of arithmetic


def searched(target: PaperTarget, slo: str = "p99<=20ms", **more: Any) -> FoundCapacity:
    opened = Loading(LoadAsked(target="paper", slo=slo), target)
    options: dict[str, Any] = {"start_per_s": None, "trial_s": None, "searches": 3, "tell": lambda search, point, objective: None}
    return find_target(opened, **{**options, **more}, progress=Silent())


def test_the_capacity_is_what_a_simulation_of_the_same_queue_gives() -> None:
    curve = ServiceCurve(
        variant="v", runtime="null", device="cpu", instances=1, threads=1, timings=(BatchTiming(batch=1, service_s=(0.004,)),), tau0_s=0.004,
        alpha_s=0.0, peak_bytes=0,
    )  # fmt: skip
    expected = predict_capacity(curve, Plan(runtime="null"), Objective(latency_s=0.02)).capacity_per_s
    found = searched(PaperTarget(service_s=0.004))
    assert found.searches == 3 and found.low_per_s <= found.rate_per_s <= found.high_per_s
    assert found.rate_per_s == pytest.approx(expected, rel=0.12)
    assert found.low_per_s <= expected * 1.05 and found.high_per_s >= expected * 0.95
    assert not found.open_above and not found.generator_bound


def test_every_trial_is_told_once_with_its_search_and_has_a_seed_of_its_own() -> None:
    told: list[tuple[int, LoadPoint]] = []
    found = searched(PaperTarget(), tell=lambda search, point, objective: told.append((search, point)))
    assert [point for _, point in told] == list(found.points)
    assert sorted({search for search, _ in told}) == [1, 2, 3]
    assert len({point.seed for point in found.points}) == len(found.points)
    assert all(point.duration_s > 1.5 for point in found.points)


def test_a_bound_below_one_service_time_holds_nothing_and_is_searched_once() -> None:
    found = searched(PaperTarget(), "p99<=1ms")
    assert (found.rate_per_s, found.low_per_s, found.searches) == (0, 0, 1)


def test_without_a_bound_on_latency_there_is_no_capacity() -> None:
    for slo in ("", "rate>=5/s"):
        with pytest.raises(ConfigError, match="--slo 'p99<=20ms'"):
            searched(PaperTarget(), slo)

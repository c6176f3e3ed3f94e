"""The simulator against a second, slower engine, against closed forms with many requests, and its front end and jitter."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from headway.batching import take
from headway.load import arrival_times
from headway.predict import (
    batch_mean_response_s,
    capacity_per_s,
    kingman_wait_s,
    md1_mean_wait_s,
    mm1_mean_wait_s,
    mm1_response_percentile_s,
    predict_capacity,
    sakasegawa_wait_s,
    simulate,
)
from headway.records import BatchTiming, Objective, Plan, ServiceCurve


def curve_of(samples: dict[int, list[float]], instances: int = 1) -> ServiceCurve:
    timings = tuple(BatchTiming(batch=size, service_s=tuple(times)) for size, times in sorted(samples.items()))
    return ServiceCurve(
        variant="v", runtime="null", device="cpu", instances=instances, threads=1, timings=timings, tau0_s=0.0, alpha_s=0.0, peak_bytes=0
    )


def line(tau0_s: float, alpha_s: float, largest: int, instances: int = 1) -> ServiceCurve:
    return curve_of({size: [tau0_s + alpha_s * size] for size in range(1, largest + 1)}, instances)


def slow_engine(curve: ServiceCurve, plan: Plan, due_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Constant service times, one event after another, with every list scanned in full: slow, and simple enough to believe."""
    done = np.full(len(due_s), np.inf)
    started = [False] * len(due_s)
    free = [0.0] * plan.instances
    wake = math.inf
    moments = sorted(due_s.tolist())
    now = 0.0
    while not all(started):
        coming = [at for at in moments if at > now] + [at for at in free if at > now] + ([wake] if wake > now else [])
        now = min(coming) if coming else now
        wake = math.inf
        for instance in range(plan.instances):
            if free[instance] > now:
                continue
            waiting = [index for index, at in enumerate(due_s) if at <= now and not started[index]]
            decision = take(
                [1] * len(waiting), [float(due_s[index]) for index in waiting], now, max_batch=plan.max_batch, max_wait_s=plan.max_wait_s
            )
            if decision.items:
                free[instance] = now + curve.tau_s(decision.items)
                for index in waiting[: decision.items]:
                    started[index] = True
                    done[index] = free[instance]
            elif waiting:
                wake = decision.wake_at_s
    return done - due_s


@settings(max_examples=50, deadline=None)
@given(
    gaps=st.lists(st.integers(0, 30), min_size=1, max_size=40),
    instances=st.integers(1, 3),
    max_batch=st.integers(1, 6),
    wait=st.sampled_from([0.0, 0.004, 0.0151]),
)
def test_it_equals_a_slow_engine(gaps: list[int], instances: int, max_batch: int, wait: float) -> None:
    due_s = np.cumsum(gaps) * 0.001 + 0.0001 * np.arange(len(gaps)) + 1e-3
    curve = line(0.0073, 0.0019, 6, instances)
    plan = Plan(runtime="null", instances=instances, max_batch=max_batch, max_wait_s=wait)
    assert simulate(curve, plan, due_s) == pytest.approx(slow_engine(curve, plan, due_s))


def lindley(due_s: NDArray[np.float64], service_s: float) -> NDArray[np.float64]:
    """Latency in a single queue of constant service, by Lindley's recursion in closed form."""
    index = np.arange(len(due_s))
    latency_s: NDArray[np.float64] = np.maximum.accumulate(due_s - index * service_s) + (index + 1) * service_s - due_s
    return latency_s


@pytest.mark.parametrize("rho", [0.3, 0.5, 0.8])
def test_m_d_1_exactly_by_recursion_and_in_the_mean_by_formula(rho: float) -> None:
    means = []
    for seed in range(4):
        due_s = arrival_times("poisson", rho / 0.01, 100_000 * 0.01 / rho, seed)
        latency_s = simulate(curve_of({1: [0.01]}), Plan(runtime="null"), due_s)
        assert np.allclose(latency_s, lindley(due_s, 0.01), atol=1e-6)
        means.append(np.mean(latency_s))
    assert np.mean(means) == pytest.approx(0.01 + md1_mean_wait_s(rho / 0.01, 0.01), rel=0.02)


@pytest.mark.parametrize("rho", [0.5, 0.7])
def test_m_m_1_with_many_requests(rho: float) -> None:
    samples = -0.01 * np.log1p(-(np.arange(5000) + 0.5) / 5000)  # quantiles of the exponential
    due_s = arrival_times("poisson", rho / 0.01, 250_000 * 0.01 / rho, 2)
    latency_s = simulate(curve_of({1: samples.tolist()}), Plan(runtime="null"), due_s, seed=3)
    assert np.mean(latency_s) == pytest.approx(0.01 + mm1_mean_wait_s(rho / 0.01, 0.01), rel=0.03)
    for q in (0.5, 0.9, 0.99):
        assert np.quantile(latency_s, q) == pytest.approx(mm1_response_percentile_s(q, rho / 0.01, 0.01), rel=0.05)


@pytest.mark.parametrize("rho", [0.5, 0.6, 0.7, 0.8])
def test_greedy_batching_equals_the_formula_within_a_hundredth(rho: float) -> None:
    due_s = arrival_times("poisson", rho * 1000, 300_000 / (rho * 1000), 5)
    latency_s = simulate(line(0.005, 0.001, 200), Plan(runtime="null", max_batch=200), due_s)
    bound_s = batch_mean_response_s(rho * 1000, 0.005, 0.001)
    assert np.mean(latency_s) == pytest.approx(bound_s, rel=0.01)
    assert np.mean(latency_s) <= bound_s * 1.003, "the formula is an upper bound"


def test_the_table_of_a_batching_server() -> None:
    """Busy is not full: figures of an independent simulation (tau = 5 ms + 1 ms b, no batch limit)."""
    for rate, mean_ms, p99_ms in ((100, 7.98, 13.8), (300, 11.75, 19.9), (500, 16.63, 29.8)):
        due_s = arrival_times("poisson", rate, 200_000 / rate, 9)
        latency_s = simulate(line(0.005, 0.001, 200), Plan(runtime="null", max_batch=200), due_s)
        assert np.mean(latency_s) * 1e3 == pytest.approx(mean_ms, rel=0.03)
        assert np.quantile(latency_s, 0.99) * 1e3 == pytest.approx(p99_ms, rel=0.04)


def test_a_timer_buys_no_latency() -> None:
    """At most 8 a batch, 100/s: no timer 8.0 and 13.8 ms, 2 ms timer 9.1 and 13.9, 10 ms timer 15.0 and 20.0 (mean, p99)."""
    due_s = arrival_times("poisson", 100, 800, 9)
    for wait_s, mean_ms, p99_ms in ((0.0, 8.0, 13.8), (0.002, 9.1, 13.9), (0.01, 15.0, 20.0)):
        latency_s = simulate(line(0.005, 0.001, 8), Plan(runtime="null", max_batch=8, max_wait_s=wait_s), due_s)
        assert np.mean(latency_s) * 1e3 == pytest.approx(mean_ms, rel=0.02)
        assert np.quantile(latency_s, 0.99) * 1e3 == pytest.approx(p99_ms, rel=0.02)


def test_bursts_and_several_servers_wait_as_the_approximations_say() -> None:
    due_s = arrival_times("bursty", 85.0, 5000.0, 4)
    latency_s = simulate(curve_of({1: [0.01]}), Plan(runtime="null"), due_s)
    assert np.mean(latency_s) - 0.01 == pytest.approx(kingman_wait_s(85.0, 0.01, arrival_c2=4.0, service_c2=0.0), rel=0.15)
    due_s = arrival_times("poisson", 320.0, 1000.0, 4)
    latency_s = simulate(curve_of({1: [0.01]}, 4), Plan(runtime="null", instances=4), due_s)
    assert np.mean(latency_s) - 0.01 == pytest.approx(sakasegawa_wait_s(320.0, 0.01, 4, arrival_c2=1.0, service_c2=0.0), rel=0.1)


def test_between_measured_sizes_level_and_spread_follow_the_curve() -> None:
    measured = curve_of({1: [0.008, 0.01, 0.012], 5: [0.04, 0.05, 0.06]})
    latency_s = simulate(measured, Plan(runtime="null", max_batch=3), np.repeat(np.arange(1, 2001) * 10.0, 3))
    assert set(np.round(np.unique(latency_s), 6)) == {0.024, 0.03, 0.036}


def test_an_empirical_front_end_is_a_queue_of_its_own() -> None:
    samples = (-0.001 * np.log1p(-(np.arange(5000) + 0.5) / 5000)).tolist()
    due_s = arrival_times("poisson", 500.0, 400.0, 1)
    latency_s = simulate(curve_of({1: [0.0001]}), Plan(runtime="null"), due_s, front_end_s=samples)
    assert np.mean(latency_s) == pytest.approx(0.0001 + 0.001 + mm1_mean_wait_s(500, 0.001), rel=0.05)


def test_jitter_is_a_floor_that_holds_up_nobody() -> None:
    due_s = arrival_times("poisson", 50.0, 100.0, 1)
    plan = Plan(runtime="null")
    plain = simulate(curve_of({1: [0.01]}), plan, due_s)
    with_jitter = simulate(curve_of({1: [0.01]}), plan, due_s, jitter_s=(0.001, 0.003))
    assert set(np.round(with_jitter - plain, 9)) == {0.001, 0.003}


def independent_capacity(bound_s: float, service_s: float) -> float:
    """M/D/1 with 200,000 requests by Lindley's recursion."""
    normal = np.random.default_rng(99).exponential(1.0, 200_000)
    low, high = 0.0, 1 / service_s
    for _ in range(12):
        middle = (low + high) / 2
        due_s = np.cumsum(normal / middle)
        low, high = (middle, high) if np.quantile(lindley(due_s, service_s), 0.99) <= bound_s else (low, middle)
    return low


@pytest.mark.parametrize("bound_s", [0.02, 0.06])
def test_predicted_capacity_hardly_depends_on_the_seed(bound_s: float) -> None:
    plan, goal = Plan(runtime="null"), Objective(latency_s=bound_s)
    true = independent_capacity(bound_s, 0.01)
    found = [predict_capacity(curve_of({1: [0.01]}), plan, goal, refuses=False, seed=seed).capacity_per_s for seed in range(4)]
    assert np.median(found) == pytest.approx(true, rel=0.03)
    assert found == pytest.approx([true] * 4, rel=0.12)


def test_refusing_what_would_be_late_spares_the_others() -> None:
    """One at a time, 10 ms each, within 60 ms: who is sure to be late must not hold up the rest."""
    plan, goal = Plan(runtime="null"), Objective(latency_s=0.06)
    patient, refusing = (predict_capacity(curve_of({1: [0.01]}), plan, goal, refuses=refuses).capacity_per_s for refuses in (False, True))
    assert 1.05 * patient < refusing < 1.3 * patient


def test_prediction_without_a_bound_or_with_a_rate() -> None:
    free = predict_capacity(line(0.005, 0.001, 8), Plan(runtime="null", max_batch=8), Objective())
    assert free.capacity_per_s == pytest.approx(0.9 * 8 / 0.013)
    assert free.rate_per_s == pytest.approx(0.7 * free.capacity_per_s)
    stated = predict_capacity(line(0.005, 0.001, 8), Plan(runtime="null", max_batch=8), Objective(latency_s=0.03, rate_per_s=100.0))
    assert stated.rate_per_s == 100.0
    assert stated.latency_s == pytest.approx(0.0138, rel=0.1)


def test_a_front_end_lowers_the_predicted_capacity() -> None:
    plan, goal = Plan(runtime="null", max_batch=8), Objective(latency_s=0.03)
    bare = predict_capacity(line(0.002, 0.0001, 8), plan, goal)
    fronted = predict_capacity(line(0.002, 0.0001, 8), plan, goal, front_end_s=0.002)
    assert fronted.capacity_per_s < 500 < bare.capacity_per_s


@given(st.dictionaries(st.integers(1, 64), st.floats(1e-4, 1.0), min_size=1, max_size=6), st.integers(1, 8))
def test_capacity_is_the_same_law_in_the_record_and_here(times: dict[int, float], instances: int) -> None:
    measured = curve_of({size: [tau] for size, tau in times.items()}, instances)
    assert measured.capacity_per_s() == pytest.approx(capacity_per_s(times, instances=instances))

"""The simulator against closed forms, the laws against each other, and the roofline's sentences."""

from __future__ import annotations

import doctest
import heapq
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.load import arrival_times
from headway.predict import (
    batch_mean_response_s,
    crossover_batch,
    explain,
    kingman_wait_s,
    md1_mean_wait_s,
    mm1_mean_wait_s,
    mm1_response_percentile_s,
    predict_capacity,
    queueing,
    service_bound_s,
    simulate,
)
from headway.records import BatchTiming, Ceilings, Cost, Objective, Plan, ServiceCurve


def curve(tau0_s: float, alpha_s: float, sizes: tuple[int, ...] = (1, 2, 4, 8), instances: int = 1) -> ServiceCurve:
    timings = tuple(BatchTiming(batch=size, service_s=(tau0_s + alpha_s * size,)) for size in sizes)
    return ServiceCurve(
        variant="v",
        runtime="null",
        device="cpu",
        instances=instances,
        threads=1,
        timings=timings,
        tau0_s=tau0_s,
        alpha_s=alpha_s,
        peak_bytes=0,
    )


@pytest.mark.parametrize("rho", [0.3, 0.6, 0.8])
def test_simulation_equals_m_d_1(rho: float) -> None:
    due = arrival_times("poisson", rho / 0.01, 120_000 * 0.01 / rho, 3)
    latency = simulate(curve(0.01, 0.0, (1,)), Plan(runtime="null"), due)
    assert np.mean(latency) == pytest.approx(0.01 + md1_mean_wait_s(rho / 0.01, 0.01), rel=0.03)


def test_simulation_equals_m_m_1_in_mean_and_percentile() -> None:
    rng = np.random.default_rng(0)
    measured = ServiceCurve(
        variant="v", runtime="null", device="cpu", instances=1, threads=1, tau0_s=0.01, alpha_s=0.0, peak_bytes=0,
        timings=(BatchTiming(batch=1, service_s=tuple(rng.exponential(0.01, 20_000))),),
    )  # fmt: skip
    waits = []
    for seed in range(40):
        due = arrival_times("poisson", 50.0, 100.0, seed)
        waits.append(simulate(measured, Plan(runtime="null"), due, seed=seed))
    latency = np.concatenate(waits)
    assert np.mean(latency) == pytest.approx(0.01 + mm1_mean_wait_s(50, 0.01), rel=0.06)
    assert np.quantile(latency, 0.9) == pytest.approx(mm1_response_percentile_s(0.9, 50, 0.01), rel=0.08)


@pytest.mark.parametrize("rho", [0.5, 0.7])
def test_simulation_equals_the_batch_service_formula(rho: float) -> None:
    sizes = tuple(2**power for power in range(9))
    due = arrival_times("poisson", rho / 0.001, 100_000 * 0.001 / rho, 5)
    latency = simulate(curve(0.005, 0.001, sizes), Plan(runtime="null", max_batch=256), due)
    assert np.mean(latency) == pytest.approx(batch_mean_response_s(rho / 0.001, 0.005, 0.001), rel=0.02)


def independent_capacity_per_s(servers: int, service_s: float, bound_s: float) -> float:
    """M/D/k by Kiefer and Wolfowitz's recursion, written here a second time so that the simulator has a judge."""
    low, high = 0.0, servers / service_s
    for _ in range(10):
        middle = (low + high) / 2
        due = np.cumsum(np.random.default_rng(7).exponential(1 / middle, 60_000))
        free = [0.0] * servers
        latency = []
        for at in due.tolist():
            ends = max(at, heapq.heappop(free)) + service_s
            heapq.heappush(free, ends)
            latency.append(ends - at)
        low, high = (middle, high) if np.quantile(latency, 0.99) <= bound_s else (low, middle)
    return low


@pytest.mark.parametrize("instances", [1, 2, 4])
def test_predicted_capacity_equals_an_independent_m_d_k(instances: int) -> None:
    plan = Plan(runtime="null", instances=instances)
    predicted = predict_capacity(curve(0.01, 0.0, (1,), instances=instances), plan, Objective(latency_s=0.05), refuses=False)
    assert predicted.capacity_per_s == pytest.approx(independent_capacity_per_s(instances, 0.01, 0.05), rel=0.08)


@given(st.integers(1, 4), st.integers(1, 16), st.floats(0, 0.02), st.integers(0, 5))
def test_every_request_takes_at_least_its_service_time(instances: int, max_batch: int, wait: float, seed: int) -> None:
    due = arrival_times("bursty", 400.0, 0.5, seed)
    measured = curve(0.004, 0.001, (1, 2, 4, 8, 16), instances=instances)
    plan = Plan(runtime="null", instances=instances, max_batch=max_batch, max_wait_s=wait)
    latency = simulate(measured, plan, due, seed=seed, front_end_s=1e-4)
    assert np.all(latency >= 0.005)
    assert np.array_equal(latency, simulate(measured, plan, due, seed=seed, front_end_s=1e-4))


def test_a_front_end_is_a_queue_of_its_own() -> None:
    due = arrival_times("poisson", 500.0, 20.0, 1)
    latency = simulate(curve(0.0001, 0.0, (1,)), Plan(runtime="null"), due, front_end_s=0.001)
    assert np.mean(latency) == pytest.approx(0.0001 + 0.001 + md1_mean_wait_s(500, 0.001), rel=0.06)


def test_capacity_falls_with_a_tighter_bound_and_is_zero_when_impossible() -> None:
    measured = curve(0.005, 0.001)
    plan = Plan(runtime="null", max_batch=8)
    loose, tight, never = (predict_capacity(measured, plan, Objective(latency_s=s)).capacity_per_s for s in (0.1, 0.02, 0.001))
    assert loose > tight > never == 0


def test_the_laws_agree_where_they_meet() -> None:
    assert kingman_wait_s(80, 0.01, arrival_c2=1, service_c2=1) == pytest.approx(mm1_mean_wait_s(80, 0.01))
    assert kingman_wait_s(80, 0.01, arrival_c2=1, service_c2=0) == pytest.approx(md1_mean_wait_s(80, 0.01))
    assert mm1_mean_wait_s(100, 0.01) == math.inf
    assert batch_mean_response_s(1000, 0.005, 0.001) == math.inf
    star = crossover_batch(flop=2e9, weight_bytes=4e8, activation_bytes=1e6, flop_per_s=1e11, bytes_per_s=2e10)
    sides = {"weight_bytes": 4e8, "activation_bytes": 1e6, "flop_per_s": 1e11, "bytes_per_s": 2e10}
    assert service_bound_s(star, flop=2e9, **sides) == pytest.approx((4e8 + star * 1e6) / 2e10)


def test_the_worked_example_is_right() -> None:
    assert doctest.testmod(queueing).failed == 0


@pytest.mark.parametrize(("sets", "word"), [(("avx512_vnni",), "int8 arithmetic can bring"), ((), "no 8-bit dot product")])
def test_the_roofline_says_what_can_pay(sets: tuple[str, ...], word: str) -> None:
    ceilings = Ceilings(
        flop_per_s={"float32": 2e11, "int8": 8e11}, flop_per_s_one_thread={"float32": 1e11, "int8": 4e11}, bytes_per_s=3e10,
        bytes_per_s_one_thread=2e10, overhead_s=1e-5,
    )  # fmt: skip
    cost = Cost(
        parameters=10**6,
        flop=10**9,
        weight_bytes=4 * 10**6,
        activation_bytes=10**6,
        opset=17,
        inputs=(),
        outputs=(),
        operators=(),
        uncounted=("Foo",),
    )
    text = "\n".join(explain(cost, ceilings, sets))
    assert word in text
    assert "compute-bound" in text
    assert "not counted: Foo" in text

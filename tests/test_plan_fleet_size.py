"""Sizes of fleets against closed forms, the search for them, failures, and where the time goes."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.predict import mm1_response_percentile_s, sakasegawa_wait_s
from headway.predict.fleet_size import (
    FINAL,
    ROUGH,
    SYMMETRIC,
    Demand,
    Replica,
    budget,
    failure,
    held_rate,
    latency,
    least_replicas,
    least_that,
    observe,
    rate_course,
    rough_replicas,
)
from headway.records import BatchTiming, ConfigError, Plan, ServiceCurve


def replica(samples: dict[int, list[float]], *, instances: int = 1, max_batch: int = 1, **more: float) -> Replica:
    timings = tuple(BatchTiming(batch=size, service_s=tuple(times)) for size, times in sorted(samples.items()))
    curve = ServiceCurve(
        variant="v", runtime="null", device="cpu", instances=instances, threads=1, timings=timings, tau0_s=0.0, alpha_s=0.0, peak_bytes=0
    )
    return Replica(curve, Plan(runtime="null", instances=instances, max_batch=max_batch), **more)


def exponential(mean_s: float) -> list[float]:
    return (-mean_s * np.log1p(-(np.arange(5000) + 0.5) / 5000)).tolist()


BATCHING = {size: [0.004 + 0.001 * size] for size in (1, 2, 4, 8)}


def test_at_low_load_one_is_enough_and_below_the_time_of_one_none_is() -> None:
    single = replica({1: [0.01]})
    assert least_replicas(single, Demand(0.5, 0.99, 0.03)) == 1
    assert least_replicas(single, Demand(0.5, 0.99, 0.0099)) is None
    assert single.alone_s(0.99) == 0.01
    assert replica({1: [0.01]}, front_s=0.005).alone_s(0.99) == pytest.approx(0.015)
    assert replica({2: [0.01], 4: [0.02]}).alone_s(0.5) == pytest.approx(0.005), "what was not measured is on the curve"


@pytest.mark.parametrize(("rate_per_s", "bound_s"), [(60.0, 0.15), (200.0, 0.15), (600.0, 0.15), (600.0, 0.08), (40.0, 0.6)])
def test_requests_dealt_out_by_chance_make_every_replica_an_m_m_1(rate_per_s: float, bound_s: float) -> None:
    """A Poisson process split by chance is as many Poisson processes."""
    closed = next(n for n in range(1, 100) if mm1_response_percentile_s(0.99, rate_per_s / n, 0.01) <= bound_s)
    assert least_replicas(replica({1: exponential(0.01)}), Demand(rate_per_s, 0.99, bound_s)) == closed


def test_the_wait_in_one_replica_of_several_instances_is_that_of_m_d_k() -> None:
    seen = observe(replica({1: [0.01]}, instances=4), Demand(320.0, 0.99, 0.1), 1)
    assert seen.mean_s - 0.01 == pytest.approx(sakasegawa_wait_s(320.0, 0.01, 4, arrival_c2=1.0, service_c2=0.0), rel=0.1)


def test_the_rate_that_a_fleet_holds_is_that_of_its_members() -> None:
    """p99 of M/M/1 is -ln(0.01) tau / (1 - rho): solved for the rate."""
    closed = (1 + math.log(0.01) * 0.01 / 0.15) / 0.01
    demand = Demand(100.0, 0.99, 0.15)
    for replicas in (1, 5):
        assert held_rate(replica({1: exponential(0.01)}), demand, replicas) == pytest.approx(replicas * closed, rel=0.04)
    assert held_rate(replica({1: exponential(0.01)}), demand, 1, from_per_s=500.0) == 500.0, "beyond capacity there is nothing to search"


def test_a_replica_of_half_the_capacity_is_needed_twice() -> None:
    half, whole = replica(BATCHING, max_batch=8, correction=0.5), replica(BATCHING, max_batch=8)
    demand = Demand(1000.0, 0.99, 0.05)
    assert half.capacity_per_s == whole.capacity_per_s / 2
    assert rough_replicas(half, demand) == rough_replicas(whole, dataclasses.replace(demand, rate_per_s=2000.0))


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(0, 5000))
def test_the_search_finds_the_edge_from_anywhere(edge: int, start: int, low: int) -> None:
    low = min(low, edge - 1)
    start = max(start, low + 1)
    asked = []
    assert least_that(lambda n: bool(asked.append(n)) or n >= edge, low, start, 10_000) == edge
    assert len(asked) <= 2 * math.log2(10_000) + 4 and min(asked) > low


@given(st.sets(st.integers(1, 60)), st.integers(1, 60))
def test_what_the_search_finds_holds_and_the_one_below_does_not(holding: set[int], start: int) -> None:
    found = least_that(lambda n: n in holding, 0, start, 60)
    if found is None:
        assert 60 not in holding
    else:
        assert found in holding and found - 1 not in holding


def test_a_large_fleet_is_simulated_as_a_small_one_at_the_same_load() -> None:
    demand, single = Demand(200 * 80.0, 0.99, 0.15), replica({1: exponential(0.01)})
    large = observe(single, demand, 200)
    small = observe(single, demand, 200, requests=(300_000, 200_000))
    assert (large.replicas, small.replicas) == (200, SYMMETRIC)
    assert small.percentile_s(0.99) == pytest.approx(large.percentile_s(0.99), rel=0.05)
    huge = observe(single, Demand(100_000 * 50.0, 0.99, 0.15), 100_000)
    assert huge.replicas == SYMMETRIC and len(huge.due_s) < FINAL[1]


def test_every_simulation_is_long_enough() -> None:
    single = replica({1: [0.001]})
    assert len(observe(single, Demand(10.0, 0.5, 0.01), 1, requests=ROUGH).due_s) == pytest.approx(10_000, rel=0.05)
    assert len(observe(single, Demand(10.0, 0.999, 0.01), 1, requests=ROUGH).due_s) == pytest.approx(100_000, rel=0.05)
    assert len(observe(single, Demand(10.0, 0.9, 0.01), 300, requests=ROUGH).due_s) == pytest.approx(50 * 300, rel=0.05)
    assert observe(single, Demand(450.0, 0.5, 2.0), 1, requests=ROUGH).duration_s == pytest.approx(200.0), "a hundred times the bound"
    assert len(observe(single, Demand(10.0, 0.5, 0.01), 1).due_s) == pytest.approx(FINAL[0], rel=0.05)


def test_arrivals_that_do_not_come_are_a_sentence() -> None:
    with pytest.raises(ConfigError, match="regular"):
        for seed in range(20):
            observe(replica({1: [0.001]}), Demand(10.0, 0.5, 0.01, "gamma:c2=10000", seed=seed), 1, requests=(100, 100))


def test_the_rest_holds_when_the_spare_fails() -> None:
    single, demand = replica(BATCHING, max_batch=8), Demand(2000.0, 0.99, 0.04)
    needed = least_replicas(single, demand, spare=1)
    assert needed is not None and needed > 2
    seen = observe(single, demand, needed + 1, failed=1)
    later = seen.run.latency_s[seen.due_s >= seen.failed_at_s + 1.0]
    assert np.mean(later > demand.latency_s) <= 0.01
    found = failure(single, demand, needed + 1, 1)
    assert found is not None and found.holds_again_after_s is not None
    held_s = latency(single, demand, needed + 1, observe(single, demand, needed + 1)).mean_s
    assert found.lost == pytest.approx(2000.0 / (needed + 1) * held_s, rel=0.6), "Little: what a replica holds"
    assert found.lost_per_s == pytest.approx(2000.0 / (needed + 1))


def test_a_failure_that_the_rest_cannot_bear_is_not_over() -> None:
    single = replica({1: [0.01]})
    found = failure(single, Demand(150.0, 0.99, 0.05), 2, 1)
    assert found is not None and found.holds_again_after_s is None
    assert failure(single, Demand(1e6, 0.99, 0.05), 100_000, 1) is None, "too large to simulate one by one"


@pytest.mark.parametrize("max_batch", [1, 8])
def test_the_budget_adds_up(max_batch: int) -> None:
    single, demand = replica(BATCHING, max_batch=max_batch, front_s=0.002), Demand(140.0, 0.99, 0.2)
    seen = observe(single, demand, 1)
    mean, high = budget(single, demand, seen)
    assert (mean.at, high.at) == ("mean", "p99")
    assert mean.total_s == pytest.approx(seen.mean_s)
    assert high.total_s == pytest.approx(seen.percentile_s(0.99), rel=0.01)
    for part in (mean, high):
        assert part.front_s == pytest.approx(0.002)
        assert part.service_s == pytest.approx(0.005)
        assert (part.batch_s == pytest.approx(0.0)) == (max_batch == 1)
        assert part.wait_s > 0


def test_the_course_of_a_day() -> None:
    assert rate_course("poisson") is None
    assert rate_course("diurnal:peak=1.5") == pytest.approx((0.5, 1.5), abs=1e-4)
    assert rate_course("step:factor=3") == pytest.approx((0.5, 1.5), abs=1e-4)

"""The load tool's own truth: closed forms on a virtual clock, Little's law, and the summary against brute force. No real time decides here.

The comparison on a real clock is ``benchmarks/serving/closed_forms.py``.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from headway.load import RawLoad, arrival_times, summarise
from headway.load.generator import FAILED, LOST, OK, REFUSED
from headway.predict import batch_mean_response_s, kingman_wait_s, md1_mean_wait_s, simulate
from headway.records import BatchTiming, LoadPoint, Objective, Plan, ServiceCurve

SEEDS = range(9)


def curve(tau0_s: float, alpha_s: float, largest: int) -> ServiceCurve:
    sizes = [size for size in (1, 2, 4, 8, 16, 32, 64, 128, 256) if size <= largest]
    timings = tuple(BatchTiming(batch=size, service_s=(tau0_s + alpha_s * size,)) for size in sizes)
    return ServiceCurve(
        variant="v", runtime="null", device="cpu", instances=1, threads=1, timings=timings, tau0_s=tau0_s, alpha_s=alpha_s, peak_bytes=0
    )  # fmt: skip


def run_of(due_s: NDArray[np.float64], latency_s: NDArray[np.float64]) -> RawLoad:
    done_s = due_s + latency_s
    return RawLoad(due_s, due_s, done_s, np.zeros(len(due_s), dtype=np.int8), float(done_s.max()))


def point(raw: RawLoad, rate_per_s: float = 100.0, objective: Objective = Objective(latency_s=0.1)) -> LoadPoint:  # noqa: B008
    return summarise(raw, target="in-process", arrivals="poisson", rate_per_s=rate_per_s, objective=objective, seed=0)


def simulated(rate_per_s: float, service: ServiceCurve, plan: Plan, seed: int, requests: int, arrivals: str = "poisson") -> LoadPoint:
    """What the load tool says of a run through the engine on a virtual clock."""
    due_s = arrival_times(arrivals, rate_per_s, requests / rate_per_s, seed)
    return point(run_of(due_s, simulate(service, plan, due_s, seed=seed)), rate_per_s)


# --- closed forms


@pytest.mark.parametrize("rho", [0.2, 0.5, 0.8])
def test_the_mean_of_a_run_is_that_of_m_d_1(rho: float) -> None:
    """Arrivals, engine and summary together against Pollaczek and Khinchine: the median of several seeds, each a run of its own."""
    means = [simulated(rho / 0.01, curve(0.01, 0.0, 1), Plan(runtime="null"), seed, 30_000).mean_s for seed in SEEDS]
    assert float(np.median(means)) == pytest.approx(0.01 + md1_mean_wait_s(rho / 0.01, 0.01), rel=0.03)


@pytest.mark.parametrize("rho", [0.5, 0.7, 0.8])
def test_the_mean_of_a_run_is_within_the_batch_service_bound_and_near_it(rho: float) -> None:
    """Greedy batching, tau(b) = 5 ms + 1 ms b: Inoue's formula is an upper bound, and within 2% for these loads."""
    means = [simulated(rho / 0.001, curve(0.005, 0.001, 256), Plan(runtime="null", max_batch=256), seed, 20_000).mean_s for seed in SEEDS]
    bound_s = batch_mean_response_s(rho / 0.001, 0.005, 0.001)
    assert 0.97 * bound_s <= float(np.median(means)) <= 1.01 * bound_s


def test_bursts_wait_as_long_as_heavy_traffic_says() -> None:
    """G/D/1 near saturation: Kingman's law with the squared variation that was asked for."""
    for c2 in (0.25, 4.0):
        means = [simulated(90.0, curve(0.01, 0.0, 1), Plan(runtime="null"), seed, 60_000, f"gamma:c2={c2}").mean_s for seed in SEEDS]
        assert float(np.median(means)) - 0.01 == pytest.approx(kingman_wait_s(90.0, 0.01, arrival_c2=c2, service_c2=0.0), rel=0.2)


def test_the_percentile_of_a_run_is_that_of_the_distribution() -> None:
    """An infinite server: latency is the service time itself, here exponential, and the interval covers its percentile as often as it says."""
    covered = {0.5: 0, 0.99: 0}
    rng = np.random.default_rng(5)
    for _ in range(300):
        due_s = np.sort(rng.uniform(0, 20.0, 2000))
        found = point(run_of(due_s, rng.exponential(0.01, 2000)))
        for q in covered:
            percentile = found.percentile(q)
            covered[q] += percentile.low_s <= -0.01 * math.log(1 - q) <= percentile.high_s
    assert all(count >= 0.95 * 300 - 4 * math.sqrt(300 * 0.05 * 0.95) for count in covered.values()), covered


# --- Little's law


@given(
    st.lists(st.tuples(st.floats(0, 0.1), st.floats(1e-4, 0.05)), min_size=2, max_size=60),
    st.integers(0, 2**31),
)
def test_little_s_law_is_exact_when_the_run_ends_empty(rows: list[tuple[float, float]], seed: int) -> None:
    """With a last arrival long after all the others ended, the mean in flight is exactly rate times latency."""
    due_s = np.cumsum([gap for gap, _ in rows])
    latency_s = np.array([latency for _, latency in rows])
    due_s, latency_s = np.append(due_s, due_s.max() + 1.0), np.append(latency_s, 0.01)
    found = point(run_of(due_s, latency_s))
    assert found.little_ratio == pytest.approx(1.0)
    assert found.in_flight_mean == pytest.approx(latency_s[:-1].sum() / due_s[-1])


def counted_in_flight(raw: RawLoad, until_s: float) -> float:
    """The mean number in flight by walking through every arrival and departure."""
    there = raw.status != REFUSED
    ends_s = np.where(np.isnan(raw.done_s), math.inf, raw.done_s)[there]
    events = sorted([(at, 1) for at in raw.due_s[there] if at < until_s] + [(at, -1) for at in ends_s if at < until_s])
    area, now, number = 0.0, 0.0, 0
    for at, change in events:
        area += number * (at - now)
        now, number = at, number + change
    return (area + number * (until_s - now)) / until_s


KINDS = st.sampled_from([OK, OK, OK, REFUSED, FAILED, LOST])
ROWS = st.lists(st.tuples(st.floats(1e-3, 0.1), st.floats(1e-6, 2.0), st.floats(0, 0.01), KINDS), min_size=2, max_size=60)


def made(rows: list[tuple[float, float, float, int]]) -> RawLoad:
    due_s = np.cumsum([gap for gap, _, _, _ in rows])
    status = np.array([kind for _, _, _, kind in rows], dtype=np.int8)
    sent_s = due_s + np.array([late for _, _, late, _ in rows])
    done_s = np.where(status == LOST, np.nan, sent_s + np.array([latency for _, latency, _, _ in rows]))
    end_s = float(np.nanmax(np.append(done_s, sent_s.max()))) + 0.1
    return RawLoad(due_s, sent_s, done_s, status, end_s)


@given(ROWS)
def test_the_mean_in_flight_is_the_one_counted_event_by_event(rows: list[tuple[float, float, float, int]]) -> None:
    raw = made(rows)
    until_s = float(raw.due_s.max())
    ended = (raw.status != REFUSED) & (np.where(np.isnan(raw.done_s), math.inf, raw.done_s) <= until_s)
    found = point(raw)
    if ended.any():
        assert found.in_flight_mean == pytest.approx(counted_in_flight(raw, until_s), rel=1e-6, abs=1e-9)
    else:
        assert (found.in_flight_mean, found.little_ratio) == (0.0, 1.0), "with nothing ended there is nothing to compare"


# --- the summary against brute force


@given(ROWS, st.sampled_from([0.02, 0.5]))
def test_the_summary_is_what_counting_one_by_one_gives(rows: list[tuple[float, float, float, int]], bound_s: float) -> None:
    raw = made(rows)
    found = point(raw, objective=Objective(latency_s=bound_s))
    latencies, naive, in_time, answered = [], [], 0, 0
    for due_s, sent_s, done_s, status in zip(raw.due_s, raw.sent_s, raw.done_s, raw.status, strict=True):
        if status == REFUSED:
            continue
        until_s = done_s if status == OK else raw.end_s
        latencies.append(until_s - due_s)
        naive.append(until_s - sent_s)
        answered += status == OK
        in_time += status == OK and until_s - due_s <= bound_s
    assert (found.sent, found.completed) == (len(rows), answered)
    assert found.miss_fraction == pytest.approx(1 - in_time / len(rows))
    assert found.goodput_per_s == pytest.approx(in_time / raw.end_s) and found.achieved_rate_per_s == pytest.approx(answered / raw.end_s)
    if not latencies:
        assert found.percentiles == ()
        return
    assert found.mean_s == pytest.approx(sum(latencies) / len(latencies))
    for percentile in found.percentiles:
        rank = math.ceil(percentile.q * len(latencies) - 1e-9)
        assert percentile.latency_s == sorted(latencies)[rank - 1]
        assert sum(latency <= percentile.latency_s for latency in latencies) >= percentile.q * len(latencies) - 1e-6
    assert found.naive_p99_s == sorted(naive)[math.ceil(0.99 * len(naive) - 1e-9) - 1]
    assert found.naive_p99_s <= found.percentile(0.99).latency_s + 1e-12, "what is counted from the send is never more"

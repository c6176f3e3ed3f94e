"""The in-process sender and the summary: against targets whose service is known, and against records made by hand."""

from __future__ import annotations

import gc
import math
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from headway.load import Completion, RawLoad, arrival_times, run_open_loop, summarise
from headway.load.generator import FAILED, LOST, OK, REFUSED
from headway.records import LoadPoint, MeasurementError, Objective


def raw_load(
    due_s: NDArray[np.float64], latency_s: NDArray[np.float64], late_s: float = 0.0, status: NDArray[np.int8] | None = None
) -> RawLoad:
    done_s = due_s + latency_s
    kinds = np.zeros(len(due_s), dtype=np.int8) if status is None else status
    return RawLoad(due_s, due_s + late_s, np.where(kinds == LOST, np.nan, done_s), kinds, float(done_s.max()))


def point(raw: RawLoad, objective: Objective = Objective(latency_s=0.02), rate_per_s: float = 100.0) -> LoadPoint:  # noqa: B008
    return summarise(raw, target="in-process", arrivals="poisson", rate_per_s=rate_per_s, objective=objective, seed=0)


def evenly(count: int, rate_per_s: float = 100.0) -> NDArray[np.float64]:
    return np.arange(count) / rate_per_s


# --- the sender


def test_every_request_is_sent_once_in_order_and_never_early() -> None:
    due_s = arrival_times("poisson", 2000.0, 0.2, 1)
    seen: list[int] = []

    def submit(number: int, completion: Completion) -> None:
        seen.append(number)
        (completion.ok, completion.refused, completion.failed)[number % 3](number)

    raw = run_open_loop(submit, due_s)
    assert seen == list(range(len(due_s)))
    assert (raw.sent_s >= raw.due_s).all()
    assert raw.status.tolist() == [number % 3 for number in range(len(due_s))]
    assert (raw.done_s >= raw.sent_s).all() and raw.end_s == raw.done_s.max()


def test_a_slow_target_does_not_slow_the_sender_and_latency_counts_from_the_due_time() -> None:
    """A target that takes 5 ms a request, one after another, offered 400/s: the k-th answer cannot come before 5 ms times k."""
    due_s = np.arange(40) / 400.0
    queue: list[tuple[int, Completion]] = []
    wake = threading.Condition()

    def serve() -> None:
        for _ in range(len(due_s)):
            with wake:
                wake.wait_for(lambda: queue)
                number, completion = queue.pop(0)
            time.sleep(0.005)
            completion.ok(number)

    def submit(number: int, completion: Completion) -> None:
        with wake:
            queue.append((number, completion))
            wake.notify()

    worker = threading.Thread(target=serve)
    worker.start()
    raw = run_open_loop(submit, due_s, drain_s=30)
    worker.join()
    assert (raw.done_s >= 0.005 * np.arange(1, 41)).all()
    assert (raw.status == OK).all()


def test_answers_that_never_come_are_lost_and_late_reports_do_not_count() -> None:
    kept: list[Completion] = []

    def submit(number: int, completion: Completion) -> None:
        kept.append(completion)
        if number == 0:
            completion.ok(0)
            completion.failed(0)

    raw = run_open_loop(submit, np.array([0.0, 0.001]), drain_s=0.02)
    kept[0].ok(1)
    assert raw.status.tolist() == [OK, LOST]
    assert math.isnan(raw.done_s[1])
    assert raw.end_s >= 0.02


def test_a_run_without_requests_ends_at_once() -> None:
    assert len(run_open_loop(lambda *_: None, np.array([])).due_s) == 0
    with pytest.raises(MeasurementError, match="at least one request"):
        point(run_open_loop(lambda *_: None, np.array([])))


def test_the_collector_is_left_as_it_was() -> None:
    run_open_loop(lambda number, completion: completion.ok(number), np.array([0.0]))
    assert gc.get_freeze_count() == 0
    gc.freeze()
    run_open_loop(lambda number, completion: completion.ok(number), np.array([0.0]))
    assert gc.get_freeze_count() > 0, "objects that somebody else froze must stay frozen"
    gc.unfreeze()


# --- the summary


def test_figures_of_a_run_made_by_hand() -> None:
    due_s = evenly(1000)
    status = np.zeros(1000, dtype=np.int8)
    status[:10], status[10:15], status[15] = REFUSED, FAILED, LOST
    latency_s = np.full(1000, 0.01)
    latency_s[500:520] = 0.05
    found = point(raw_load(due_s, latency_s, status=status))
    assert (found.sent, found.completed, found.refused, found.failed) == (1000, 984, 10, 6)
    assert found.miss_fraction == pytest.approx(0.036)
    assert found.duration_s == pytest.approx(10.0)
    assert found.achieved_rate_per_s == pytest.approx(98.4)
    assert found.goodput_per_s == pytest.approx(96.4)
    assert [p.q for p in found.percentiles] == [0.5, 0.9, 0.95, 0.99, 0.999]
    assert found.percentile(0.5).latency_s == pytest.approx(0.01)
    assert found.percentile(0.999).latency_s > 9, "a request never answered counts with all the time it was not answered"
    assert all(p.low_s <= p.latency_s <= p.high_s and math.isfinite(p.high_s) for p in found.percentiles)
    assert found.verdict == "missed"


def test_throughput_is_divided_by_the_wait_for_the_last_answer_too() -> None:
    due_s = evenly(100)
    found = point(raw_load(due_s, np.linspace(0.0, 4.0, 100)))
    assert found.duration_s == pytest.approx(0.99 + 4.0)
    assert found.achieved_rate_per_s == pytest.approx(100 / 4.99)


def test_the_objective_s_own_percentile_is_always_there() -> None:
    found = point(raw_load(evenly(50), np.full(50, 0.01)), Objective(percentile=0.97, latency_s=0.02))
    assert found.percentile(0.97).q == 0.97


@pytest.mark.parametrize(
    ("sent", "misses", "verdict"), [(1000, 0, "held"), (299, 0, "held"), (298, 0, "unproven"), (1000, 10, "unproven"), (1000, 30, "missed")]
)
def test_the_verdict_needs_proof_either_way(sent: int, misses: int, verdict: str) -> None:
    latency_s = np.full(sent, 0.01)
    latency_s[:misses] = 0.03
    assert point(raw_load(evenly(sent), latency_s)).verdict == verdict


def test_a_late_generator_is_the_bottleneck_unless_the_target_is_far_beyond_it() -> None:
    assert point(raw_load(evenly(1000), np.full(1000, 0.015), late_s=0.003)).verdict == "held"
    assert point(raw_load(evenly(1000), np.full(1000, 0.015), late_s=0.005)).verdict == "generator-bound"
    assert point(raw_load(evenly(1000), np.full(1000, 0.025), late_s=0.005)).verdict == "generator-bound"
    assert point(raw_load(evenly(1000), np.full(1000, 0.1), late_s=0.005)).verdict == "missed"
    assert point(raw_load(evenly(1000), np.full(1000, 0.1), late_s=0.005), Objective()).verdict == "generator-bound"


def test_the_naive_figure_flatters() -> None:
    """One stall of a second; the sender was stopped with it, as a closed loop is."""
    due_s = evenly(1000)
    sent_s = np.where((due_s >= 2) & (due_s < 3), 3.0, due_s)
    raw = RawLoad(due_s, sent_s, sent_s + 0.001, np.zeros(1000, dtype=np.int8), float(sent_s[-1] + 0.001))
    found = point(raw)
    assert found.naive_p99_s == pytest.approx(0.001, rel=0.01)
    assert found.percentile(0.99).latency_s > 0.8


def test_little_s_law_holds_in_a_steady_queue_and_shows_a_growing_one() -> None:
    steady = point(queue_run(80.0, 0.01, 200.0))
    assert steady.little_ratio == pytest.approx(1.0, abs=0.02)
    assert steady.in_flight_mean == pytest.approx(0.8 + 0.8**2 / (2 * 0.2), rel=0.15)  # M/D/1: rho + rho^2 / (2 (1 - rho))
    assert point(queue_run(150.0, 0.01, 20.0)).little_ratio > 1.3


def queue_run(rate_per_s: float, service_s: float, duration_s: float) -> RawLoad:
    """One server of constant service, on paper."""
    due_s = arrival_times("poisson", rate_per_s, duration_s, 4)
    done_s, free_s = [], 0.0
    for at_s in due_s.tolist():
        free_s = max(at_s, free_s) + service_s
        done_s.append(free_s)
    return raw_load(due_s, np.array(done_s) - due_s)


@given(
    st.lists(
        st.tuples(st.floats(0, 0.1), st.floats(1e-6, 2.0), st.sampled_from([OK, OK, OK, REFUSED, FAILED, LOST])), min_size=1, max_size=80
    ),
    st.sampled_from([None, 0.01, 0.5]),
)
def test_the_books_balance_whatever_happened(rows: list[tuple[float, float, int]], bound: float | None) -> None:
    due_s = np.cumsum([gap for gap, _, _ in rows])
    raw = raw_load(due_s, np.array([latency for _, latency, _ in rows]), status=np.array([kind for _, _, kind in rows], dtype=np.int8))
    found = point(raw, Objective(latency_s=bound))
    assert found.completed + found.refused + found.failed == found.sent == len(rows)
    assert 0 <= found.miss_fraction <= 1
    assert found.goodput_per_s <= found.achieved_rate_per_s * (1 + 1e-9)
    assert all(math.isfinite(value) for value in (found.mean_s, found.naive_p99_s, found.in_flight_mean, found.little_ratio))
    values = [p.latency_s for p in found.percentiles]
    assert values == sorted(values)


NULL: Callable[[int, Completion], None] = lambda number, completion: completion.ok(number)  # noqa: E731


def test_the_sender_reports_its_own_lateness() -> None:
    def slow(number: int, completion: Completion) -> None:
        time.sleep(0.004)
        completion.ok(number)

    due_s = np.arange(60) / 1000.0
    assert point(run_open_loop(slow, due_s), rate_per_s=1000.0).lateness_p99_s > 0.1
    assert (run_open_loop(NULL, due_s).sent_s >= due_s).all()

"""Deadlines, priorities and kinds: what is queued, what is refused at once, what runs next. Pure functions, the batcher, the simulator."""

from __future__ import annotations

import importlib
import math
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.batching import (
    Batcher,
    BatchTimes,
    Late,
    Pace,
    alike,
    batch_within,
    calm,
    capacity_per_s,
    done_by_s,
    finish_s,
    fit,
    level,
    measure_pace,
    overload,
    overloaded,
    pace,
    policy,
)
from headway.load import arrival_times
from headway.predict import kernel, simulate
from headway.records import BatchTiming, Plan, ServiceCurve

TAU = [0.0] + [0.002 + 0.001 * size for size in range(1, 65)]
ITEMS = st.lists(st.tuples(st.integers(1, 8), st.floats(-0.01, 0.2)), min_size=1, max_size=16)


def tau(rows: int) -> float:
    return TAU[min(rows, 64)]


@given(ITEMS, st.booleans())
def test_nothing_is_run_in_vain(items: list[tuple[int, float]], backlog: bool) -> None:
    rows, deadlines = [size for size, _ in items], [at for _, at in items]
    chosen = fit(rows, deadlines, 0.0, TAU, backlog=backlog)
    assert not set(chosen.run) & set(chosen.refuse)
    assert chosen.run == sorted(chosen.run)
    ends = tau(sum(rows[place] for place in chosen.run))
    assert all(ends <= deadlines[place] for place in chosen.run)
    assert chosen.run or chosen.refuse
    cuts = [count for count in range(1, len(items)) if in_two_parts(rows, deadlines, count)]
    if chosen.refuse and not backlog:
        assert not cuts
    if not chosen.refuse and len(chosen.run) < len(items):
        assert len(chosen.run) == max(cuts)


def in_two_parts(rows: Sequence[int], deadlines: Sequence[float], count: int) -> bool:
    first, rest = tau(sum(rows[:count])), tau(sum(rows[count:]))
    return all(first <= deadline for deadline in deadlines[:count]) and all(first + rest <= deadline for deadline in deadlines[count:])


@given(ITEMS)
def test_all_run_when_all_are_in_time(items: list[tuple[int, float]]) -> None:
    rows = [size for size, _ in items]
    assert fit(rows, [tau(sum(rows))] * len(rows), 0.0, TAU, backlog=True) == (list(range(len(rows))), [])


def test_a_batch_shrinks_for_its_most_urgent_item_unless_more_is_waiting() -> None:
    deadlines = [0.0045, 1.0, 1.0, 1.0]
    assert fit([1] * 4, deadlines, 0.0, TAU, backlog=False) == ([0, 1], [])
    assert fit([1] * 4, deadlines, 0.0, TAU, backlog=True) == ([1, 2, 3], [0])


@given(st.integers(0, 300), st.integers(1, 8), st.lists(st.floats(0, 0.1), min_size=1, max_size=4), st.integers(1, 64))
def test_more_ahead_never_ends_earlier(ahead: int, rows: int, free: list[float], max_batch: int) -> None:
    ends = [finish_s(0.0, count, rows, free, TAU, max_batch) for count in (ahead, ahead + 1, ahead + max_batch)]
    assert ends == sorted(ends)
    assert ends[0] >= min(free) + tau(1)


@given(
    ahead=st.integers(0, 60),
    free=st.lists(st.floats(-1.0, 20.0), min_size=1, max_size=4),
    max_batch=st.integers(1, 8),
    demand_per_s=st.sampled_from([0.0, 1.0, 50.0, math.inf]),
)
def test_an_item_is_never_done_later_than_the_quick_look_says(ahead: int, free: list[float], max_batch: int, demand_per_s: float) -> None:
    by_s = done_by_s(0.0, ahead, free, tau(max_batch), max_batch)
    assert finish_s(0.0, ahead, 1, free, TAU, max_batch, demand_per_s) <= by_s + 1e-9


def test_the_end_is_predicted_in_closed_form() -> None:
    assert finish_s(5.0, 0, 3, [0.0], TAU, 8) == 5.0 + tau(3)
    assert finish_s(5.0, 0, 1, [5.5], TAU, 8) == 5.5 + tau(8)
    assert finish_s(5.0, 17, 1, [5.5], TAU, 8) == pytest.approx(5.5 + 3 * tau(8))
    assert finish_s(5.0, 17, 1, [5.5, 5.1], TAU, 8) == pytest.approx(5.1 + 3 * tau(8))


def test_an_item_that_waits_is_joined_by_what_is_asked_for_meanwhile() -> None:
    assert finish_s(5.0, 1, 1, [5.5], TAU, 8, 2.0) == 5.5 + tau(3)
    assert finish_s(5.0, 1, 1, [5.5], TAU, 8, 100.0) == 5.5 + tau(8)
    assert finish_s(5.0, 9, 1, [5.5], TAU, 8, 0.1) == pytest.approx(5.5 + tau(8) + tau(3))
    assert finish_s(5.0, 1, 1, [5.0], TAU, 8, 2.0) == 5.0 + tau(2)


def test_the_batch_that_a_latency_allows() -> None:
    assert batch_within(TAU, 64, math.inf) == 64
    assert batch_within(TAU, 64, 2 * tau(30)) == 30
    assert batch_within(TAU, 64, 0.001) == 1


@given(st.floats(1e-3, 0.1), st.floats(1.0, 1e5), st.integers(1, 4))
def test_batches_are_larger_only_where_more_is_asked_for_than_can_be_answered(
    latency_s: float, demand_per_s: float, instances: int
) -> None:
    calm, asked = batch_within(TAU, 64, latency_s), batch_within(TAU, 64, latency_s, demand_per_s=demand_per_s, instances=instances)
    assert asked >= calm
    if asked > calm:
        assert demand_per_s > instances * asked / tau(asked)
        assert instances * asked / demand_per_s + tau(asked) <= 0.85 * latency_s
    assert capacity_per_s(TAU, 64, 2) == pytest.approx(2 * 64 / tau(64))


def test_only_equal_keys_share_a_batch() -> None:
    assert alike(["a", "b", "a", "c", "a"]) == [0, 2, 4]


def test_levels_step_up_at_once_and_back_after_a_calm() -> None:
    capacities = [100.0, 200.0, 400.0]
    assert level(0, 90, 0.0, capacities, 0.0) == 0
    assert level(0, 96, 0.0, capacities, 0.0) == 1
    assert level(0, 10, 0.02, capacities, 0.0) == 1
    assert level(2, 1000, 0.5, capacities, 0.0) == 2
    assert level(1, 80, 0.0, capacities, 4.9) == 1
    assert level(1, 60, 0.0, capacities, 5.0) == 0
    assert calm(1, 69, capacities)
    assert not calm(1, 71, capacities)
    assert not calm(0, 0, capacities)


@given(st.dictionaries(st.integers(1, 64), st.floats(1e-5, 1.0), min_size=1, max_size=7), st.integers(1, 64))
def test_a_pace_never_falls_and_meets_what_was_measured_first(measured: dict[int, float], max_batch: int) -> None:
    pace = Pace(measured, max_batch)
    assert len(pace.tau_s) == max_batch + 1
    assert all(a <= b for a, b in zip(pace.tau_s, pace.tau_s[1:], strict=False))
    first = min(measured)
    if first <= max_batch:
        assert pace.tau_s[first] == measured[first]


def test_a_pace_follows_what_it_sees() -> None:
    pace = Pace({1: 0.001, 64: 0.064}, 64)
    for _ in range(200):
        pace.observe(32, 0.064)
    assert pace.tau_s[32] == pytest.approx(0.064, rel=0.05)
    assert pace.tau_s[1] == pytest.approx(0.002, rel=0.05)


def test_a_stall_moves_a_pace_little() -> None:
    pace = Pace({1: 0.001, 8: 0.008}, 8)
    pace.observe(8, 10.0)
    assert pace.tau_s[8] < 0.008 * 1.5


def test_the_first_measurement_of_a_pace() -> None:
    asked: list[int] = []
    found = measure_pace(asked.append, 12)
    assert list(found) == [1, 2, 4, 8, 12]
    assert set(asked) == set(found)
    assert list(measure_pace(lambda rows: time.sleep(0.01), 64, budget_s=0.0)) == [1]


class Gate:
    """Runs batches one at a time, each only when let through."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.late: list[str] = []
        self.entered = threading.Semaphore(0)
        self.through = threading.Semaphore(0)

    def run(self, instance: int, items: Sequence[str]) -> Sequence[str]:
        self.entered.release()
        assert self.through.acquire(timeout=10)
        return items

    def done(self, items: Sequence[str], results: Sequence[str] | BaseException, times: BatchTimes) -> None:
        self.batches.append(list(items))

    def refused(self, items: Sequence[str]) -> None:
        self.late += items


def gated(gate: Gate, clock: list[float], **options: float) -> Batcher[str, str]:
    batcher: Batcher[str, str] = Batcher(
        gate.run, gate.done, late=gate.refused, instances=1, queue_limit=100, clock=lambda: clock[0], pace=Pace({1: 0.01, 100: 1.0}, 100),
        **({"max_batch": 3} | options),
    )  # type: ignore[arg-type]  # fmt: skip
    batcher.submit("first")
    assert gate.entered.acquire(timeout=10)
    return batcher


def ended(batcher: Batcher[str, str], gate: Gate) -> list[list[str]]:
    for _ in range(20):
        gate.through.release()
    batcher.close()
    return gate.batches[1:]


def test_priority_then_deadline_then_arrival_decide() -> None:
    gate, clock = Gate(), [0.0]
    batcher = gated(gate, clock)
    batcher.submit("b", deadline_s=9.0, priority=2)
    batcher.submit("a", deadline_s=8.0, priority=2)
    batcher.submit("none", priority=2)
    batcher.submit("urgent", deadline_s=20.0, priority=1)
    batcher.submit("none too", priority=2)
    assert ended(batcher, gate) == [["urgent", "none", "none too"], ["a", "b"]]


def test_what_cannot_be_done_in_time_is_refused_at_once_and_changes_nothing() -> None:
    gate, clock = Gate(), [0.0]
    batcher = gated(gate, clock)
    with pytest.raises(Late):
        batcher.submit("late", deadline_s=0.02)
    for name in "abc":
        batcher.submit(name, deadline_s=0.05)
    with pytest.raises(Late):
        batcher.submit("d", deadline_s=0.05)
    assert ended(batcher, gate) == [["a", "b", "c"]]
    assert gate.late == []


def test_each_thread_begins_once() -> None:
    begun: list[str] = []
    done = threading.Semaphore(0)
    batcher: Batcher[str, str] = Batcher(
        lambda instance, items: items, lambda *told: done.release(), instances=3, max_batch=1, queue_limit=9,
        begin=lambda: begun.append(threading.current_thread().name),
    )  # fmt: skip
    for item in "abc":
        batcher.submit(item)
        assert done.acquire(timeout=10)
    batcher.close()
    assert sorted(begun) == ["instance-0", "instance-1", "instance-2"]


def test_what_has_become_late_is_refused_and_not_run() -> None:
    gate, clock = Gate(), [0.0]
    batcher = gated(gate, clock)
    batcher.submit("in time", deadline_s=1.0)
    batcher.submit("doomed", deadline_s=0.05)
    clock[0] = 0.1
    assert ended(batcher, gate) == [["in time"]]
    assert gate.late == ["doomed"]


def test_kinds_run_apart_and_none_starves() -> None:
    gate, clock = Gate(), [0.0]
    batcher = gated(gate, clock, max_batch=8)
    for name in ("a1", "b1", "a2", "c1", "b2", "a3"):
        batcher.submit(name, key=name[0])
    assert ended(batcher, gate) == [["a1", "a2", "a3"], ["b1", "b2"], ["c1"]]


def test_the_bound_keeps_batches_small() -> None:
    gate, clock = Gate(), [0.0]
    batcher = gated(gate, clock, max_batch=100, latency_s=0.0801)
    for number in range(8):
        batcher.submit(str(number))
    assert [len(batch) for batch in ended(batcher, gate)] == [4, 4]


@given(st.integers(1, 64), st.integers(1, 4), st.floats(0.1, 3.0))
def test_it_is_overload_when_more_is_asked_for_than_full_batches_answer(batch: int, instances: int, share: float) -> None:
    full_per_s = instances * batch / tau(batch)
    assert overloaded(TAU, batch, share * full_per_s, instances) == (share > 1.0) or share == pytest.approx(1.0)


def test_time_is_kept_free_only_under_overload() -> None:
    """Lateness has been learned; an item that would just be in time is refused while too much is asked for, and taken once it is not."""
    clock = [0.0]
    begin, gate = threading.Event(), threading.Event()

    def run(_: int, items: Sequence[str]) -> Sequence[str]:
        begin.set()
        assert gate.wait(10)
        return items

    batcher: Batcher[str, str] = Batcher(
        run, lambda *_: None, instances=1, max_batch=1, queue_limit=10_000, clock=lambda: clock[0], pace=Pace({1: 0.003}, 1), latency_s=0.1
    )
    batcher._spare.seconds = 0.015
    batcher.submit("running", deadline_s=math.inf)
    assert begin.wait(10)

    def asked(per_s: int) -> None:
        """So much for two windows, all of it hopeless."""
        for number in range(int(0.3 * per_s)):
            clock[0] = asked.since_s + number / per_s  # type: ignore[attr-defined]
            with suppress(Late):
                batcher.submit("late", deadline_s=clock[0] - 1.0)
        asked.since_s = clock[0]  # type: ignore[attr-defined]

    asked.since_s = 0.0  # type: ignore[attr-defined]
    asked(2000)
    assert batcher.overloaded
    assert batcher.late(clock[0] + 0.010)
    asked(100)
    assert not batcher.overloaded
    assert not batcher.late(clock[0] + 0.010)
    gate.set()
    batcher.close()


def test_server_in_process_load_and_simulator_run_the_same_policy() -> None:
    batcher = sys.modules["headway.batching.batcher"]
    for name in ("take", "fit", "finish_s", "batch_within"):
        assert getattr(batcher, name) is getattr(policy, name)
        assert getattr(policy, name) in kernel.POLICY
        assert getattr(kernel, name) is getattr(policy, name)
    for name in ("window_over", "spare_after"):
        assert getattr(overload, name) in kernel.POLICY
    for name in ("pace_after", "pace_moved"):
        assert getattr(pace, name) in kernel.POLICY
    for name in ("Demand", "Spare"):
        assert getattr(batcher, name) is getattr(overload, name)
    for user in ("headway.serve.served", "headway.measure.in_process"):
        assert importlib.import_module(user).Batcher is Batcher


CURVE = ServiceCurve(
    variant="v", runtime="null", device="cpu", instances=1, threads=1, tau0_s=0.0, alpha_s=0.0, peak_bytes=0,
    timings=tuple(BatchTiming(batch=size, service_s=(0.001 + 0.0003 * size,)) for size in range(1, 65)),
)  # fmt: skip


@pytest.mark.parametrize(("rate_per_s", "goodput_per_s"), [(1000, 1000), (2500, 2490), (5000, 2900), (15000, 2900)])
def test_goodput_holds_under_overload(rate_per_s: float, goodput_per_s: float) -> None:
    plan = Plan(runtime="null", max_batch=64)
    due_s = arrival_times("poisson", rate_per_s, 5.0, 3)
    latency_s = simulate(CURVE, plan, due_s, deadline_s=0.02)
    answered = np.isfinite(latency_s)
    assert (latency_s[answered] <= 0.02 + 1e-9).all()
    assert answered.sum() / 5.0 >= 0.97 * goodput_per_s
    if rate_per_s > 3000:
        assert (simulate(CURVE, plan, due_s) <= 0.02).mean() < 0.05


def test_far_from_overload_deadlines_change_nothing() -> None:
    plan = Plan(runtime="null", max_batch=64, instances=2)
    due_s = arrival_times("poisson", 300.0, 5.0, 3)
    np.testing.assert_allclose(simulate(CURVE, plan, due_s, deadline_s=10.0), simulate(CURVE, plan, due_s), atol=1e-12)

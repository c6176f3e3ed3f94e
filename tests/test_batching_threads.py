"""The batcher under real threads and drawn workloads: nothing lost, nothing twice, nothing too large, nothing out of order."""

from __future__ import annotations

import gc
import itertools
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.batching import Batcher, BatchTimes, Pace, QueueFull


@dataclass(frozen=True)
class Item:
    number: int
    rows: int
    fails: bool


class Witness:
    """A run and a done that remember everything they saw."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.batches: list[list[Item]] = []
        self.answers: dict[int, list[object]] = {}
        self.busy: set[int] = set()
        self.faults: list[str] = []

    def run(self, instance: int, items: Sequence[Item]) -> list[int]:
        with self.lock:
            if instance in self.busy:
                self.faults.append(f"instance {instance} ran two batches at once")
            self.busy.add(instance)
            self.batches.append(list(items))
        try:
            if any(item.fails for item in items):
                raise ZeroDivisionError(str(items[0].number))
            return [item.number * 7 for item in items]
        finally:
            with self.lock:
                self.busy.discard(instance)

    def done(self, items: Sequence[Item], results: Sequence[int] | BaseException, times: BatchTimes) -> None:
        with self.lock:
            if not max(times.arrived_s) <= times.started_s <= times.finished_s or list(times.arrived_s) != sorted(times.arrived_s):
                self.faults.append(f"times out of order: {times}")
            for place, item in enumerate(items):
                self.answers.setdefault(item.number, []).append(results if isinstance(results, BaseException) else results[place])


WORK = st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(
    work=WORK,
    instances=st.integers(1, 4),
    max_batch=st.integers(4, 9),
    wait_s=st.sampled_from([0.0, 0.0005]),
    senders=st.integers(1, 3),
    pause=st.booleans(),
)
def test_every_item_is_answered_once_with_its_own_outcome(
    *, work: list[tuple[int, bool]], instances: int, max_batch: int, wait_s: float, senders: int, pause: bool
) -> None:
    items = [Item(number, size, fails and number % 3 == 0) for number, (size, fails) in enumerate(work)]
    witness = Witness()
    batcher: Batcher[Item, int] = Batcher(
        witness.run,
        witness.done,
        instances=instances,
        max_batch=max_batch,
        max_wait_s=wait_s,
        queue_limit=1000,
    )

    def send(part: list[Item]) -> None:
        for item in part:
            batcher.submit(item, rows=item.rows)
            if pause:
                time.sleep(0)

    threads = [threading.Thread(target=send, args=(items[start::senders],)) for start in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert batcher.drain(30)
    assert batcher.in_flight == 0
    batcher.close()

    assert witness.faults == []
    assert sorted(witness.answers) == list(range(len(items)))
    assert all(len(outcomes) == 1 for outcomes in witness.answers.values())
    assert all(sum(item.rows for item in batch) <= max_batch for batch in witness.batches)
    for batch in witness.batches:
        broken = any(item.fails for item in batch)
        for item in batch:
            (outcome,) = witness.answers[item.number]
            assert isinstance(outcome, ZeroDivisionError) if broken else outcome == item.number * 7


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=80), instances=st.integers(1, 3), max_batch=st.integers(5, 8))
def test_batches_start_in_the_order_of_arrival(sizes: list[int], instances: int, max_batch: int) -> None:
    popped: list[list[Item]] = []
    gate = threading.Event()

    def run(_: int, items: Sequence[Item]) -> Sequence[Item]:
        gate.wait(10)
        return items

    def done(items: Sequence[Item], results: Sequence[Item] | BaseException, times: BatchTimes) -> None:
        popped.append(list(items))

    batcher: Batcher[Item, Item] = Batcher(run, done, instances=instances, max_batch=max_batch, queue_limit=1000)
    for number, size in enumerate(sizes):
        batcher.submit(Item(number, size, False), rows=size)
    gate.set()
    batcher.close()
    batches = sorted(popped, key=lambda batch: batch[0].number)
    assert [item.number for item in itertools.chain.from_iterable(batches)] == list(range(len(sizes))), (
        "batches are runs of neighbours, oldest first"
    )


def test_a_drain_under_fire_answers_exactly_what_was_accepted() -> None:
    for trial in range(10):
        witness = Witness()
        batcher: Batcher[Item, int] = Batcher(witness.run, witness.done, instances=2, max_batch=8, max_wait_s=0.001, queue_limit=10**6)
        accepted: list[int] = []
        stopped = threading.Event()

        def fire(start: int, into: Batcher[Item, int] = batcher, taken: list[int] = accepted, end: threading.Event = stopped) -> None:
            for number in itertools.count(start, 3):
                try:
                    into.submit(Item(number, 1, False))
                except QueueFull:
                    end.set()
                    return
                taken.append(number)

        threads = [threading.Thread(target=fire, args=(start,)) for start in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.001 * (trial % 3))
        assert batcher.drain(30)
        for thread in threads:
            thread.join()
        batcher.close()
        assert stopped.is_set()
        assert sorted(witness.answers) == sorted(accepted)
        assert all(len(outcomes) == 1 for outcomes in witness.answers.values())


def test_an_idle_batcher_does_nothing_at_all() -> None:
    looks = itertools.count()
    batcher: Batcher[int, int] = Batcher(
        lambda _, items: list(items),
        lambda *_: None,
        instances=3,
        max_batch=4,
        max_wait_s=0.001,
        queue_limit=8,
        clock=lambda: float(next(looks)),
    )
    batcher.submit(1)
    while batcher.in_flight:
        time.sleep(0.001)
    time.sleep(0.01)
    before = next(looks)
    time.sleep(0.1)
    assert next(looks) == before + 1, "an idle instance looked at the clock: it polls"
    batcher.close()


def test_an_idle_batcher_keeps_no_batch_alive() -> None:
    class Payload:
        pass

    answered = threading.Event()
    batcher: Batcher[Payload, Payload] = Batcher(
        lambda _, items: list(items), lambda *_: answered.set(), instances=1, max_batch=1, queue_limit=2
    )
    payload = Payload()
    watched = weakref.ref(payload)
    batcher.submit(payload)
    del payload
    assert answered.wait(10)
    for _ in range(1000):
        if gc.collect() >= 0 and watched() is None:
            break
        time.sleep(0.005)
    assert watched() is None
    batcher.close()


@pytest.mark.parametrize("error", [ValueError("done"), SystemExit(3)])
def test_a_done_that_raises_ends_no_instance(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []

    def done(items: Sequence[int], results: Sequence[int] | BaseException, times: BatchTimes) -> None:
        seen.extend(items)
        if items[0] == 0:
            raise error

    batcher: Batcher[int, int] = Batcher(lambda _, items: list(items), done, instances=1, max_batch=1, queue_limit=9)
    for item in range(4):
        batcher.submit(item)
    assert batcher.drain(10)
    batcher.close()
    assert seen == [0, 1, 2, 3]
    assert "must not raise" in caplog.text


def test_it_can_be_closed_from_done_and_twice() -> None:
    closed = threading.Event()

    def done(items: Sequence[int], results: Sequence[int] | BaseException, times: BatchTimes) -> None:
        batcher.close()
        closed.set()

    batcher: Batcher[int, int] = Batcher(lambda _, items: list(items), done, instances=1, max_batch=1, queue_limit=2)
    batcher.submit(1)
    assert closed.wait(10)
    batcher.close()


@pytest.mark.parametrize(
    "wrong", [{"instances": 0}, {"max_batch": 0}, {"queue_limit": 0}, {"max_wait_s": -1.0}, {"max_wait_s": float("nan")}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    good: dict[str, float] = {"instances": 1, "max_batch": 1, "queue_limit": 1}
    with pytest.raises(ValueError, match="at least"):
        Batcher(lambda _, items: list(items), lambda *_: None, **{**good, **wrong})  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(work=WORK, instances=st.integers(1, 3), senders=st.integers(1, 2), most_s=st.sampled_from([0.0, 0.005, 1.0]))
def test_started_here_or_there_every_item_is_answered_once(
    *, work: list[tuple[int, bool]], instances: int, senders: int, most_s: float
) -> None:
    items = [Item(number, size, fails and number % 3 == 0) for number, (size, fails) in enumerate(work)]
    witness = Witness()
    batcher: Batcher[Item, int] = Batcher(
        witness.run, witness.done, instances=instances, max_batch=4, queue_limit=1000, pace=Pace({1: 0.001, 4: 0.01}, 4)
    )

    def send(first: int) -> None:
        for item in items[first::senders]:
            batcher.submit(item, rows=item.rows, wake=first == 1)
            if first == 0 and item.number % 2 == 0:
                while batcher.start(most_s):
                    pass

    threads = [threading.Thread(target=send, args=(first,)) for first in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while batcher.start(most_s):
        pass
    assert batcher.drain(10.0)
    batcher.close()
    assert not witness.faults
    assert sorted(witness.answers) == [item.number for item in items]
    assert all(len(answers) == 1 for answers in witness.answers.values())


@pytest.mark.parametrize(("most_s", "here"), [(0.01, True), (0.001, False)])
def test_a_short_batch_runs_on_the_calling_thread(*, most_s: float, here: bool) -> None:
    ran: list[int] = []

    def run(_: int, items: Sequence[int]) -> Sequence[int]:
        ran.append(threading.get_ident())
        return items

    batcher: Batcher[int, int] = Batcher(run, lambda *_: None, instances=1, max_batch=1, queue_limit=9, pace=Pace({1: 0.005}, 1))
    batcher.submit(1, wake=False)
    batcher.submit(2, wake=False)
    assert not ran
    assert batcher.start(most_s) == here
    if here:
        assert not batcher.start(most_s)
    batcher.close()
    assert len(ran) == 2
    assert (set(ran) == {threading.get_ident()}) == here

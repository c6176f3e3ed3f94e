"""The batcher: every item answered once with its own result, in order, within the limits, and nothing lost on the way out."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.batching import Batcher, BatchTimes, QueueFull, take

ROWS = st.lists(st.integers(1, 8), min_size=1, max_size=30)


@given(ROWS, st.integers(1, 8))
def test_greedy_takes_the_longest_prefix_that_fits(rows: list[int], max_batch: int) -> None:
    count, wake = take(rows, [0.0] * len(rows), 1.0, max_batch=max_batch, max_wait_s=0.0)
    assert math.isinf(wake)
    assert count >= 1
    assert count == 1 or sum(rows[:count]) <= max_batch
    assert count == len(rows) or sum(rows[: count + 1]) > max_batch or sum(rows[:count]) >= max_batch


@given(ROWS, st.integers(1, 64), st.floats(0.001, 1.0))
def test_a_wait_counts_from_the_oldest_arrival(rows: list[int], max_batch: int, wait: float) -> None:
    early = take(rows, [10.0] * len(rows), 10.0, max_batch=max_batch, max_wait_s=wait)
    late = take(rows, [10.0] * len(rows), 10.0 + wait, max_batch=max_batch, max_wait_s=wait)
    assert late.items >= 1
    assert early.items in (0, late.items)
    if early.items == 0:
        assert early.wake_at_s == 10.0 + wait
        assert sum(rows) < max_batch


def test_nothing_waiting_means_nothing_to_do() -> None:
    assert take([], [], 0.0, max_batch=4, max_wait_s=0.1) == (0, math.inf)


class Answers:
    """Collects what ``done`` is told."""

    def __init__(self) -> None:
        self.results: dict[int, object] = {}
        self.sizes: list[int] = []
        self.twice = 0
        self.lock = threading.Lock()

    def done(self, items: Sequence[int], results: Sequence[int] | BaseException, times: BatchTimes) -> None:
        assert len(times.arrived_s) == len(items)
        assert max(times.arrived_s) <= times.started_s <= times.finished_s
        with self.lock:
            self.sizes.append(len(items))
            for index, item in enumerate(items):
                self.twice += item in self.results
                self.results[item] = results if isinstance(results, BaseException) else results[index]


@pytest.mark.parametrize(("instances", "max_batch"), [(1, 1), (1, 8), (3, 4), (4, 64)])
def test_every_item_is_answered_once_with_its_own_result(instances: int, max_batch: int) -> None:
    answers = Answers()
    batcher: Batcher[int, int] = Batcher(
        lambda _, items: [item * 7 for item in items], answers.done, instances=instances, max_batch=max_batch, queue_limit=10**6
    )
    senders = [threading.Thread(target=lambda start=start: [batcher.submit(item) for item in range(start, 2000, 4)]) for start in range(4)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    batcher.close()
    assert answers.results == {item: item * 7 for item in range(2000)}
    assert answers.twice == 0
    assert max(answers.sizes) <= max_batch


def test_items_start_in_the_order_of_arrival() -> None:
    started: list[int] = []
    batcher: Batcher[int, None] = Batcher(
        lambda _, items: [started.append(item) for item in items], lambda *_: None, instances=1, max_batch=3, queue_limit=1000
    )
    for item in range(500):
        batcher.submit(item)
    batcher.close()
    assert started == list(range(500))


def test_a_failing_batch_fails_alone() -> None:
    answers = Answers()

    def run(_: int, items: Sequence[int]) -> list[int]:
        if 5 in items:
            raise ValueError("five")
        return list(items)

    batcher: Batcher[int, int] = Batcher(run, answers.done, instances=2, max_batch=1, queue_limit=100)
    for item in range(10):
        batcher.submit(item)
    batcher.close()
    assert isinstance(answers.results.pop(5), ValueError)
    assert answers.results == {item: item for item in range(10) if item != 5}


def test_a_wrong_number_of_results_is_an_error_of_that_batch() -> None:
    answers = Answers()
    batcher: Batcher[int, int] = Batcher(lambda _, items: [], answers.done, instances=1, max_batch=1, queue_limit=10)
    batcher.submit(1)
    batcher.close()
    assert "one result for each item" in str(answers.results[1])


def test_a_full_queue_refuses_at_once_and_a_drained_one_takes_no_more() -> None:
    gate = threading.Event()
    answers = Answers()

    def run(_: int, items: Sequence[int]) -> list[int]:
        gate.wait(10)
        return list(items)

    batcher: Batcher[int, int] = Batcher(run, answers.done, instances=1, max_batch=1, queue_limit=3)
    batcher.submit(0)
    while batcher.waiting:
        time.sleep(0.001)
    for item in (1, 2, 3):
        batcher.submit(item)
    with pytest.raises(QueueFull, match="at most 3"):
        batcher.submit(4)
    assert batcher.in_flight == 4
    assert batcher.drain(0.01) is False
    with pytest.raises(QueueFull, match="shutting down"):
        batcher.submit(5)
    gate.set()
    assert batcher.drain(10) is True
    batcher.close()
    assert sorted(answers.results) == [0, 1, 2, 3]


def test_an_item_larger_than_the_batch_runs_alone() -> None:
    answers = Answers()
    batcher: Batcher[int, int] = Batcher(lambda _, items: list(items), answers.done, instances=1, max_batch=4, queue_limit=10)
    for item in (9, 1, 2):
        batcher.submit(item, rows=item)
    batcher.close()
    assert set(answers.results) == {9, 1, 2}


def test_a_wait_fills_the_batch() -> None:
    answers = Answers()
    batcher: Batcher[int, int] = Batcher(
        lambda _, items: list(items), answers.done, instances=1, max_batch=4, max_wait_s=30.0, queue_limit=10
    )
    for item in range(4):
        batcher.submit(item)
    while len(answers.results) < 4:
        time.sleep(0.001)
    assert answers.sizes == [4]
    batcher.submit(9)
    batcher.close()
    assert answers.results[9] == 9

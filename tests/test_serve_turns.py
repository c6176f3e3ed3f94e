"""The event loop's turns: what starts, when it rests, what wakes it."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable

import pytest

from headway.serve import turns as turns_module
from headway.serve.turns import BRIEF_S, BUSY_PER_S, LONGEST_PAUSE_S, PAUSE_S, SHORT_S, WINDOW_S, Pressure, Turns

SOON_S = 5.0


class Batches:
    """A batcher that remembers when it was asked to start, and calls ``ran`` each time."""

    def __init__(self, ran: Callable[[], bool] = lambda: False) -> None:
        self.asked_s: list[float] = []
        self._ran = ran

    def start(self, most_s: float) -> bool:
        self.asked_s.append(most_s)
        return self._ran()


class Models:
    """What the turns are told of the models."""

    def __init__(self) -> None:
        self.busy_until_s, self.missed, self.deadline_s, self.instances, self.share = 0.0, 0, math.inf, 1, True

    def pressure(self) -> Pressure:
        return Pressure(lambda: self.busy_until_s, lambda: self.missed, lambda: self.deadline_s, lambda: self.instances, lambda: self.share)


def run(play: Callable[[Turns, Models], Awaitable[None]]) -> None:
    async def main() -> None:
        models = Models()
        await asyncio.wait_for(play(Turns(asyncio.get_running_loop(), models.pressure()), models), 2 * SOON_S)

    asyncio.run(main())


@pytest.fixture
def long_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rest that nothing ends is noticed."""
    monkeypatch.setattr(turns_module, "LONGEST_PAUSE_S", 60.0)


def test_all_that_has_come_is_started_at_once() -> None:
    async def play(turns: Turns, models: Models) -> None:
        batches = Batches()
        for _ in range(5):
            turns.handled(batches)
        assert not batches.asked_s
        await asyncio.sleep(0.01)
        assert batches.asked_s == [SHORT_S]
        turns.handled()
        await asyncio.sleep(0.01)
        assert len(batches.asked_s) == 1

    run(play)


def test_while_more_is_waiting_the_loop_looks_between_batches() -> None:
    async def play(turns: Turns, models: Models) -> None:
        left, order = [3], []

        def ran() -> bool:
            left[0] -= 1
            order.append("batch")
            asyncio.get_running_loop().call_soon(order.append, "look")
            return left[0] > 0

        turns.handled(Batches(ran))
        await asyncio.sleep(0.05)
        assert order == ["batch", "look"] * 3

    run(play)


@pytest.mark.parametrize(
    ("instances", "share", "thick", "short_s"),
    [(1, True, False, SHORT_S), (1, True, True, SHORT_S), (2, True, False, BRIEF_S), (1, False, False, BRIEF_S), (1, False, True, 0.0)],
)
def test_what_is_short_depends_on_cores_and_crowd(*, instances: int, share: bool, thick: bool, short_s: float) -> None:
    async def play(turns: Turns, models: Models) -> None:
        models.instances, models.share = instances, share
        batches = Batches()
        turns.handled(batches)
        await asyncio.sleep(1.5 * WINDOW_S)
        for _ in range(20 * BUSY_PER_S if thick else 1):
            turns.handled(batches)
        await asyncio.sleep(0.01)
        assert batches.asked_s[1] == short_s

    run(play)


@pytest.mark.usefixtures("long_rests")
def test_the_end_of_a_batch_ends_the_rest_and_the_instance_waits_for_the_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "WAIT_S", 60.0)

    async def play(turns: Turns, models: Models) -> None:
        here, told = threading.get_ident(), []
        models.busy_until_s = time.perf_counter() + 60.0

        def instance() -> None:
            while not turns._resting:
                time.sleep(0.001)
            turns.call(lambda: told.append(threading.get_ident()))
            told.append(0)

        thread = threading.Thread(target=instance)
        begun_s = time.perf_counter()
        thread.start()
        turns.handled()
        while len(told) < 2:
            await asyncio.sleep(0)
        assert time.perf_counter() - begun_s < SOON_S
        thread.join()
        assert told == [here, 0]

    run(play)


@pytest.mark.usefixtures("long_rests")
def test_what_is_brought_just_before_a_rest_is_not_left_until_its_end() -> None:
    async def play(turns: Turns, models: Models) -> None:
        begun_s, told = time.perf_counter(), []
        models.busy_until_s = begun_s + 60.0

        def hear() -> None:
            told.append(time.perf_counter())
            models.busy_until_s = 0.0

        turns.handled()
        thread = threading.Thread(target=turns.call, args=(hear,))
        thread.start()
        thread.join()
        while not told:
            await asyncio.sleep(0)
        assert told[0] - begun_s < SOON_S

    run(play)


@pytest.mark.usefixtures("long_rests")
def test_many_instances_end_at_once_and_nothing_is_lost() -> None:
    async def play(turns: Turns, models: Models) -> None:
        told: list[int] = []
        begun_s = time.perf_counter()
        models.busy_until_s = begun_s + 60.0

        def hear(number: int) -> None:
            told.append(number)
            if len(told) == 200:
                models.busy_until_s = 0.0  # nobody is left who could end a rest

        threads = [
            threading.Thread(target=lambda first=first: [turns.call(hear, first + k) for k in range(50)]) for first in range(0, 200, 50)
        ]
        for thread in threads:
            thread.start()
        while len(told) < 200:
            turns.handled()
            await asyncio.sleep(0)
        for thread in threads:
            thread.join()
        assert time.perf_counter() - begun_s < SOON_S
        assert sorted(told) == list(range(200))
        for first in range(0, 200, 50):
            assert [number for number in told if first <= number < first + 50] == list(range(first, first + 50))

    run(play)


@pytest.mark.usefixtures("long_rests")
@pytest.mark.parametrize(("busy", "share"), [(False, True), (True, False)])
def test_it_does_not_rest_when_an_instance_or_a_core_is_free(*, busy: bool, share: bool) -> None:
    async def play(turns: Turns, models: Models) -> None:
        models.busy_until_s, models.share = time.perf_counter() + 60.0 if busy else 0.0, share
        turns.handled()
        await asyncio.sleep(0.05)
        assert turns.unseen_s == 0.0

    run(play)


def test_a_rest_is_short_and_its_middle_is_when_requests_came() -> None:
    async def play(turns: Turns, models: Models) -> None:
        unseen: list[float] = []
        models.busy_until_s = time.perf_counter() + 60.0
        turns.handled()
        asyncio.get_running_loop().call_soon(lambda: unseen.append(turns.unseen_s))
        await asyncio.sleep(0.05)
        assert unseen[0] >= 0.9 * LONGEST_PAUSE_S / 2
        assert turns.unseen_s == 0.0

    run(play)


@pytest.mark.parametrize(("missed", "pause_s"), [(0, PAUSE_S), (100_000, LONGEST_PAUSE_S)])
def test_when_requests_come_thick_it_pauses_longer_while_some_are_refused(
    monkeypatch: pytest.MonkeyPatch, missed: int, pause_s: float
) -> None:
    paused: list[float] = []

    async def play(turns: Turns, models: Models) -> None:
        turns.handled()
        await asyncio.sleep(0)
        for _ in range(20 * BUSY_PER_S):
            turns.handled()
        models.missed = missed
        await asyncio.sleep(1.5 * WINDOW_S)
        turns.handled()
        await asyncio.sleep(0)
        monkeypatch.setattr(turns_module, "WINDOW_S", 60.0)
        monkeypatch.setattr(turns_module.time, "sleep", paused.append)
        turns.handled()
        await asyncio.sleep(0.01)

    run(play)
    assert paused == [pause_s]


def test_on_the_loop_it_is_called_at_once() -> None:
    async def play(turns: Turns, models: Models) -> None:
        told: list[int] = []
        turns.call(told.append, 1)
        assert told == [1]

    run(play)

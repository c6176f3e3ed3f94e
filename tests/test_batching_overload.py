"""What is asked for, and what is kept free of deadlines: nothing while all is well, and as much as keeps one batch in a hundred late."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.batching.overload import LATE_SHARE, MOST_SHARE, WINDOW_S, Demand, Spare


def test_demand_is_the_rate_of_the_last_whole_window() -> None:
    demand = Demand()
    moved = [demand.add(2, place * WINDOW_S / 10) for place in range(11)]
    assert moved == [False] * 10 + [True]
    assert demand.per_s == pytest.approx(22 / WINDOW_S)
    assert not demand.add(1, 2 * WINDOW_S)
    assert demand.add(1, 100.0)
    assert demand.per_s == pytest.approx(2 / (100 - WINDOW_S))


def test_nothing_is_kept_while_nothing_is_late() -> None:
    spare = Spare(0.02)
    for _ in range(100):
        spare.learn(False)
    assert spare.seconds == 0.0


@given(st.lists(st.booleans(), max_size=200))
def test_it_stays_within_its_share(seen: list[bool]) -> None:
    spare = Spare(0.1)
    for late in seen:
        spare.learn(late)
        assert 0 <= spare.seconds <= MOST_SHARE * 0.1


def test_it_settles_where_one_batch_in_a_hundred_is_late() -> None:
    rng = np.random.default_rng(0)
    spare, late, batches = Spare(1.0), 0, 20_000
    for error_s in rng.exponential(0.02, batches):
        too_late = error_s > spare.seconds
        spare.learn(too_late)
        late += too_late
    assert late / batches == pytest.approx(LATE_SHARE, rel=0.15)


def test_without_a_deadline_there_is_nothing_to_keep() -> None:
    spare = Spare(math.inf)
    spare.learn(True)
    assert spare.seconds == 0.0

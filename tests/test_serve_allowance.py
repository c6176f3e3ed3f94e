"""What is kept free of deadlines: nothing while all is well, and as much as keeps one batch in a hundred late."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.serve.allowance import ERROR_SHARE, LAG_SHARE, LATE_SHARE, Allowance


def test_nothing_is_kept_while_nothing_is_late() -> None:
    allowance = Allowance(0.02)
    for _ in range(100):
        allowance.observe(0.0, 0.005)
    assert (allowance.lag_s, allowance.error_s) == (0.0, 0.0)


def test_a_steady_lag_is_allowed_for_twice() -> None:
    allowance = Allowance(1.0)
    for _ in range(500):
        allowance.observe(0.003, 0.5)
    assert allowance.lag_s == pytest.approx(0.006, rel=0.01)
    assert allowance.error_s == 0.0


@given(st.lists(st.one_of(st.none(), st.tuples(st.floats(0, 1), st.floats(-1, 1))), max_size=200))
def test_it_stays_within_its_shares(seen: list[tuple[float, float] | None]) -> None:
    allowance = Allowance(0.1)
    for one in seen:
        if one is None:
            allowance.missed()
        else:
            allowance.observe(*one)
        assert 0 <= allowance.lag_s <= LAG_SHARE * 0.1
        assert 0 <= allowance.error_s <= ERROR_SHARE * 0.1


def test_it_settles_where_one_batch_in_a_hundred_is_late() -> None:
    rng = np.random.default_rng(0)
    allowance, late, batches = Allowance(1.0), 0, 20_000
    for error_s in rng.exponential(0.02, batches):
        spare_s = allowance.error_s - error_s
        allowance.observe(0.0, spare_s)
        late += spare_s < 0
    assert late / batches == pytest.approx(LATE_SHARE, rel=0.1)


def test_without_a_deadline_there_is_nothing_to_keep() -> None:
    allowance = Allowance(math.inf)
    allowance.missed()
    allowance.observe(0.1, math.inf)
    assert allowance.error_s == 0.0

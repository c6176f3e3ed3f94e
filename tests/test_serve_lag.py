"""What is kept free of a deadline for the event loop."""

from __future__ import annotations

import pytest

from headway.serve.lag import SHARE, Lag


def test_a_steady_lag_is_allowed_for_twice() -> None:
    lag = Lag(1.0)
    for _ in range(500):
        lag.observe(0.003)
    assert lag.allowance_s == pytest.approx(0.006, rel=0.01)


def test_a_bad_moment_takes_a_share_of_the_deadline_at_most() -> None:
    lag = Lag(0.02)
    assert lag.allowance_s == 0.0
    lag.observe(10.0)
    assert lag.allowance_s == SHARE * 0.02

"""Every arrival file passes the shipped contract suite; a new file is picked up without a list to edit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from headway.load import arrival_times, arrivals
from headway.records import ConfigError
from headway.testing.arrivals import ARRIVALS, ArrivalContract, Process


@pytest.mark.parametrize("name", sorted(arrivals().present), scope="class")
class TestEveryProcess(ArrivalContract):
    @pytest.fixture(scope="class")
    @classmethod
    def process(cls, name: str) -> Process:
        return cast(Process, arrivals().present[name])


def test_no_process_is_missing_here() -> None:
    assert arrivals().missing == {}
    assert {"poisson", "constant", "bursty"} <= set(arrivals().present)


def truncated(rate_per_s: float, duration_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """The error seen in the wild: exponential gaps, none longer than three means."""
    times = np.cumsum(np.minimum(rng.exponential(1 / rate_per_s, int(1.3 * rate_per_s * duration_s) + 10), 3 / rate_per_s))
    return times[times < duration_s]


def test_the_suite_catches_truncated_gaps() -> None:
    process = cast(Process, SimpleNamespace(times=truncated, C2=1.0, __doc__="wrong"))
    run = truncated(250.0, ARRIVALS / 250.0, np.random.default_rng(0))
    suite = ArrivalContract()
    with pytest.raises(AssertionError, match="asked for 400000"):
        suite.test_the_mean_rate_is_the_asked_one(process, run)
    with pytest.raises(AssertionError, match="C2 says 1"):
        suite.test_the_variation_is_the_stated_one(process, run)


def test_the_same_seed_gives_the_same_pattern_at_any_rate() -> None:
    for name in arrivals().present:
        slow, fast = arrival_times(name, 10.0, 50.0, 7), arrival_times(name, 1000.0, 0.5, 7)
        assert np.allclose(slow, fast * 100)


@pytest.mark.parametrize(
    ("process", "rate", "duration", "said"),
    [
        ("poison", 1.0, 1.0, "did you mean 'poisson'"),
        ("x", 1.0, 1.0, "known are bursty"),
        ("poisson", 0.0, 1.0, "above zero"),
        ("poisson", 1.0, -1.0, "above zero"),
        ("poisson", float("inf"), 1.0, "finite"),
        ("poisson", float("nan"), 1.0, "finite"),
    ],
)
def test_what_cannot_be_is_refused_in_words(process: str, rate: float, duration: float, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        arrival_times(process, rate, duration, 0)

"""The contract of an arrival process, as tests. Any process earns them all with three lines::

    class TestMine(ArrivalContract):
        @pytest.fixture(scope="class")
        @classmethod
        def process(cls): return my_process

A process is checked against its own word: its mean rate, and the squared coefficient of variation ``C2`` that it states. A generator
in wide use truncated exponential gaps at three means: its rate came out 5.2% too high and its variation 0.77 instead of 1, and every
tail measured with it was too short. The tolerances here are at least five standard errors wide and still catch that.

A process whose rate changes over the run is judged on the clock of its own ``cumulative`` share, on which arrivals must look stationary
(the time change of a non-homogeneous process: Cinlar, Introduction to Stochastic Processes, section 4.7). One that replays a recording
draws nothing: it must say so with ``REPLAYS``, and is then compared with ``recorded`` instead of with chance.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

ARRIVALS = 400_000
"""Arrivals of the long run that mean and variation are judged by."""
SHORT_RUNS = 2000


class Process(Protocol):
    """What an arrival file holds; ``cumulative`` and ``REPLAYS`` only where they apply. Keyword arguments of ``times`` are its settings."""

    __doc__: str | None
    C2: float

    def times(self, rate_per_s: float, duration_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
        """Due times, ascending, from 0 up to ``duration_s`` [s]."""


def replays(process: Process) -> bool:
    """Whether a process draws nothing."""
    return bool(getattr(process, "REPLAYS", False))


def own_clock_s(process: Process, times_s: NDArray[np.float64], duration_s: float) -> NDArray[np.float64]:
    """Due times on the clock on which the process is stationary [s]."""
    cumulative = getattr(process, "cumulative", None)
    if cumulative is None:
        return times_s
    changed: NDArray[np.float64] = cumulative(times_s / duration_s) * duration_s
    return changed


class ArrivalContract:
    """Subclass it and give the fixture ``process``.

    Attributes:
        c2_tolerance: relative error of the measured variation that still counts as the stated one; at ``C2`` 0 it is absolute.
    """

    c2_tolerance = 0.06

    @pytest.fixture(scope="class")
    @classmethod
    def process(cls) -> Process:
        """The module under test."""
        raise NotImplementedError("a subclass must give the fixture 'process': the module under test")

    @pytest.fixture(scope="class")
    @classmethod
    def long_run_s(cls, process: Process) -> NDArray[np.float64]:
        """Due times of one long run at 250/s."""
        return process.times(250.0, ARRIVALS / 250.0, np.random.default_rng(11))

    def test_it_says_what_it_is(self, process: Process) -> None:
        assert (process.__doc__ or "").strip(), "the module needs a docstring: its first line is shown by `headway doctor`"
        assert isinstance(process.C2, float) and 0 <= process.C2 < math.inf, "the module must state C2, a float"

    def test_times_ascend_within_the_run(self, long_run_s: NDArray[np.float64]) -> None:
        assert long_run_s.dtype == np.float64 and long_run_s.ndim == 1
        assert np.isfinite(long_run_s).all()
        assert (np.diff(long_run_s) >= 0).all()
        assert long_run_s[0] >= 0 and long_run_s[-1] < ARRIVALS / 250.0

    def test_the_mean_rate_is_the_asked_one(self, process: Process, long_run_s: NDArray[np.float64]) -> None:
        error = 5 * math.sqrt(process.C2 * ARRIVALS) + 2
        assert abs(len(long_run_s) - ARRIVALS) <= error, f"asked for {ARRIVALS} arrivals, got {len(long_run_s)}"

    def test_the_rate_follows_the_stated_course(self, process: Process, long_run_s: NDArray[np.float64]) -> None:
        if replays(process):
            return
        tenths = np.histogram(own_clock_s(process, long_run_s, ARRIVALS / 250.0), bins=10, range=(0.0, ARRIVALS / 250.0))[0]
        error = 5 * math.sqrt(process.C2 * ARRIVALS / 10) + 2
        assert np.abs(tenths - ARRIVALS / 10).max() <= error, f"a tenth of the expected arrivals each, got {tenths.tolist()}"

    def test_the_course_begins_at_0_and_ends_at_1(self, process: Process) -> None:
        shares = own_clock_s(process, np.linspace(0.0, 1.0, 101), 1.0)
        assert shares[0] == pytest.approx(0.0, abs=1e-12) and shares[-1] == pytest.approx(1.0)
        assert (np.diff(shares) >= -1e-12).all()

    def test_the_variation_is_the_stated_one(self, process: Process, long_run_s: NDArray[np.float64]) -> None:
        if replays(process):
            return
        gaps_s = np.diff(own_clock_s(process, long_run_s, ARRIVALS / 250.0))
        measured = float(np.var(gaps_s) / np.mean(gaps_s) ** 2)
        assert abs(measured - process.C2) <= self.c2_tolerance * (process.C2 or 1.0), f"C2 says {process.C2}, the gaps say {measured:.4f}"

    def test_the_first_stretch_is_like_any_other(self, process: Process) -> None:
        if replays(process):
            return
        rng = np.random.default_rng(5)
        counts = [len(process.times(8.0, 1.0, rng)) for _ in range(SHORT_RUNS)]
        error = 5 * max(float(np.std(counts)), 0.5) / math.sqrt(SHORT_RUNS)
        assert abs(np.mean(counts) - 8.0) <= error, (
            f"runs of 1 s at 8/s hold {np.mean(counts):.3f} arrivals on average: the start is special"
        )

    def test_the_same_seed_gives_the_same_times(self, process: Process) -> None:
        one, two, other = (process.times(50.0, 4.0, np.random.default_rng(seed)) for seed in (3, 3, 4))
        assert np.array_equal(one, two)
        assert np.array_equal(one, other) == replays(process), "every seed gives the same run: the generator given is not used"

    def test_the_same_seed_gives_the_same_pattern_at_any_rate(self, process: Process) -> None:
        slow, fast = (process.times(rate, 500.0 / rate, np.random.default_rng(7)) for rate in (10.0, 1000.0))
        assert np.allclose(slow, fast * 100)

    def test_a_run_may_be_empty(self, process: Process) -> None:
        if replays(process):
            return
        counts = [len(process.times(0.01, 1.0, np.random.default_rng(seed))) for seed in range(50)]
        assert min(counts) == 0

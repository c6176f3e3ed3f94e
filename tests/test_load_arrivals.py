"""Every arrival file passes the shipped contract suite, with its settings too; a new file is picked up without a list to edit."""

from __future__ import annotations

import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from headway.load import arrival_times, arrivals
from headway.load.arrivals import trace
from headway.load.arriving import parse_arrivals, settings_of
from headway.records import ConfigError, InputError, Trace, to_json
from headway.testing.arrivals import ARRIVALS, ArrivalContract, Process

DRAWN = sorted(name for name, module in arrivals().present.items() if not getattr(module, "REPLAYS", False))


@pytest.mark.parametrize("name", DRAWN, scope="class")
class TestEveryDrawnProcess(ArrivalContract):
    @pytest.fixture(scope="class")
    @classmethod
    def process(cls, name: str) -> Process:
        return cast(Process, arrivals().present[name])


SET = [
    ("gamma", {"c2": 0.25}, 0.25), ("gamma", {"c2": 1.0}, 1.0), ("bursty", {"c2": 8.0}, 8.0), ("step", {"factor": 0.2, "at": 0.7}, 1.0),
    ("step", {"factor": 10.0, "at": 0.1}, 1.0), ("diurnal", {"peak": 2.0, "days": 3.0}, 1.0), ("diurnal", {"peak": 1.0}, 1.0),
]  # fmt: skip


def with_settings(name: str, settings: dict[str, float], c2: float) -> Process:
    """A process as it is with these settings, in the shape of its file."""
    module: Any = arrivals().present[name]
    parts: dict[str, Any] = {"__doc__": module.__doc__, "C2": c2, "times": functools.partial(module.times, **settings)}
    if hasattr(module, "cumulative"):
        parts["cumulative"] = functools.partial(module.cumulative, **settings)
    return cast(Process, SimpleNamespace(**parts))


@pytest.mark.parametrize(("name", "settings", "c2"), SET, scope="class")
class TestSettings(ArrivalContract):
    c2_tolerance = 0.08

    @pytest.fixture(scope="class")
    @classmethod
    def process(cls, name: str, settings: dict[str, float], c2: float) -> Process:
        return with_settings(name, settings, c2)


def recording(path: Path, arrivals_s: NDArray[np.float64]) -> Path:
    path.write_bytes(to_json(Trace(start="2026-01-01T00:00:00Z", arrivals_s=tuple(arrivals_s.tolist()), rows=(1,) * len(arrivals_s))))
    return path


class TestTrace(ArrivalContract):
    @pytest.fixture(scope="class")
    @classmethod
    def process(cls, tmp_path_factory: pytest.TempPathFactory) -> Process:
        file = recording(tmp_path_factory.mktemp("trace") / "t.json", 100 + arrival_times("bursty", 20.0, 30.0, 2))
        times = functools.partial(trace.times, file=str(file))
        return cast(Process, SimpleNamespace(__doc__=trace.__doc__, C2=trace.C2, REPLAYS=True, times=times))


def test_no_process_is_missing_here() -> None:
    assert arrivals().missing == {}
    assert {"poisson", "constant", "bursty", "gamma", "step", "diurnal", "trace"} <= set(arrivals().present)


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


def test_the_suite_catches_a_course_that_is_not_the_stated_one() -> None:
    steep = with_settings("step", {"factor": 3.0}, 1.0)
    flat = SimpleNamespace(times=steep.times, C2=1.0, __doc__="wrong", cumulative=lambda at: at)
    run = steep.times(250.0, ARRIVALS / 250.0, np.random.default_rng(0))
    with pytest.raises(AssertionError, match="a tenth of the expected"):
        ArrivalContract().test_the_rate_follows_the_stated_course(cast(Process, flat), run)


def test_a_step_is_where_and_as_high_as_it_was_asked_to_be() -> None:
    due_s = arrival_times("step:factor=3,at=0.25", 1000.0, 100.0, 1)
    before, after = np.count_nonzero(due_s < 25.0) / 25.0, np.count_nonzero(due_s >= 25.0) / 75.0
    assert after / before == pytest.approx(3.0, rel=0.05)


def test_a_day_is_quiet_at_both_ends_and_busy_in_the_middle() -> None:
    hours = np.histogram(arrival_times("diurnal:peak=1.8", 1000.0, 24.0, 1), bins=24, range=(0, 24))[0]
    assert hours[0] == pytest.approx(200, abs=120) and hours[12] == pytest.approx(1800, abs=150)


# --- replay


def test_a_replay_is_the_recording_scaled_in_time(tmp_path: Path) -> None:
    seen_s = np.array([5.0, 5.5, 6.5, 9.0])
    file = recording(tmp_path / "t.json", seen_s)
    parsed = parse_arrivals(f"trace:{file}")
    assert parsed.recorded is not None
    rate, length_s = parsed.recorded
    assert rate == pytest.approx(0.75) and length_s == pytest.approx(4 / 0.75)
    assert arrival_times(f"trace:{file}", rate, length_s, 0).tolist() == pytest.approx([0.0, 0.5, 1.5, 4.0])
    assert arrival_times(f"trace:{file}", 10 * rate, length_s / 10, 5).tolist() == pytest.approx([0.0, 0.05, 0.15, 0.4])


@given(
    gaps=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=30),
    start=st.floats(0, 0.999),
    rounds=st.integers(1, 3),
    rate=st.floats(0.1, 1e4),
)
def test_a_whole_replay_holds_every_arrival_wherever_it_starts(
    tmp_path_factory: pytest.TempPathFactory, gaps: list[float], start: float, rounds: int, rate: float
) -> None:
    file = recording(tmp_path_factory.mktemp("t") / "t.json", np.cumsum([0.0, *gaps]))
    count = len(gaps) + 1
    due_s = arrival_times(f"trace:file={file};start={start}", rate, rounds * count / rate, 0)
    assert abs(len(due_s) - rounds * count) <= 1  # rounding at the very end
    assert (np.diff(due_s) >= 0).all()


@pytest.mark.parametrize("text", ["", "not json", '{"record": "Plan"}', '{"record":"Trace","start":"","arrivals_s":[1.0],"rows":[1]}'])
def test_a_recording_that_is_none_is_refused_in_words(tmp_path: Path, text: str) -> None:
    file = tmp_path / "t.json"
    file.write_text(text)
    with pytest.raises(InputError, match=r"t\.json"):
        parse_arrivals(f"trace:{file}")


# --- text


def test_settings_are_what_the_file_takes_and_keep_their_defaults() -> None:
    assert settings_of(arrivals().present["step"]) == {"factor": 3.0, "at": 0.5}
    assert settings_of(arrivals().present["poisson"]) == {}
    assert parse_arrivals("step:at=0.2").settings == {"at": 0.2}
    assert parse_arrivals("bursty:8").settings == parse_arrivals(" bursty: c2 = 8 ").settings == {"c2": 8.0}
    assert parse_arrivals("step:factor=2;at=0.2") == parse_arrivals("step:factor=2,at=0.2")
    assert parse_arrivals("poisson:") == parse_arrivals("poisson")


@pytest.mark.parametrize(
    ("process", "rate", "duration", "said"),
    [
        ("poison", 1.0, 1.0, "did you mean 'poisson'"),
        ("x", 1.0, 1.0, "known are bursty"),
        ("poisson", 0.0, 1.0, "above zero"),
        ("poisson", 1.0, -1.0, "above zero"),
        ("poisson", float("inf"), 1.0, "finite"),
        ("poisson", float("nan"), 1.0, "finite"),
        ("poisson:c2=2", 1.0, 1.0, "it has none"),
        ("bursty:c=2", 1.0, 1.0, "did you mean 'c2'"),
        ("bursty:c2=2,c2=3", 1.0, 1.0, "twice"),
        ("bursty:c2=two", 1.0, 1.0, "a number"),
        ("bursty:c2=nan", 1.0, 1.0, "finite"),
        ("bursty:c2=0", 1.0, 1.0, "between 0.0001"),
        ("step:factor=-1", 1.0, 1.0, "factor must lie"),
        ("step:at=1", 1.0, 1.0, "at between 0 and 1"),
        ("diurnal:peak=3", 1.0, 1.0, "between 1 and 2"),
        ("diurnal:days=1.5", 1.0, 1.0, "whole number"),
        ("trace", 1.0, 1.0, "trace:FILE"),
        ("trace:/nowhere/t.json", 1.0, 1.0, "can be read"),
        ("trace:t.json,start=1", 1.0, 1.0, "start must lie"),
    ],
)
def test_what_cannot_be_is_refused_in_words(process: str, rate: float, duration: float, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        arrival_times(process, rate, duration, 0)

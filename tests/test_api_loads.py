"""The load stage on candidates whose capacities are known: what it records, what it leaves out when time is short, and what a resumed run finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from evidence import point, prediction
from headway.api import loads
from headway.api.loads import LEAST_S, load_shortlist
from headway.api.progress import Silent
from headway.records import Capacity, Failure, Journal, LoadPoint, LoadRun, MeasurementError, Objective, Plan, Prediction, Record
from headway.search import MOST_RUNS, Halving, gather

TRUE = {"a": 900.0, "b": 800.0, "c": 400.0, "model": 300.0}
EXPECTED = tuple(prediction(name, 1.1 * true) for name, true in TRUE.items())
ANY_RATE, STATED = Objective(latency_s=0.02), Objective(latency_s=0.02, rate_per_s=350.0)


class Bench:
    """Stands for ``InProcess``: opened, loaded and closed candidates are counted, and answers come from a table."""

    open_now: set[str]
    held: list[int]
    loaded: list[tuple[str, float, float]]

    def __init__(self, broken: str = "", stop_after: int = 10**6) -> None:
        self.open_now, self.held, self.loaded, self.broken, self.stop_after = set(), [], [], broken, stop_after

    def __call__(self, path: Path, plan: Plan, inputs: Mapping[str, np.ndarray]) -> Any:
        name = path.stem
        if name == self.broken:
            raise MeasurementError(f"{name} cannot be opened")
        self.open_now.add(name)
        return SimpleNamespace(load=self._load(name), close=lambda: self.open_now.remove(name))

    def _load(self, name: str) -> Callable[..., LoadPoint]:
        def load(rate_per_s: float, duration_s: float, objective: Objective, seed: int) -> LoadPoint:
            if len(self.loaded) == self.stop_after:
                raise KeyboardInterrupt
            self.loaded.append((name, rate_per_s, duration_s))
            self.held.append(len(self.open_now))
            missed = 0.001 if rate_per_s <= TRUE[name] else 1.02 - TRUE[name] / rate_per_s
            made = point(rate_per_s, 0.01 if missed < 0.01 else 0.03, target="in-process", seed=seed)
            return msgspec.structs.replace(made, miss_fraction=missed, achieved_rate_per_s=min(rate_per_s, TRUE[name]))

        return load


class Started:
    """A run with a journal; ``left_s`` is all the time it has."""

    def __init__(self, folder: Path, objective: Objective, left_s: float = 1e6) -> None:
        self.journal, self.objective, self.progress = Journal(folder), objective, Silent()
        self.config, self.skipped, self._left_s = SimpleNamespace(seed=7), [], left_s

    def add(self, record: Record) -> Record:
        self.journal.append(record)
        return record

    def left_s(self, stage: str, otherwise_s: float) -> float:
        return min(otherwise_s, self._left_s)

    def leave_out(self, kind: str, what: str) -> None:
        self.skipped.append(f"{kind}: {what}")


def load(monkeypatch: pytest.MonkeyPatch, run: Any, bench: Bench, expected: tuple[Prediction, ...] = EXPECTED) -> Halving:
    monkeypatch.setattr(loads, "InProcess", bench)
    prepared: Any = SimpleNamespace(parts=SimpleNamespace(selection=SimpleNamespace(inputs={})))
    found = load_shortlist(run, prepared, expected, {name: Path(f"{name}.onnx") for name in TRUE}, {"model"})
    assert bench.open_now == set(), "every session is closed at the end"
    return found


def runs(run: Any, purpose: str) -> list[tuple[str, float]]:
    return [(line.candidate.variant, line.point.offered_rate_per_s) for line in run.journal.of(LoadRun) if line.purpose == purpose]


def test_the_best_is_found_and_everyone_has_a_capacity_that_brackets_the_truth(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run: Any = Started(tmp_path, ANY_RATE)
    bench = Bench()
    search = load(monkeypatch, run, bench)
    assert search.ranking[0].variant == "a"
    assert len(bench.loaded) == len(run.journal.of(LoadRun)) <= MOST_RUNS
    assert {line.candidate.variant for line in run.journal.of(Capacity)} == set(TRUE)
    for line in run.journal.of(Capacity):
        assert line.low_per_s == line.rate_per_s <= TRUE[line.candidate.variant]
        assert line.open_above or TRUE[line.candidate.variant] < line.high_per_s
    assert run.skipped == []


def test_without_a_rate_latency_is_looked_at_for_the_best_and_the_best_plain_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run: Any = Started(tmp_path, ANY_RATE)
    load(monkeypatch, run, Bench())
    assert [name for name, _ in runs(run, "at-rate")][:2] == ["a", "model"]
    evidence = {e.candidate.variant: e for e in gather(run.journal, 0.99, "in-process")}
    assert set(evidence) == set(TRUE)
    assert evidence["a"].latency_s == evidence["model"].latency_s == 0.01
    assert (evidence["model"].rate_per_s or 0) > 0, "the comfortable rate is one that it holds"


def test_a_stated_rate_is_itself_the_rate_of_comparison(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run: Any = Started(tmp_path, STATED)
    load(monkeypatch, run, Bench())
    assert runs(run, "trial") == []
    assert {name for name, _ in runs(run, "at-rate")} == set(TRUE)
    evidence = {e.candidate.variant: e for e in gather(run.journal, 0.99, "in-process")}
    assert {name for name, e in evidence.items() if (e.rate_per_s or 0) >= 350} == {"a", "b", "c"}
    assert all(e.latency_s is not None and e.at_rate_per_s == 350 for e in evidence.values())


@pytest.mark.parametrize("objective", [ANY_RATE, STATED], ids=["any rate", "stated"])
def test_a_run_that_was_stopped_anywhere_ends_with_the_same_records(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, objective: Objective
) -> None:
    whole: Any = Started(tmp_path / "whole", objective)
    count = len(load(monkeypatch, whole, (first := Bench())).ranking) and len(first.loaded)
    for stop in range(count):
        run: Any = Started(tmp_path / str(stop), objective)
        with pytest.raises(KeyboardInterrupt):
            load(monkeypatch, run, Bench(stop_after=stop))
        rest = Bench()
        load(monkeypatch, run, rest)
        assert len(rest.loaded) == count - stop
        assert list(run.journal) == list(whole.journal)
    again = Bench()
    load(monkeypatch, whole, again)
    assert again.loaded == []


def test_a_candidate_that_cannot_be_opened_is_recorded_and_the_search_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run: Any = Started(tmp_path, ANY_RATE)
    search = load(monkeypatch, run, Bench(broken="a"))
    assert search.ranking[0].variant == "b"
    assert [(line.stage, line.variant) for line in run.journal.of(Failure)] == [("load", "a")]
    before = list(run.journal)
    load(monkeypatch, run, (again := Bench(broken="a")))
    assert again.loaded == [] and list(run.journal) == before


def test_without_time_the_first_rung_is_made_in_short_runs_and_the_rest_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run: Any = Started(tmp_path, ANY_RATE, left_s=0.0)
    bench = Bench()
    search = load(monkeypatch, run, bench)
    assert [name for name, _, _ in bench.loaded] == ["a", "b", "c", "model", search.ranking[0].variant]
    assert [seconds for _, _, seconds in bench.loaded[:4]] == pytest.approx([LEAST_S] * 4)
    assert run.skipped and all(text.startswith("load runs: ") for text in run.skipped)
    assert {line.candidate.variant for line in run.journal.of(Capacity)} == set(TRUE)


def test_a_later_start_with_more_time_keeps_what_was_concluded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hurried: Any = Started(tmp_path, ANY_RATE, left_s=0.0)
    load(monkeypatch, hurried, Bench())
    later: Any = Started(tmp_path, ANY_RATE)
    load(monkeypatch, later, (bench := Bench()))
    assert bench.loaded == []


def test_only_who_is_still_in_is_held_open(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run: Any = Started(tmp_path, ANY_RATE)
    search = load(monkeypatch, run, (bench := Bench()))
    assert bench.held[: len(TRUE)] == [1, 2, 3, 4]
    assert max(bench.held[len(TRUE) : search.runs - 2]) <= 2

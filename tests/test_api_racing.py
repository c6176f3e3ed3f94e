"""Races of real variants: rows run at most once, the same record when nothing stops them, resumed, and finished when it matters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import headway.api.variants
from headway.api.config import TuneConfig
from headway.api.prepare import Prepared, begin, prepare
from headway.api.progress import Silent
from headway.api.run import Run, open_folder
from headway.api.variants import Scorer, all_recipes, consider, finish_races, make_variant
from headway.records import Candidate, Plan, Quality, Rejection, Step, Variant, parse_objective
from headway.track import open_trackers
from multi_task import without_odd, write

RUNTIME = "onnx_runtime"
COSTLY = 10**12
"""FLOP that make rows worth sparing."""


@dataclass
class Counted:
    """Rows that were run, in order, by their content."""

    seen: list[bytes] = field(default_factory=list)
    opened: int = 0
    closed: int = 0


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Every session that a race opens counts its rows."""
    count = Counted()
    opened = headway.api.variants.open_session

    @dataclass
    class Counting:
        plan: Plan
        path: Path

        def __post_init__(self) -> None:
            self.session = opened(self.plan, self.path)
            count.opened += 1

        def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            count.seen += [row.tobytes() for row in next(iter(feeds.values()))]
            return self.session.run(feeds)

        def close(self) -> None:
            count.closed += 1
            self.session.close()

    monkeypatch.setattr(headway.api.variants, "open_session", Counting)
    return count


@dataclass
class Course:
    """A run with its parent, ready to race."""

    run: Run
    prepared: Prepared
    parent: Variant
    scorer: Scorer

    @property
    def rows(self) -> list[bytes]:
        """The rows of the selection part."""
        return [row.tobytes() for row in next(iter(self.prepared.parts.selection.inputs.values()))]

    def variant(self, name: str, path: Path | str, flop: int = 1) -> Variant:
        """A compressed variant whose graph lies at ``path``."""
        return msgspec.structs.replace(self.parent, name=name, recipe=(Step(technique="made_up"),), path=str(path), digest=name, flop=flop)


def course(folder: Path, model: Path, data: Path, slo: str, *, resume: bool = False) -> Course:
    config = TuneConfig(models=(str(model),), data=str(data), slo=slo, out=str(folder), runtimes=(RUNTIME,))
    prepared = prepare(config)
    run = Run(folder, config, parse_objective(slo), open_folder(folder, resume=resume), Silent(), open_trackers((), folder, {}))
    begin(run, prepared)
    parent = make_variant(run, prepared, prepared.sources[0], ())
    assert parent is not None
    return Course(run, prepared, parent, Scorer(run, prepared, "selection", prepared.parts.selection, parent))


@pytest.fixture
def on_digits(digits: Path, tmp_path: Path) -> Iterator[Course]:
    found = course(tmp_path / "run", digits / "model.onnx", digits / "val.npz", "drop<=5%")
    yield found
    found.run.journal.release()


def broken(source: Path, target: Path, tensor: str, keep: float) -> Path:
    """The model with all but a share of the values of one tensor set to zero."""
    model = onnx.load(str(source))
    for held in model.graph.initializer:
        if held.name == tensor:
            value = numpy_helper.to_array(held).copy()
            value[np.random.default_rng(0).random(value.shape) >= keep] = 0
            held.CopyFrom(numpy_helper.from_array(value, held.name))
    onnx.save(model, str(target))
    return target


def test_the_clearly_bad_runs_one_look_and_is_rejected(on_digits: Course, counted: Counted) -> None:
    folder = on_digits.run.folder
    bad = on_digits.variant("bad", broken(folder / on_digits.parent.path, folder / "bad.onnx", "head_weight", 0.0))
    assert consider(on_digits.run, on_digits.prepared, on_digits.scorer, bad) == []
    size = len(on_digits.rows)
    assert counted.seen == on_digits.rows[:64] and (counted.opened, counted.closed) == (1, 1)
    (found,) = on_digits.run.journal.of(Quality)
    assert (found.n, found.of_rows, found.verdict) == (64, size, "violated")
    (rejection,) = on_digits.run.journal.of(Rejection)
    assert rejection.reason.endswith(f"surely beyond after 64 of {size} rows")


def test_the_clearly_good_spares_rows_that_cost_something(on_digits: Course, counted: Counted) -> None:
    size = len(on_digits.rows)
    good = on_digits.variant("good", on_digits.parent.path, COSTLY)
    found = on_digits.scorer.score(good, RUNTIME, race=True)
    assert counted.seen == on_digits.rows[:256]
    assert (found.n, found.of_rows, found.verdict) == (256, size, "proven")
    cheap = on_digits.variant("cheap", on_digits.parent.path)
    assert on_digits.scorer.score(cheap, RUNTIME, race=True) == on_digits.scorer.measure(cheap, RUNTIME)
    assert counted.seen[256:] == on_digits.rows


def test_nothing_that_is_unsure_is_stopped_and_no_row_runs_twice(tmp_path: Path, counted: Counted) -> None:
    write(tmp_path)
    held = course(tmp_path / "run", tmp_path / "model.onnx", tmp_path / "val.npz", "drop<=0.1%")
    source = held.prepared.sources[0]
    recipe = next(one for one in all_recipes(held.prepared, source) if one and one[-1].technique == "quantize_dynamic")
    made = make_variant(held.run, held.prepared, source, recipe)
    assert made is not None
    unsure = msgspec.structs.replace(made, flop=COSTLY)
    raced = held.scorer.score(unsure, RUNTIME, race=True)
    assert not raced.stopped_early and raced.n == len(held.rows)
    assert counted.seen == held.rows and (counted.opened, counted.closed) == (1, 1)
    assert raced == held.scorer.measure(unsure, RUNTIME)  # though a graph quantized as it runs answers a row by its whole batch
    held.run.journal.release()


def test_a_resumed_run_finds_what_a_race_recorded(on_digits: Course, counted: Counted) -> None:
    good = on_digits.variant("good", on_digits.parent.path, COSTLY)
    found = on_digits.scorer.score(good, RUNTIME, race=True)
    on_digits.run.journal.release()
    config = on_digits.run.config
    resumed = course(on_digits.run.folder, Path(config.models[0]), Path(config.data), config.slo, resume=True)
    assert resumed.scorer.score(good, RUNTIME, race=True) == found
    assert counted.opened == 1
    resumed.run.journal.release()


def test_all_rows_are_run_when_asked_for(on_digits: Course) -> None:
    good = on_digits.variant("good", on_digits.parent.path, COSTLY)
    early = on_digits.scorer.score(good, RUNTIME, race=True)
    whole = on_digits.scorer.score(good, RUNTIME, race=False)
    assert early.stopped_early and not whole.stopped_early and whole.n == len(on_digits.rows)
    assert on_digits.run.journal.of(Quality) == [early, whole]
    assert on_digits.scorer.score(good, RUNTIME, race=True) == early
    assert on_digits.scorer.score(good, RUNTIME, race=False) == whole


def test_races_are_finished_where_figures_are_compared(on_digits: Course) -> None:
    folder = on_digits.run.folder
    good, cheap = on_digits.variant("good", on_digits.parent.path, COSTLY), on_digits.variant("cheap", on_digits.parent.path)
    lucky = on_digits.variant("lucky", broken(folder / on_digits.parent.path, folder / "lucky.onnx", "head_weight", 0.0), COSTLY)
    known = {variant.name: variant for variant in (good, cheap, lucky)}
    for variant in (good, cheap):
        on_digits.scorer.score(variant, RUNTIME, race=True)
    early = on_digits.run.journal.of(Quality)[0]
    on_digits.run.add(msgspec.structs.replace(early, variant="lucky"))
    candidates = [Candidate(variant=name, plan=Plan(runtime=RUNTIME, threads=threads)) for name in known for threads in (1, 2)]
    kept = finish_races(on_digits.run, on_digits.prepared, on_digits.parent, candidates, known)
    assert [(one.variant, one.plan.threads) for one in kept] == [("good", 1), ("good", 2), ("cheap", 1), ("cheap", 2)]
    records = on_digits.run.journal.of(Quality)
    assert [(line.variant, line.stopped_early) for line in records[3:]] == [("good", False), ("lucky", False)]
    assert {line.variant for line in on_digits.run.journal.of(Rejection)} == {"lucky"}
    assert finish_races(on_digits.run, on_digits.prepared, on_digits.parent, candidates, known) == kept
    assert on_digits.run.journal.of(Quality) == records


def test_several_tasks_race_together(tmp_path: Path, counted: Counted) -> None:
    write(tmp_path)
    held = course(tmp_path / "run", tmp_path / "model.onnx", tmp_path / "val.npz", "drop<=5%")
    without_odd(held.run.folder / held.parent.path, held.run.folder / "broken.onnx")
    good = held.scorer.score(held.variant("good", held.parent.path, COSTLY), RUNTIME, race=True)
    bad = held.scorer.score(held.variant("bad", "broken.onnx", COSTLY), RUNTIME, race=True)
    held.run.journal.release()
    assert (good.n, good.verdict, bad.n, bad.verdict) == (256, "proven", 64, "violated")
    assert [task.verdict for task in bad.by_task] == ["proven", "violated"]
    assert all(task.stopped_early for one in (good, bad) for task in one.by_task)
    assert counted.seen == held.rows[:256] + held.rows[:64]

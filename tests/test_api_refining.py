"""Settings between the rungs: what is told, trained and left out, by table; then once on a real model, resumed and replayed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from headway.api import composing, compressing, curves, refining
from headway.api.composing import Recipe, Tried
from headway.api.compressing import compress
from headway.api.config import TuneConfig
from headway.api.prepare import Prepared, begin, prepare
from headway.api.progress import Silent
from headway.api.refining import Explored, refine
from headway.api.run import Run
from headway.api.variants import Scored
from headway.compress.techniques.contract import Range, Space
from headway.records import (
    BatchTiming,
    Interval,
    Journal,
    Plan,
    Quality,
    ServiceCurve,
    Step,
    Variant,
    parse_objective,
)  # fmt: skip
from headway.track import open_trackers

TECHNIQUES = {
    "fold": SimpleNamespace(ORDER=0, HARSHNESS=0),
    "prune": SimpleNamespace(ORDER=20, HARSHNESS=5),
    "narrow": SimpleNamespace(ORDER=60, HARSHNESS=3),
    "recover": SimpleNamespace(ORDER=None, HARSHNESS=1),
}
FOLD, RECOVER, NARROW = Step(technique="fold"), Step(technique="recover"), Step(technique="narrow", settings={"kind": "a"})
BOUND = 0.02


def prune(keep: float) -> Step:
    return Step(technique="prune", settings={"keep": keep})


class Table:
    """A source whose recipes keep the bound as ``drop`` says, and whose rate is one over what is kept, doubled by narrowing."""

    def __init__(self, folder: Path, drop: Callable[[float, bool], float], *, budget: str = "", lesson: Step | None = None) -> None:
        self.seen: list[Recipe] = []
        self.alive: list[Scored] = []
        self.lesson = lesson
        self._drop = drop
        config = TuneConfig(slo="drop<=2%", budget=budget)
        self.run = Run(folder, config, parse_objective(config.slo), Journal(folder), Silent(), open_trackers((), folder, {}))

    def attempt(self, recipe: Recipe) -> Tried:
        self.seen.append(recipe)
        name = "+".join(["m", *map(str, recipe)])
        keep = next((float(step.settings["keep"]) for step in recipe if step.technique == "prune"), 1.0)
        drop = self._drop(keep, RECOVER in recipe)
        variant = Variant(
            name=name, source="m", origin="onnx", recipe=recipe, parent_digest="p", digest=name, path="x", parameters=1,
            flop=int(1000 * keep), weight_bytes=1, file_bytes=1, precision="float32",
        )  # fmt: skip
        self.run.add(variant)
        quality = self.run.add(quality_of(name, drop))
        if drop <= BOUND:
            self.alive.append(Scored(variant, "onnx_runtime", quality))
        return Tried(recipe, variant, int(drop <= BOUND), 1 - drop)

    def explored(self, *recipes: Recipe) -> Explored:
        tried = tuple(self.attempt(recipe) for recipe in recipes)
        self.seen.clear()
        prepared: Any = SimpleNamespace(cores=1, contexts={"m": None})
        source: Any = SimpleNamespace(name="m", model=None)
        return Explored(prepared, source, tried, self.alive, self.attempt, self.lesson)


def quality_of(name: str, drop: float, part: str = "selection") -> Quality:
    return Quality(
        variant=name, runtime="onnx_runtime", part=part, metric="accuracy", higher_is_better=True, n=100,
        value=Interval(value=0.9 - drop, low=0, high=1), parent_value=0.9, drop=Interval(value=drop, low=drop, high=drop), right_to_wrong=0,
        wrong_to_right=0, agreement=1 - drop, verdict="violated" if drop > BOUND else "held",
    )  # fmt: skip


def curve(variant: Variant, per_s: float) -> ServiceCurve:
    return ServiceCurve(
        variant=variant.name, runtime="onnx_runtime", device="cpu", instances=1, threads=1,
        timings=(BatchTiming(batch=1, service_s=(1 / per_s,)),), tau0_s=0.0, alpha_s=1 / per_s, peak_bytes=0,
    )  # fmt: skip


@pytest.fixture
def by_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def spaces(model: object, context: object, names: list[str]) -> dict[str, Space]:
        return {"prune": {"keep": Range(0.3, 0.95)}}

    def curve_of(run: Run, prepared: Prepared, scored: Scored, split: tuple[int, int]) -> ServiceCurve:
        return curve(scored.variant, 1e6 / scored.variant.flop * (2 if NARROW in scored.variant.recipe else 1))

    monkeypatch.setattr(composing, "get", lambda name: TECHNIQUES[name])
    monkeypatch.setattr(refining, "spaces", spaces)
    monkeypatch.setattr(refining, "curve_of", curve_of)


def gently(keep: float, trained: bool) -> float:
    """A drop that passes the bound at keep 0.6; at 0.4 once trained."""
    return 0.02 * (1 - keep) / (0.6 if trained else 0.4)


LADDER = ((FOLD, prune(0.75)), (FOLD, prune(0.5)), (FOLD, NARROW), (FOLD, prune(0.75), NARROW))


@pytest.mark.usefixtures("by_table")
def test_settings_between_the_rungs_beat_the_ladder_and_join_what_lives(tmp_path: Path) -> None:
    table = Table(tmp_path, gently)
    explored = table.explored(*LADDER)
    before = min(scored.variant.flop for scored in table.alive)
    refine(table.run, [explored])
    assert len(table.seen) == refining.REFINING_TRIALS == len(set(map(str, table.seen)))
    assert not set(map(str, table.seen)) & set(map(str, LADDER))
    assert min(scored.variant.flop for scored in table.alive) < 0.95 * before
    assert {tuple(step.technique for step in recipe) for recipe in table.seen} == {("fold", "prune"), ("fold", "prune", "narrow")}, (
        "narrowing alone leaves nothing to set"
    )
    assert table.run.left_out == ()


@pytest.mark.usefixtures("by_table")
def test_what_breaks_the_bound_is_trained_only_with_a_lesson(tmp_path: Path) -> None:
    (tmp_path / "with").mkdir()
    with_lesson, without = Table(tmp_path / "with", gently, lesson=RECOVER), Table(tmp_path, gently)
    for table in (with_lesson, without):
        refine(table.run, [table.explored(*LADDER)])
    trained = [recipe for recipe in with_lesson.seen if RECOVER in recipe]
    broken = [recipe for recipe in with_lesson.seen if RECOVER not in recipe and gently(float(recipe[1].settings["keep"]), False) > BOUND]
    assert trained == [(*recipe, RECOVER) for recipe in broken] and trained
    assert not any(RECOVER in recipe for recipe in without.seen)
    assert len(without.seen) == refining.REFINING_TRIALS


@pytest.mark.usefixtures("by_table")
def test_without_time_nothing_is_asked_and_the_run_says_so(tmp_path: Path) -> None:
    table = Table(tmp_path, gently, budget="10s")
    late = Run(
        tmp_path, table.run.config, table.run.objective, table.run.journal, Silent(), table.run.trackers, began_s=time.monotonic() - 9
    )
    refine(late, [table.explored(*LADDER)])
    assert table.seen == []
    assert late.left_out == ("1 refinements left out for lack of time: further settings on m",)


@pytest.mark.usefixtures("by_table")
def test_nothing_is_asked_where_nothing_lives_or_nothing_can_be_set(tmp_path: Path) -> None:
    for recipes in ((), ((FOLD, prune(0.4)),), ((FOLD, NARROW),)):
        table = Table(tmp_path, gently)
        refine(table.run, [table.explored(*recipes)])
        assert table.seen == []


@pytest.mark.usefixtures("by_table")
def test_what_was_measured_later_is_not_told_to_a_replay(tmp_path: Path) -> None:
    table = Table(tmp_path, gently)
    explored = table.explored(*LADDER)
    broken = explored.tried[1].variant
    assert broken is not None
    before = refining.first_scores(table.run, broken)
    for part in ("selection", "report"):
        table.run.add(quality_of(broken.name, 0.3, part))
    assert refining.first_scores(table.run, broken) == before and len(before) == 1


@pytest.mark.usefixtures("by_table")
def test_sources_take_turns(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    tables = [Table(tmp_path, gently), Table(tmp_path / "other", gently)]
    refine(tables[0].run, [table.explored(*LADDER) for table in tables])
    assert [len(table.seen) for table in tables] == [refining.REFINING_TRIALS // 2] * 2


def per_second(path: Path, name: str, plan: Plan, inputs: object, **more: object) -> ServiceCurve:
    """A curve by closed form: seconds by the bytes of the file."""
    seconds = 1e-5 + 1e-10 * path.stat().st_size
    return ServiceCurve(
        variant=name, runtime=plan.runtime, device="cpu", instances=plan.instances, threads=plan.threads,
        timings=(BatchTiming(batch=1, service_s=(seconds,)),), tau0_s=0.0, alpha_s=seconds, peak_bytes=0,
    )  # fmt: skip


@pytest.fixture
def closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "measure_curve", per_second)
    monkeypatch.setattr(compressing, "with_layer_times", lambda run, prepared, source, rivals: prepared)
    monkeypatch.setattr(refining, "REFINING_TRIALS", 3)


@pytest.fixture
def config(digits: Path) -> TuneConfig:
    return TuneConfig(
        models=(str(digits / "model.onnx"),), data=str(digits / "val.npz"), slo="drop<=2%", runtimes=("onnx_runtime",),
        techniques=("fold", "prune_channels", "quantize_weights"), seed=7,
    )  # fmt: skip


def compressed(folder: Path, config: TuneConfig) -> tuple[list[str], Journal]:
    """Names of what lives, in order, and the journal."""
    (folder / "variants").mkdir(parents=True, exist_ok=True)
    journal = Journal(folder)
    run = Run(folder, config, parse_objective(config.slo), journal, Silent(), open_trackers((), folder, {}))
    prepared = prepare(config)
    begin(run, prepared)
    with run.stage("compress", "compress", 1):
        _, alive = compress(run, prepared)
    return [f"{scored.variant.name} on {scored.runtime}" for scored in alive], journal


@pytest.mark.usefixtures("closed_form")
def test_a_replay_asks_for_the_same_and_a_run_cut_short_goes_on_alike(
    tmp_path: Path, config: TuneConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive, journal = compressed(tmp_path / "first", config)
    made = [variant.name for variant in journal.of(Variant)]
    assert len(made) == len(set(made)) and len(set(alive)) == len(alive)
    keeps = [float(step.settings["keep"]) for v in journal.of(Variant) for step in v.recipe if step.technique == "prune_channels"]
    between = [keep for keep in keeps if not np.isclose(keep, (0.75, 0.5, 0.35)).any()]
    assert between and all(0.3 <= keep <= 0.95 for keep in between)

    shutil.copytree(tmp_path / "first", tmp_path / "replayed")
    again, replayed = compressed(tmp_path / "replayed", config)
    assert again == alive
    assert len(replayed) == len(journal) + 1, "the stage's time and nothing else"
    monkeypatch.setattr(refining, "REFINING_TRIALS", 9)
    assert compressed(tmp_path / "replayed", config)[0] == alive, "what had ended asks for nothing more"
    monkeypatch.setattr(refining, "REFINING_TRIALS", 3)

    (tmp_path / "cut" / "variants").mkdir(parents=True)
    lines = (tmp_path / "first" / "records.jsonl").read_bytes().splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if made[-3].encode() in line)
    (tmp_path / "cut" / "records.jsonl").write_bytes(b"".join(lines[:at]))
    for path in (tmp_path / "first" / "variants").iterdir():
        shutil.copy(path, tmp_path / "cut" / "variants")
    resumed, cut = compressed(tmp_path / "cut", config)
    assert resumed == alive
    assert [variant.name for variant in cut.of(Variant)] == made

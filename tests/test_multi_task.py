"""Several labelled outputs: data, configuration, quality, records, reports, and a whole run."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from headway.api.config import TuneConfig, metrics
from headway.api.prepare import begin, prepare
from headway.api.progress import Silent
from headway.api.run import Run, open_folder
from headway.api.tune import tune
from headway.api.variants import Scorer, consider, make_variant
from headway.data import check, dataset_from_arrays
from headway.quality import Task, compare_tasks, metric
from headway.records import ConfigError, DataError, Journal, Objective, Quality, Rejection, TensorSpec, parse_objective
from headway.records.base import from_json, to_json
from headway.report.rows import _drops
from headway.report.wording import each_task
from headway.track import open_trackers
from multi_task import without_odd, write

ROWS = 200
INPUT = (TensorSpec(name="x", dtype="float32", shape=("batch", 3)),)
OUTPUTS = tuple(TensorSpec(name=name, dtype="float32", shape=("batch", 4)) for name in ("kind", "age"))


def arrays(**more: object) -> dict[str, object]:
    return {"x": np.zeros((20, 3), np.float32), **more}


def checked(**more: object):
    return check(dataset_from_arrays(arrays(**more), "test"), INPUT, outputs=OUTPUTS)


def test_label_arrays_become_tasks_in_the_models_order() -> None:
    found = checked(label_age=np.linspace(0, 1, 20), label_kind=np.arange(20) % 4)
    assert list(found.tasks) == ["kind", "age"] and list(found.inputs) == ["x"]
    assert found.labels is not None and np.array_equal(found.labels, np.arange(20) % 4)
    part = found.take([3, 1])
    assert np.array_equal(part.tasks["kind"], [3, 1])


def test_a_plain_label_is_the_first_outputs() -> None:
    found = checked(label=np.arange(20) % 4, label_age=np.linspace(0, 1, 20))
    assert list(found.tasks) == ["kind", "age"]
    assert checked(label=np.arange(20) % 4).tasks == {}


def test_text_labels_become_indices() -> None:
    assert np.array_equal(checked(label_kind=np.array(["b", "a"] * 10)).tasks["kind"], [1, 0] * 10)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"label_kin": np.zeros(20)}, "did you mean label_kind"),
        ({"label": np.zeros(20), "label_kind": np.zeros(20)}, "one array of labels"),
        ({"label_age": np.full(20, np.nan)}, "label_age"),
        ({"label_age": np.zeros(19)}, "same number of rows"),
    ],
)
def test_wrong_label_arrays_are_refused(more: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(DataError, match=words):
        checked(**more)


def test_the_digest_sees_every_task() -> None:
    one = checked(label_kind=np.arange(20) % 4, label_age=np.zeros(20))
    other = checked(label_kind=np.arange(20) % 4, label_age=np.ones(20))
    assert one.digest != other.digest


def test_metrics_are_given_for_one_or_for_each_output() -> None:
    assert metrics(["accuracy"]) == "accuracy"
    assert metrics(["kind=accuracy", "age=mae"]) == {"kind": "accuracy", "age": "mae"}
    for wrong in (["accuracy", "mae"], ["kind=accuracy", "kind=f1"], ["kind="]):
        with pytest.raises(ConfigError):
            metrics(wrong)


def judged(broken_kind: bool = False, broken_age: bool = False) -> Quality:
    labels = np.arange(ROWS) % 4
    ages = np.linspace(1, 2, ROWS)[:, None]
    parent = {"kind": np.eye(4)[labels], "age": ages + 0.1}
    outputs = {"kind": np.roll(parent["kind"], 1, 1) if broken_kind else parent["kind"], "age": ages + (0.5 if broken_age else 0.1)}
    tasks = {
        "kind": Task(metric("accuracy@kind"), labels),
        "age": Task(metric("mae@age"), ages),
    }
    samples = dataset_from_arrays({"x": np.zeros((ROWS, 1)), "label": labels}, "test")
    return compare_tasks(
        variant="v", runtime="r", part="report", tasks=tasks, outputs=outputs, parent_outputs=parent, dataset=samples,
        objective=Objective(drop=0.02),
    )  # fmt: skip


@pytest.mark.parametrize(("kind", "age", "worst"), [(True, False, "accuracy@kind"), (False, True, "mae@age")])
def test_one_broken_task_breaks_the_bound(kind: bool, age: bool, worst: str) -> None:
    found = judged(kind, age)
    assert found.verdict == "violated" and found.metric == worst and worst in found.reason
    assert [task.verdict == "violated" for task in found.by_task] == [kind, age]
    assert found.drop.value == max(task.drop.value for task in found.by_task)


def test_nothing_lost_in_any_task_keeps_the_bound() -> None:
    found = judged()
    assert found.verdict in ("proven", "held") and len(found.by_task) == 2


def test_records_of_one_task_read_and_write_as_before() -> None:
    single = judged().by_task[0]
    assert b"tasks" not in to_json(single) and each_task(single) == (single,)
    whole = judged(True)
    assert from_json(to_json(whole), Quality) == whole
    assert "mae@age" in _drops(whole) and "accuracy@kind" in _drops(whole)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("two_heads")
    write(place)
    return place


def config(folder: Path, **more: object) -> TuneConfig:
    settings = {"slo": "drop<=3%", "runtimes": ("onnx_runtime",), "out": str(folder / "run"), **more}
    return TuneConfig(models=(str(folder / "model.onnx"),), data=str(folder / "val.npz"), **settings)  # type: ignore[arg-type]


def test_metrics_default_to_what_fits_each_output(folder: Path) -> None:
    assert [found.name for found in prepare(config(folder)).metrics.values()] == ["accuracy@digit", "accuracy@odd"]
    chosen = prepare(config(folder, metric={"odd": "f1"}, train=str(folder / "train.npz")))
    assert [found.name for found in chosen.metrics.values()] == ["accuracy@digit", "f1@odd"]
    assert chosen.metric.name == "accuracy@digit"
    assert chosen.context.train is not None and list(chosen.context.train.labels) == ["digit", "odd"]  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="did you mean 'odd'"):
        prepare(config(folder, metric={"od": "f1"}))


def test_a_variant_that_destroys_one_task_is_rejected(folder: Path) -> None:
    settings = config(folder, out=str(folder / "scored"))
    prepared = prepare(settings)
    place = folder / "scored"
    run = Run(place, settings, parse_objective(settings.slo), open_folder(place, resume=False), Silent(), open_trackers((), place, {}))
    begin(run, prepared)
    parent = make_variant(run, prepared, prepared.sources[0], ())
    assert parent is not None
    without_odd(place / parent.path, place / "broken.onnx")
    broken = msgspec.structs.replace(parent, name="broken", path="broken.onnx", digest="broken")
    scorer = Scorer(run, prepared, "selection", prepared.parts.selection, parent)
    assert consider(run, prepared, scorer, parent) and not consider(run, prepared, scorer, broken)
    run.journal.release()
    rejected = run.journal.of(Rejection)
    assert [line.variant for line in rejected] == ["broken"] and "accuracy@odd lost" in rejected[0].reason
    scored = next(line for line in run.journal.of(Quality) if line.variant == "broken")
    assert [task.verdict != "violated" for task in scored.by_task] == [True, False]


@pytest.mark.slow
def test_tune_reports_both_tasks(folder: Path) -> None:
    summary = tune(
        config(
            folder,
            slo="p99<=50ms, rate>=50/s, drop<=3%",
            budget="40s",
            out=str(folder / "tuned"),
            compare=False,
            metric="accuracy",
            techniques=("fold", "quantize_dynamic", "recover"),
            train=str(folder / "train.npz"),
        )
    )
    assert summary.choice.quality is not None
    assert [task.metric for task in summary.choice.quality.by_task] == ["accuracy@digit", "accuracy@odd"]
    page = (folder / "tuned" / "report.html").read_text()
    assert "accuracy@digit" in page and "accuracy@odd" in page
    assert all(len(line.by_task) == 2 for line in Journal(folder / "tuned").of(Quality))

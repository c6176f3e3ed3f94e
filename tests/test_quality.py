"""A variant against its parent: closed forms, hostile outputs, groups, verdicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.data import Dataset
from headway.quality import NOT_FINITE, compare, metric
from headway.records import DataError, ModelError, Objective, Quality, from_json, to_json
from headway.stats import tango, wilson

settings.register_profile("steady", deadline=None)  # timing never decides a test
settings.load_profile("steady")


def scores_for(answers: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[answers]


def samples(labels: np.ndarray | None, n: int | None = None, **more: np.ndarray) -> Dataset:
    return Dataset({"x": np.zeros(len(labels) if labels is not None else n or 0)}, labels, source="here", **more)  # type: ignore[arg-type]


def run(name: str, mine: np.ndarray, parent: np.ndarray, data: Dataset, objective: Objective | None = None, **more: int) -> Quality:
    found = compare(
        variant="v", runtime="null", part="selection", metric=metric(name), outputs={"y": mine}, parent_outputs={"y": parent},
        dataset=data, objective=objective, **more,
    )  # fmt: skip
    assert from_json(to_json(found), Quality) == found
    return found


def flipped(n: int, to_wrong: int, to_right: int, classes: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(variant's scores, parent's scores, labels): the parent errs on the last tenth and on those that the variant mends."""
    labels = np.arange(n) % classes
    parent, mine = labels.copy(), labels.copy()
    wrong = n // 10
    parent[n - wrong :] = mine[n - wrong :] = (labels[n - wrong :] + 1) % classes
    mine[:to_wrong] = (labels[:to_wrong] + 1) % classes
    mine[n - to_right :] = labels[n - to_right :]
    return scores_for(mine, classes), scores_for(parent, classes), labels


def test_accuracy_is_paired_and_counts_flips() -> None:
    mine, parent, labels = flipped(200, 7, 3)
    found = run("accuracy", mine, parent, samples(labels))
    expected = tango(7, 3, 200)
    assert found.drop.value == pytest.approx(0.02)
    assert (found.drop.low, found.drop.high) == pytest.approx((expected.low, expected.high))
    assert (found.right_to_wrong, found.wrong_to_right) == (7, 3)
    assert found.agreement == pytest.approx(0.95)
    assert found.parent_value == pytest.approx(0.9)
    assert found.value.value == pytest.approx(0.88)
    assert found.value.low == pytest.approx(wilson(176, 200).low)
    assert found.verdict == found.reason == ""


@given(st.integers(20, 300), st.data())
@settings(max_examples=30)
def test_value_and_drop_agree(n: int, data: st.DataObject) -> None:
    mine, parent, labels = flipped(n, data.draw(st.integers(0, n // 2)), data.draw(st.integers(0, n // 10)))
    found = run("accuracy", mine, parent, samples(labels))
    assert found.drop.value == pytest.approx(found.parent_value - found.value.value)
    assert found.drop.low <= found.drop.value <= found.drop.high
    assert found.value.low <= found.value.value <= found.value.high


@pytest.mark.parametrize("name", ["accuracy", "top2", "f1", "auc", "cosine_to_parent", "agreement"])
def test_the_parent_against_itself_is_proven(name: str) -> None:
    _, parent, labels = flipped(60, 0, 0)
    found = run(name, parent, parent, samples(labels), Objective(drop=0.0))
    assert (found.drop.value, found.drop.low, found.drop.high) == (0, 0, 0)
    assert found.verdict == "proven"
    assert found.agreement == 1


@pytest.mark.parametrize("name", ["accuracy", "f1", "agreement", "recall@2"])
def test_few_unchanged_rows_prove_nothing(name: str) -> None:
    _, parent, labels = flipped(50, 0, 0)
    found = run(name, parent * 1.001, parent, samples(labels), Objective(drop=0.01))
    assert found.drop.value == 0
    assert found.drop.high == pytest.approx(1.96**2 / (50 + 1.96**2), rel=1e-3)
    assert found.verdict == "held"
    assert "more rows" in found.reason


def test_many_unchanged_rows_do() -> None:
    _, parent, labels = flipped(600, 0, 0)
    assert run("accuracy", parent * 1.001, parent, samples(labels), Objective(drop=0.01)).verdict == "proven"


def test_verdict_overall() -> None:
    mine, parent, labels = flipped(1000, 30, 0)
    violated = run("accuracy", mine, parent, samples(labels), Objective(drop=0.01))
    assert violated.verdict == "violated"
    assert violated.reason == ("accuracy lost 3 points on 1000 rows (95% interval 2.11 to 4.25 points), beyond the 1 point allowed")
    assert run("accuracy", mine, parent, samples(labels), Objective(drop=0.035)).verdict == "held"
    assert run("accuracy", mine, parent, samples(labels), Objective(drop=0.05)).verdict == "proven"
    assert run("accuracy", mine, parent, samples(labels), Objective(drop=0.03)).verdict == "held"


def test_clusters_widen_the_interval() -> None:
    mine, parent, labels = flipped(400, 40, 0)
    clusters = np.arange(400) // 20
    alone = run("accuracy", mine, parent, samples(labels))
    together = run("accuracy", mine, parent, samples(labels, clusters=clusters))
    assert together.drop.value == alone.drop.value
    assert together.drop.high - together.drop.low > 2 * (alone.drop.high - alone.drop.low)
    unchanged = run("accuracy", parent * 1.001, parent, samples(labels, clusters=clusters))
    assert unchanged.drop.high > 1.96**2 / (20 + 1.96**2)
    one = run("accuracy", mine, parent, samples(labels, clusters=np.zeros(400)))
    assert one.drop.high > 0.5


def test_relative_error() -> None:
    generator = np.random.default_rng(0)
    labels = generator.normal(size=500)
    parent = labels + generator.normal(size=500)
    mine = labels + (parent - labels) * np.sqrt(1.1)
    found = run("mse", mine, parent, samples(labels), Objective(drop=0.05))
    assert not found.higher_is_better
    assert found.drop.value == pytest.approx(0.1)
    assert found.drop.low == pytest.approx(0.1)
    assert found.verdict == "violated"
    assert "lost 10%" in found.reason
    assert run("mse", mine, parent, samples(labels), Objective(drop=0.11)).verdict == "proven"
    assert found.right_to_wrong is None
    assert run("mse", parent * 1.001, parent, samples(labels)).agreement == 1


def test_an_error_of_zero_in_the_parent_stays_finite() -> None:
    labels = np.linspace(-3, 3, 20)
    assert run("mse", labels + 1e-3, labels, samples(labels), Objective(drop=0.01)).verdict == "violated"


def test_embeddings_without_labels() -> None:
    generator = np.random.default_rng(1)
    parent = generator.normal(size=(300, 16))
    mine = parent + 0.05 * generator.normal(size=parent.shape)
    found = run("cosine_to_parent", mine, parent, samples(None, 300), Objective(drop=0.01))
    assert found.parent_value == pytest.approx(1)
    assert found.drop.value == pytest.approx(1 - found.value.value)
    assert found.verdict == "proven"
    agree = run("agreement", mine, parent, samples(None, 300))
    assert agree.agreement == agree.value.value == pytest.approx(1 - agree.drop.value)
    assert agree.right_to_wrong is None


@pytest.mark.parametrize("name", ["f1", "auc"])
def test_metrics_of_the_whole(name: str) -> None:
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 3, 400)
    parent = scores_for(labels, 3) + generator.normal(size=(400, 3))
    mine = parent + generator.normal(size=(400, 3))
    found = run(name, mine, parent, samples(labels), Objective(drop=0.01))
    assert found.drop.low < found.drop.value < found.drop.high
    assert found.drop.value == pytest.approx(found.parent_value - found.value.value)
    assert found.verdict == "violated"
    assert found == run(name, mine, parent, samples(labels), Objective(drop=0.01))
    assert found.drop != run(name, mine, parent, samples(labels), seed=1).drop
    clustered = run(name, mine, parent, samples(labels, clusters=np.arange(400) // 40))
    assert clustered.drop.value == found.drop.value


def test_classes_are_groups_when_there_are_none() -> None:
    mine, parent, labels = flipped(400, 0, 0)
    mine[np.flatnonzero(labels == 2)[:30]] = scores_for(np.array([0]), 4)
    data = Dataset({"x": np.zeros(400)}, labels, class_names=("a", "b", "c", "d"))
    found = run("accuracy", mine, parent, data)
    assert [group.group for group in found.groups] == ["a", "b", "c", "d"]
    assert found.worst_group is not None
    assert found.worst_group.group == "c"
    assert found.worst_group.n == 100
    assert found.worst_group.drop.value == pytest.approx(0.3)
    by_f1 = run("f1", mine, parent, data).worst_group
    assert by_f1 is not None and by_f1.drop.value == pytest.approx(0.3)
    assert run("auc", mine, parent, data).groups == ()
    few = run("accuracy", mine[:18], parent[:18], samples(labels[:18]))
    assert [group.group for group in few.groups] == ["class 0", "class 1"]


def test_a_group_that_surely_lost_is_found_and_noise_is_not() -> None:
    mine, parent, labels = flipped(2000, 0, 0, classes=10)
    groups = np.array([f"g{row % 20}" for row in range(2000)])
    objective = Objective(group_drop=0.03)
    noisy, lost = mine.copy(), mine.copy()
    noisy[np.flatnonzero(groups == "g7")[:5]] = 0
    noisy[np.flatnonzero(groups == "g7")[:5], (labels[groups == "g7"][:5] + 1) % 10] = 1
    lost[np.flatnonzero(groups == "g7")[:40]] = 0
    lost[np.flatnonzero(groups == "g7")[:40], (labels[groups == "g7"][:40] + 1) % 10] = 1
    fine = run("accuracy", noisy, parent, samples(labels, groups=groups), objective)
    assert fine.verdict == "held"
    assert "within the noise of 20 small groups" in fine.reason
    bad = run("accuracy", lost, parent, samples(labels, groups=groups), objective)
    assert bad.verdict == "violated"
    assert "in group 'g7' accuracy lost 40 points on 100 rows" in bad.reason
    both = run("accuracy", lost, parent, samples(labels, groups=groups), Objective(drop=0.5, group_drop=0.03))
    assert both.verdict == "violated"


def test_noise_over_many_groups_seldom_rejects() -> None:
    generator = np.random.default_rng(3)
    rejected = 0
    for _ in range(60):
        labels = np.zeros(1000, dtype=int)
        parent, mine = (generator.random((1000, 2)) < 0.05).argmax(1), (generator.random((1000, 2)) < 0.05).argmax(1)
        data = samples(labels, groups=generator.integers(0, 25, 1000).astype(str))
        found = run("accuracy", scores_for(mine, 2), scores_for(parent, 2), data, Objective(group_drop=0.02))
        rejected += found.verdict == "violated"
    assert rejected <= 6


def test_a_large_group_is_judged_by_its_estimate() -> None:
    mine, parent, labels = flipped(4000, 0, 0)
    groups = np.array(["big"] * 3600 + ["small"] * 400)
    mine[:40] = np.roll(parent[:40], 1, axis=1)
    found = run("accuracy", mine, parent, samples(labels, groups=groups), Objective(group_drop=0.01))
    assert found.verdict == "violated"
    assert "'big'" in found.reason
    assert run("accuracy", mine, parent, samples(labels, groups=groups), Objective(group_drop=0.02)).verdict == "proven"


def test_groups_too_small_to_judge() -> None:
    mine, parent, labels = flipped(40, 5, 0)
    found = run("accuracy", mine, parent, samples(labels, groups=np.arange(40).astype(str)), Objective(group_drop=0.01))
    assert found.verdict == "held"
    assert "no group has the 5 rows" in found.reason


def test_groups_of_other_metrics() -> None:
    generator = np.random.default_rng(4)
    parent = generator.normal(size=(200, 8))
    groups = np.repeat(["x", "y"], 100)
    mine = parent + np.where(groups == "y", 2.0, 0.01)[:, None] * generator.normal(size=parent.shape)
    found = run("cosine_to_parent", mine, parent, samples(None, 200, groups=groups), Objective(group_drop=0.05))
    assert found.verdict == "violated"
    assert "'y'" in found.reason
    labels = np.where(groups == "x", 0, np.arange(200) % 2)
    one_sided = run("auc", mine[:, 0], parent[:, 0], samples(labels, groups=groups))
    assert [group.group for group in one_sided.groups] == ["y"]


@pytest.mark.parametrize("name", ["accuracy", "f1", "auc", "mse", "agreement"])
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rows", [3, 60])
def test_outputs_that_are_not_finite_violate(name: str, poison: float, rows: int) -> None:
    labels = np.arange(60) % 2
    parent = np.where(labels == 1, 0.8, 0.3) + np.linspace(-0.15, 0.15, 60)
    mine = parent.copy()
    mine[-rows:] = poison
    for objective in (None, Objective(drop=0.5)):
        found = run(name, mine, parent, samples(labels), objective)
        assert found.verdict == "violated"
        assert found.reason.startswith(NOT_FINITE)
        assert f"{rows} of 60" in found.reason or "every row" in found.reason


def test_infinity_that_the_parent_has_too_is_no_fault() -> None:
    mine, parent, labels = flipped(100, 0, 0)
    parent[:, 3], mine[:, 3] = -np.inf, -np.inf
    assert run("accuracy", mine, parent, samples(labels), Objective(drop=0.5)).verdict == "proven"
    with pytest.raises(DataError, match="must be finite"):
        run("cosine_to_parent", mine, parent, samples(labels))


def test_half_precision_does_not_overflow() -> None:
    labels = np.full(50, 3.0)
    outputs = np.full(50, 3.0, dtype=np.float16)
    assert run("mse", outputs + np.float16(300), outputs, samples(labels)).value.value == pytest.approx(90_000)


def test_hostile_arguments() -> None:
    mine, parent, labels = flipped(40, 1, 0)
    broken = parent.copy()
    broken[7, 0] = np.nan
    with pytest.raises(DataError, match="NaN in row 7"):
        run("accuracy", mine, broken, samples(labels))
    with pytest.raises(DataError, match="needs labels, got none"):
        run("accuracy", mine, parent, samples(None, 40))
    with pytest.raises(ModelError, match="its parent's shape"):
        run("accuracy", mine[:, :3], parent, samples(labels))
    with pytest.raises(ModelError, match="one row a sample, got 40 rows for 39"):
        run("accuracy", mine, parent, samples(labels[:39]))
    with pytest.raises(DataError, match="at least one row"):
        run("accuracy", mine[:0], parent[:0], samples(labels[:0]))
    with pytest.raises(DataError, match="group_drop needs groups"):
        run("cosine_to_parent", mine, parent, samples(None, 40), Objective(group_drop=0.1))
    with pytest.raises(DataError, match="at most 1000 groups, got 1500"):
        many = np.arange(1500).astype(str)
        run("agreement", np.ones((1500, 2)), np.ones((1500, 2)), samples(None, 1500, groups=many))


def test_one_row_is_enough_to_run() -> None:
    mine, parent, labels = flipped(1, 1, 0)
    found = run("accuracy", mine, parent, samples(labels), Objective(drop=0.01, group_drop=0.1))
    assert found.verdict == "violated"


def test_own_metric_gets_all_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_quality.py").write_text("def share(outputs, labels):\n    return float((outputs['y'].argmax(1) == labels).mean())\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    mine, parent, labels = flipped(200, 7, 3)
    own, named = (run(name, mine, parent, samples(labels), Objective(drop=0.01)) for name in ("python:own_quality:share", "accuracy"))
    assert own.drop.value == pytest.approx(named.drop.value)
    assert own.drop.high == pytest.approx(named.drop.high, abs=0.01)
    assert own.verdict == named.verdict == "violated"


def test_many_rows_run_in_bounded_memory() -> None:
    generator = np.random.default_rng(6)
    labels = generator.integers(0, 10, 10_000)
    parent = scores_for(labels, 10) + generator.normal(size=(10_000, 10)).astype(np.float32)
    for name in ("accuracy", "cosine_to_parent", "f1"):
        assert run(name, parent + 0.01, parent, samples(labels)).n == 10_000

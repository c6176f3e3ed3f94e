"""Metrics by name against their definitions and scikit-learn, and the default choice."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

from headway.quality import METRICS, default_metric, metric
from headway.quality.pair import pair
from headway.records import ConfigError, DataError, ModelError

settings.register_profile("steady", deadline=None)  # timing never decides a test
settings.load_profile("steady")

RANDOM = np.random.default_rng(0)
SCORES = RANDOM.normal(size=(60, 6)).astype(np.float32)
LABELS = RANDOM.integers(0, 6, 60)


def value(name: str, scores: np.ndarray, labels: np.ndarray | None = None, parent: np.ndarray | None = None) -> float:
    return metric(name).value({"y": scores}, labels, None if parent is None else {"y": parent})


def test_accuracy() -> None:
    assert value("accuracy", SCORES, LABELS) == np.mean(SCORES.argmax(1) == LABELS)
    assert value("accuracy", SCORES, LABELS[:, None]) == np.mean(SCORES.argmax(1) == LABELS)
    assert value("accuracy", LABELS.astype(np.int64), LABELS) == 1


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_one_column_is_yes_or_no(shape: tuple[int, ...]) -> None:
    labels = np.array([0, 0, 1, 1])
    assert value("accuracy", np.array([-2.0, -0.1, 0.1, 3.0]).reshape(shape), labels) == 1
    assert value("accuracy", np.array([0.1, 0.4, 0.6, 0.9]).reshape(shape), labels) == 1


def test_the_parent_says_whether_it_is_a_probability() -> None:
    logits = np.array([-2.0, 0.2, 0.4, 3.0])
    assert value("accuracy", logits[1:3], np.array([1, 1]), logits) == 1
    assert value("accuracy", logits[1:3], np.array([1, 1]), logits[1:3]) == 0


def test_answers_by_position() -> None:
    scores = np.zeros((2, 3, 4))
    scores[:, :, 1] = 1
    assert value("accuracy", scores, np.array([[1, 1, 1], [1, 0, 0]])) == pytest.approx((1 + 1 / 3) / 2)


@given(st.integers(1, 6))
def test_top_k_and_hit_ratio(k: int) -> None:
    order = np.argsort(-SCORES, axis=1)[:, :k]
    expected = np.mean([label in row for label, row in zip(LABELS, order, strict=True)])
    for name in (f"top{k}", f"hr@{k}", f"recall@{k}"):
        assert value(name, SCORES, LABELS) == pytest.approx(expected)


def test_ties_count_against_the_model() -> None:
    assert value("hr@1", np.zeros((5, 4)), np.zeros(5, int)) == 0
    assert value("hr@4", np.zeros((5, 4)), np.zeros(5, int)) == 1


def test_recall_of_several_items() -> None:
    scores = np.array([[0.9, 0.8, 0.1, 0.0], [0.0, 0.1, 0.8, 0.9]])
    hot = np.array([[1, 0, 0, 1], [0, 0, 1, 1]])
    listed = np.array([[0, 3, -1], [2, 3, -1]])
    assert value("recall@2", scores, hot) == value("recall@2", scores, listed) == 0.75
    with pytest.raises(DataError, match="none in row 1"):
        value("recall@2", scores, np.array([[1, 0, 0, 0], [0, 0, 0, 0]]))
    with pytest.raises(DataError, match="below 4"):
        value("recall@2", scores, np.array([[7], [1]]))


def test_f1_and_auc_are_those_of_scikit_learn() -> None:
    assert value("f1", SCORES, LABELS) == pytest.approx(f1_score(LABELS, SCORES.argmax(1), average="macro"))
    shares = np.exp(SCORES.astype(np.float64))
    shares /= shares.sum(1, keepdims=True)
    expected = roc_auc_score(LABELS, shares, multi_class="ovr", average="macro")
    assert value("auc", SCORES, LABELS) == pytest.approx(expected)
    assert value("auc", shares, LABELS) == pytest.approx(expected)
    yes = LABELS % 2
    for scores in (SCORES[:, 0], SCORES[:, :1], np.stack([-SCORES[:, 0], SCORES[:, 0]], axis=1)):
        assert value("auc", scores, yes) == pytest.approx(roc_auc_score(yes, SCORES[:, 0]))
    many = (RANDOM.random((60, 6)) < 0.5).astype(int)
    assert value("auc", SCORES, many) == pytest.approx(roc_auc_score(many, SCORES, average="macro"))


@pytest.mark.parametrize(("name", "labels"), [("f1", LABELS), ("f1", LABELS % 2), ("auc", LABELS), ("auc", LABELS % 2)])
def test_the_fast_statistic_is_the_metric(name: str, labels: np.ndarray) -> None:
    scores = np.round(SCORES, 1) if labels.max() > 1 else np.round(SCORES[:, :2], 1)
    both = pair(metric(name), {"y": scores}, {"y": scores}, labels, 60)
    assert both.statistics is not None
    for seed in range(5):
        rows = np.random.default_rng(seed).integers(0, 60, 60)
        assert both.statistics[0](rows) == pytest.approx(value(name, scores[rows], labels[rows]))


def test_auc_needs_two_kinds() -> None:
    with pytest.raises(DataError, match="one kind only for class 0"):
        value("auc", SCORES[:, 0], np.ones(60, int))


def test_errors_and_angles() -> None:
    target = SCORES + 0.5
    assert value("mse", SCORES, target) == pytest.approx(0.25, rel=1e-5)
    assert value("mae", SCORES, target) == pytest.approx(0.5, rel=1e-5)
    assert value("mse", SCORES[:, :1], target[:, 0]) == pytest.approx(0.25, rel=1e-5)
    assert value("cosine", SCORES, 3 * SCORES) == pytest.approx(1)
    assert value("cosine", SCORES, -SCORES) == pytest.approx(-1)
    assert value("cosine", np.zeros((2, 3)), np.array([[0.0, 0, 0], [1, 0, 0]])) == 0.5
    with pytest.raises(DataError, match="shape of the output"):
        value("mse", SCORES, target[:, :2])


def test_against_the_parent() -> None:
    other = SCORES.copy()
    other[:6] = -other[:6]
    assert value("agreement", SCORES, None, SCORES) == 1
    assert value("agreement", other, None, SCORES) == pytest.approx(0.9)
    assert value("cosine_to_parent", other, None, SCORES) == pytest.approx((54 - 6) / 60)
    assert value("closeness_to_parent", SCORES, None, SCORES) == 1
    assert value("closeness_to_parent", SCORES + SCORES.std() / 2, None, SCORES) == pytest.approx(0.5, abs=1e-5)


def test_a_named_output() -> None:
    outputs = {"other": -SCORES, "logits": SCORES}
    assert metric("accuracy@logits").value(outputs, LABELS) == value("accuracy", SCORES, LABELS)
    assert metric("recall@2@logits").value(outputs, LABELS) == value("recall@2", SCORES, LABELS)
    assert metric("accuracy@logits").name == "accuracy@logits"
    with pytest.raises(ModelError, match="'nothing', got other, logits"):
        metric("accuracy@nothing").value(outputs, LABELS)
    with pytest.raises(ModelError, match="got none"):
        metric("accuracy").value({}, LABELS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acuracy", "did you mean 'accuracy'"),
        ("top0", "at least 1, got 0"),
        ("hr", "did you mean 'hr@"),
        ("", "NAME@OUTPUT"),
        ("python:nowhere", "python:module:callable"),
        ("python:no_such_module_here:f", "must import"),
        ("python:math:pi", "must have a callable 'pi', got float"),
    ],
)
def test_unknown_metrics(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        metric(name)


def test_own_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "def worst(outputs, labels):\n    return abs(outputs['y'][:, 0] - labels).max()\nworst.higher_is_better = False\n"
    (tmp_path / "own_metric.py").write_text(body + "worst.relative = True\ndef broken(outputs, labels):\n    return 'x'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    own = metric("python:own_metric:worst")
    assert not own.higher_is_better
    assert own.relative
    assert own.value({"y": SCORES}, LABELS) == pytest.approx(abs(SCORES[:, 0] - LABELS).max())
    with pytest.raises(ConfigError, match="must return a number, got ValueError"):
        metric("python:own_metric:broken").value({"y": SCORES}, LABELS)


def test_every_listed_name_works() -> None:
    for name in METRICS:
        if ":" not in name:
            assert metric(name.replace("K", "3")).name


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (SCORES, LABELS + 1, "between 0 and 5, as the model has 6 classes, got 6; do they count from 1"),
        (SCORES, LABELS - 1, "got -1"),
        (SCORES, LABELS + 0.5, "whole numbers"),
        (SCORES, np.array(["a"] * 60), "whole numbers"),
        (SCORES, np.zeros((60, 3), int), "one label an answer"),
    ],
)
def test_labels_that_do_not_fit(scores: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        value("accuracy", scores, labels)


@pytest.mark.parametrize("name", ["top2", "hr@2", "recall@2"])
def test_metrics_of_columns_need_columns(name: str) -> None:
    with pytest.raises(DataError, match="needs one score"):
        value(name, SCORES[:, 0], LABELS)


UNIT = SCORES / np.linalg.norm(SCORES, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("scores", "labels", "name"),
    [
        (SCORES, LABELS, "accuracy"),
        (SCORES, LABELS.astype(np.float32), "accuracy"),
        (SCORES, LABELS[:, None], "accuracy"),
        (SCORES[:, 0], LABELS % 2, "accuracy"),
        (SCORES[:, :1], LABELS % 2, "accuracy"),
        (LABELS.astype(np.int64), LABELS, "accuracy"),
        (SCORES.reshape(20, 3, 6), LABELS.reshape(20, 3), "accuracy"),
        (SCORES[:, :1], LABELS * 1.5, "mse"),
        (SCORES[:, 0], LABELS, "mse"),
        (SCORES, SCORES, "mse"),
        (SCORES, UNIT, "cosine"),
        (SCORES, (SCORES > 0).astype(int), "auc"),
        (SCORES, None, "agreement"),
        (UNIT, None, "cosine_to_parent"),
        (SCORES.reshape(60, 2, 3), None, "cosine_to_parent"),
        (np.eye(6), None, "agreement"),
        (SCORES[:, :1], None, "closeness_to_parent"),
        (UNIT[:, 0] ** 2, None, "agreement"),
    ],
)
def test_default_metric(scores: np.ndarray, labels: np.ndarray | None, name: str) -> None:
    assert default_metric({"y": scores}, labels).name == name


def test_default_metric_refuses_labels_that_count_from_one() -> None:
    with pytest.raises(DataError, match="count from 0"):
        default_metric({"y": SCORES}, LABELS + 1)

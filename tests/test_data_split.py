"""The parts: disjoint, complete, repeatable, fair to classes, and clusters whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.data import Dataset, Shares, split, summary
from headway.data.split import split_indices
from headway.records import DataError

settings.register_profile("steady", deadline=None)  # timing never decides a test
settings.load_profile("steady")

classes = st.lists(st.integers(0, 6), min_size=10, max_size=200)


def data_of(labels: list[int] | None, n: int, clusters: np.ndarray | None = None) -> Dataset:
    return Dataset({"x": np.arange(n)}, None if labels is None else np.array(labels), clusters=clusters, source="here")


@given(classes, st.integers(0, 5))
def test_parts_are_disjoint_complete_repeatable_and_stratified(labels: list[int], seed: int) -> None:
    n = len(labels)
    data = data_of(labels, n)
    parts = split_indices(data, seed=seed, shares=Shares())
    assert sorted(np.concatenate(parts)) == list(range(n))
    again = split_indices(data, seed=seed, shares=Shares())
    assert all(np.array_equal(one, two) for one, two in zip(parts, again, strict=True))
    sizes = [len(part) for part in parts]
    assert min(sizes) >= 1
    assert abs(sizes[0] - 0.2 * n) <= 1
    assert abs(sizes[1] - sizes[2]) <= 1
    for label in set(labels):
        count = labels.count(label)
        for part, size in zip(parts, sizes, strict=True):
            inside = int(np.sum(np.array(labels)[part] == label))
            assert abs(inside - count * size / n) <= 1


@given(st.lists(st.integers(0, 30), min_size=30, max_size=200), st.integers(0, 3))
def test_clusters_stay_whole(members: list[int], seed: int) -> None:
    clusters = np.array(members)
    data = data_of([number % 3 for number in members], len(members), clusters)
    if len(set(members)) < 5:
        return
    parts = split_indices(data, seed=seed, shares=Shares())
    assert sorted(np.concatenate(parts)) == list(range(len(members)))
    inside = [set(clusters[part].tolist()) for part in parts]
    assert not inside[0] & inside[1] and not inside[0] & inside[2] and not inside[1] & inside[2]
    assert min(len(part) for part in parts) >= 1


def test_many_small_classes_leave_no_part_empty() -> None:
    parts = split_indices(data_of([row // 2 for row in range(100)], 100), seed=0, shares=Shares())
    assert [len(part) for part in parts] == [20, 40, 40]


def test_calibration_is_capped() -> None:
    parts = split_indices(data_of([row % 10 for row in range(10_000)], 10_000), seed=0, shares=Shares())
    assert [len(part) for part in parts] == [512, 4744, 4744]


def test_rows_inside_a_part_are_in_random_order() -> None:
    parts = split(data_of([row // 100 for row in range(1000)], 1000), seed=0)
    first = parts.selection.take(range(100)).labels
    assert first is not None and len(set(first.tolist())) == 10


def test_other_seed_other_parts_and_shares() -> None:
    data = data_of(None, 50)
    assert not np.array_equal(split(data, seed=0).report.inputs["x"], split(data, seed=1).report.inputs["x"])
    assert len(split(data, seed=0, shares=Shares(calibration=0.5, selection=0.2)).selection) == 5
    with pytest.raises(DataError, match="share between 0 and 1"):
        split(data, seed=0, shares=Shares(selection=1.0))


@pytest.mark.parametrize("labels", [np.linspace(0, 1, 20), np.zeros((20, 3)), np.arange(20)])
def test_labels_that_are_no_classes_split_too(labels: np.ndarray) -> None:
    parts = split(Dataset({"x": np.arange(20)}, labels), seed=0)
    assert [len(part) for part in (parts.calibration, parts.selection, parts.report)] == [4, 8, 8]


def test_refuses_too_little_and_leaks() -> None:
    with pytest.raises(DataError, match="at least 5 clusters"):
        split(data_of(None, 100, np.arange(100) % 4), seed=0)
    with pytest.raises(DataError, match="at least 5 rows"):
        split(data_of(None, 0), seed=0)
    with pytest.raises(DataError, match="must be other rows"):
        split(data_of(None, 20), seed=0, train=data_of(None, 20))


def test_summary_counts_and_names() -> None:
    data = Dataset({"x": np.arange(20)}, np.arange(20) % 2, np.array(["m", "w"] * 10), source="here")
    train = data_of(None, 7)
    record = summary(split(data, seed=0, train=train), data, "accuracy")
    assert (record.n, record.calibration, record.selection, record.report, record.train) == (20, 4, 8, 8, 7)
    assert record.labelled
    assert record.groups == ("m", "w")
    assert record.digest == data.digest
    assert record.metric == "accuracy"

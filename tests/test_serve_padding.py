"""Requests of different lengths in one batch: filled up, cut back, and only where the answers stay as they are."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from headway.records import BundleError, ConfigError, Plan, TensorSpec
from headway.serve.padding import Padding, rung
from serving import bundle, entry, lookup_model, running, save, value

IDS = TensorSpec(name="ids", dtype="int64", shape=("batch", "length"))
MASK = TensorSpec(name="mask", dtype="float32", shape=("batch", "length"))
EACH = TensorSpec(name="each", dtype="float32", shape=("batch", "length"))


@given(st.integers(1, 10**6))
def test_at_most_half_a_row_is_filling(size: int) -> None:
    assert size <= rung(size) < max(2, 2 * size)
    assert rung(rung(size)) == rung(size)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 9)), min_size=1, max_size=5))
def test_what_is_filled_up_is_cut_back(shapes: list[tuple[int, int]]) -> None:
    padding = Padding([IDS], [EACH], {"ids": 7})
    arrays = [np.arange(rows * length).reshape(rows, length) for rows, length in shapes]
    joined = padding.join("ids", arrays)
    first = 0
    for array in arrays:
        part = joined[first : first + len(array)]
        np.testing.assert_array_equal(padding.cut("each", part, {"ids": array}), array)
        assert (part[:, array.shape[1] :] == 7).all()
        first += len(array)


@pytest.mark.parametrize(
    ("inputs", "outputs", "values"),
    [
        ([IDS, MASK], [EACH], {"ids": 0}),
        ([IDS], [EACH], {"ids": 0, "other": 1}),
        ([IDS], [TensorSpec(name="y", dtype="float32", shape=("batch", "positions"))], {"ids": 0}),
        ([TensorSpec(name="ids", dtype="int64", shape=("batch", "?"))], [], {"ids": 0}),
    ],
)
def test_padding_that_does_not_fit_the_model_is_refused(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], values: dict[str, float]
) -> None:
    with pytest.raises(ConfigError):
        Padding(inputs, outputs, values)


def masked_model(path: Path) -> Path:
    """``v``: the mean of a table's entries at the ids whose mask is not 0; ``each``: entry times mask, one a place."""
    weights = [numpy_helper.from_array(np.arange(10, dtype=np.float32), "table"), numpy_helper.from_array(np.array([1], np.int64), "axes")]
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["g"]),
        helper.make_node("Mul", ["g", "mask"], ["each"]),
        helper.make_node("ReduceSum", ["each", "axes"], ["total"]),
        helper.make_node("ReduceSum", ["mask", "axes"], ["count"]),
        helper.make_node("Div", ["total", "count"], ["v"]),
    ]
    inputs = [value("ids", ["batch", "length"], TensorProto.INT64), value("mask", ["batch", "length"])]
    return save(path, nodes, inputs, [value("v", ["batch", 1]), value("each", ["batch", "length"])], weights)


def test_different_lengths_share_a_batch_and_each_gets_its_own_answer(tmp_path: Path) -> None:
    golden = {"ids": np.array([[1, 2, 3, 4]]), "mask": np.ones((1, 4), np.float32)}
    opened = bundle(
        tmp_path / "b", entry(masked_model(tmp_path / "m.onnx"), plan=Plan(runtime="onnx_runtime", max_batch=16)), samples=golden
    )
    lengths = [5, 6] * 40

    def ask(length: int) -> tuple[list[float], list[float]]:
        ids = [(length + place) % 10 for place in range(length)]
        inputs = [
            {"name": "ids", "datatype": "INT64", "shape": [1, length], "data": ids},
            {"name": "mask", "datatype": "FP32", "shape": [1, length], "data": [1.0] * length},
        ]
        asked = urllib.request.Request(f"{ready.url}/v2/models/tiny/infer", json.dumps({"inputs": inputs}).encode())
        with urllib.request.urlopen(asked, timeout=20) as answer:
            told = {output["name"]: output for output in json.load(answer)["outputs"]}
        assert told["each"]["shape"] == [1, length]
        np.testing.assert_allclose(told["each"]["data"], ids)
        return told["v"]["data"], [float(np.mean(ids))]

    with running(opened, pad={"ids": 0, "mask": 0}, deadline_s=60.0) as ready, ThreadPoolExecutor(40) as pool:
        for got, expected in pool.map(ask, lengths):
            np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_where_filling_up_changes_the_answers_nothing_is_served(tmp_path: Path) -> None:
    opened = bundle(tmp_path / "b", entry(lookup_model(tmp_path / "l.onnx")), samples={"ids": np.array([[1, 2, 3]])})
    with pytest.raises(BundleError, match="changes output 'v'"), running(opened, pad={"ids": 0}):
        pass

"""Every runtime file passes the shipped contract suite; a new file is picked up without a list to edit."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from headway.records import ConfigError, DataError, ModelError, Plan, TensorSpec, Unsupported
from headway.runtime import asked_only, census, check_feeds, open_session, refuse, runtimes, versions
from headway.testing.runtimes import ROWS, Case, Runtime, RuntimeContract, onnx_case

TAU0_S, ALPHA_S = 0.002, 0.0005
OWN_GRAPHS = {name for name, module in runtimes().present.items() if hasattr(module, "SUFFIX")}


SLOW = set(asked_only())
"""They compile for long, and have a file of tests of their own."""


@pytest.mark.parametrize("name", sorted(set(runtimes().present) - OWN_GRAPHS - SLOW), scope="class")
class TestEveryRuntime(RuntimeContract):
    @pytest.fixture(scope="class")
    @classmethod
    def runtime(cls, name: str) -> Runtime:
        return cast(Runtime, runtimes().present[name])


def null_graph(path: Path, tau0_s: float = TAU0_S, alpha_s: float = ALPHA_S, **changes: object) -> Path:
    graph = {
        "tau0_s": tau0_s,
        "alpha_s": alpha_s,
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["n", 3]}, {"name": "k", "dtype": "int64", "shape": ["n"]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["n", 2]}, {"name": "a", "dtype": "float64", "shape": ["n"]}],
    }
    path.write_text(json.dumps({**graph, **changes}))
    return path


class TestNull(RuntimeContract):
    reads_onnx = False

    @pytest.fixture(scope="class")
    @classmethod
    def runtime(cls) -> Runtime:
        return cast(Runtime, runtimes().present["null"])

    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, tmp_path_factory: pytest.TempPathFactory) -> Case:
        rng = np.random.default_rng(0)
        feeds = {"x": rng.normal(0, 1, (ROWS, 3)).astype(np.float32), "k": np.arange(ROWS)}
        sums = feeds["x"].astype(np.float64).sum(axis=1) + feeds["k"]
        specs = [
            TensorSpec(name=n, dtype=d, shape=s)
            for n, d, s in [("x", "float32", ("n", 3)), ("k", "int64", ("n",)), ("y", "float32", ("n", 2)), ("a", "float64", ("n",))]
        ]
        path = null_graph(tmp_path_factory.mktemp("null") / "it.null.json", 1e-4, 1e-5)
        return Case(path, tuple(specs[:2]), tuple(specs[2:]), feeds, {"y": np.repeat(sums[:, None], 2, axis=1), "a": sums})


def test_no_runtime_is_missing_here() -> None:
    assert runtimes().missing == {}
    assert {"onnx_runtime", "openvino", "null"} <= set(runtimes().present)
    assert {"onnxruntime", "openvino"} <= set(versions())


def test_null_takes_at_least_the_time_it_states(tmp_path: Path) -> None:
    session = open_session(Plan(runtime="null"), null_graph(tmp_path / "it.null.json"))
    for rows in (1, 4, 16):
        feeds = {"x": np.zeros((rows, 3), np.float32), "k": np.zeros(rows, np.int64)}
        began = time.perf_counter()
        session.run(feeds)
        assert time.perf_counter() - began >= TAU0_S + ALPHA_S * rows


@pytest.mark.parametrize(
    "changes",
    [{"tau0_s": -1}, {"alpha_s": "fast"}, {"inputs": []}, {"more": 1}, {"outputs": [{"name": "y", "dtype": "float33", "shape": ["n"]}]},
     {"outputs": [{"name": "y", "dtype": "float32", "shape": []}]}],
)  # fmt: skip
def test_a_null_graph_is_checked(tmp_path: Path, changes: dict[str, object]) -> None:
    path = null_graph(tmp_path / "it.null.json", **changes)
    assert refuse("null", path)
    with pytest.raises(ModelError):
        open_session(Plan(runtime="null"), path)


def test_null_refuses_unequal_rows(tmp_path: Path) -> None:
    session = open_session(Plan(runtime="null"), null_graph(tmp_path / "it.null.json"))
    with pytest.raises(DataError, match="same number of rows"):
        session.run({"x": np.zeros((2, 3), np.float32), "k": np.zeros(3, np.int64)})


def test_an_unknown_runtime_or_device_gets_a_hint(tmp_path: Path) -> None:
    path = onnx_case("mlp", tmp_path).path
    with pytest.raises(ConfigError, match="did you mean 'openvino'"):
        open_session(Plan(runtime="openvno"), path)
    with pytest.raises(ConfigError, match=r"known are .*onnx_runtime"):
        refuse("zzz", path)
    for call in (lambda: open_session(Plan(runtime="onnx_runtime", device="tpu"), path), lambda: refuse("onnx_runtime", path, "tpu")):
        with pytest.raises(ConfigError, match="must be one of cpu, cuda, tensorrt, got 'tpu'"):
            call()
    with pytest.raises(Unsupported, match="no census for null"):
        census("null", path, "v")
    with pytest.raises(Unsupported, match="no census for onnx_runtime on cuda"):
        census("onnx_runtime", path, "v", "cuda")


def cast_graph(path: Path, kind: int) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", kind, ["n", 2])],
        [helper.make_tensor_value_info("y", kind, ["n", 2])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def test_openvino_does_not_compute_less_than_was_asked_in_silence(tmp_path: Path) -> None:
    double = cast_graph(tmp_path / "double.onnx", TensorProto.DOUBLE)
    assert "float64" in str(refuse("openvino", double))
    with pytest.raises(Unsupported, match="float64"):
        open_session(Plan(runtime="openvino"), double)
    session = open_session(Plan(runtime="openvino"), cast_graph(tmp_path / "long.onnx", TensorProto.INT64))
    assert session.run({"x": np.full((1, 2), 2**30 - 1)})["y"].tolist() == [[2**31 - 2] * 2]
    with pytest.raises(DataError, match="32 bits"):
        session.run({"x": np.full((1, 2), 2**40)})


def test_onnx_runtime_computes_what_openvino_refuses(tmp_path: Path) -> None:
    session = open_session(Plan(runtime="onnx_runtime"), cast_graph(tmp_path / "double.onnx", TensorProto.DOUBLE))
    assert session.run({"x": np.full((1, 2), 1 + 1e-12)})["y"].tolist() == [[2 + 2e-12] * 2]


def test_the_suite_catches_a_hidden_bfloat16_and_swapped_names(tmp_path: Path) -> None:
    case = onnx_case("mlp", tmp_path)
    real = runtimes().present["onnx_runtime"]

    class Narrow:
        def __init__(self, path: Path) -> None:
            self._session = real.open_session(path, threads=1)
            self.inputs, self.outputs = self._session.inputs, self._session.outputs[::-1]

        def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {name: array.astype(ml_dtypes.bfloat16).astype(np.float32) for name, array in self._session.run(feeds).items()}

        def close(self) -> None:
            self._session.close()

    def opened(path: Path, *, threads: int, device: str = "cpu") -> Narrow:
        return Narrow(path)

    fake = cast(Runtime, SimpleNamespace(open_session=opened, refuse=real.refuse, DEVICES=("cpu",)))
    with pytest.raises(AssertionError, match="narrower type"):
        RuntimeContract().test_answers_are_right_at_every_batch_size(fake, case, 1)
    two = onnx_case("outputs_behind_identity", tmp_path)
    with pytest.raises(AssertionError):
        RuntimeContract().test_names_types_and_order_are_the_graph_s(fake, two)


def test_feeds_are_checked_for_names_types_and_fixed_sizes() -> None:
    inputs = (TensorSpec(name="x", dtype="float32", shape=("n", 3, "?")),)
    check_feeds(inputs, {"x": np.zeros((5, 3, 7), np.float32)})
    for array in (np.zeros((5, 4, 7), np.float32), np.zeros((5, 3), np.float32), np.zeros((5, 3, 7))):
        with pytest.raises(DataError, match="'x' must"):
            check_feeds(inputs, {"x": array})

"""Graphs compiled by torch: the contract on every small graph, the real compiler on three of them, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch._dynamo.utils import counters

from headway.records import ConfigError, DataError, Plan, Unsupported
from headway.runtime import asked_only, devices, open_session, refuse
from headway.runtime.runtimes import torch_compiled
from headway.runtime.runtimes.torch_compiled import Compiled, TorchSession
from headway.runtime.sharing import Shared
from headway.testing.runtimes import EXACT, NARROW, ROWS, RUNTIME_GRAPHS, Case, Runtime, RuntimeContract, error_of, is_sentence, onnx_case

CHEAP = "aot_eager"
"""Torch's compiler without its last step, the making of kernels: tracing, free dimensions and decompositions are the real ones."""
SAME_AS_OTHERS = {"cnn_opset_11", "constant_nodes"}
"""Once lifted these are the graphs ``cnn`` and ``residual``; the lift's own tests see the difference."""
PLAN = Plan(runtime="torch_compiled")


@pytest.fixture(autouse=True)
def no_session_is_left() -> Iterator[None]:
    """A session that a failed test left open must not refuse those of the next; and torch gets its threads back."""
    threads = torch.get_num_threads()
    yield
    torch_compiled._open.clear()
    torch.set_num_threads(threads)


class Kept(Shared[Compiled]):
    """What was compiled outlives its sessions, so that the tests on one file compile it once."""

    def __init__(self) -> None:
        super().__init__()
        self._all: list[Compiled] = []

    def get(self, path: Path, make: Callable[[Path], Compiled]) -> Compiled:
        self._all.append(super().get(path, make))
        return self._all[-1]


@pytest.fixture(scope="module")
def cheap_programs() -> dict[str, Kept]:
    return {device: Kept() for device in torch_compiled.DEVICES}


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch, cheap_programs: dict[str, Kept]) -> None:
    monkeypatch.setattr(torch_compiled, "BACKEND", CHEAP)
    monkeypatch.setattr(torch_compiled, "_programs", cheap_programs)


@pytest.mark.usefixtures("cheap")
class TestEveryGraph(RuntimeContract):
    @pytest.fixture(scope="class")
    @classmethod
    def runtime(cls) -> Runtime:
        return cast(Runtime, torch_compiled)

    @pytest.fixture(scope="class", params=sorted(set(RUNTIME_GRAPHS) - SAME_AS_OTHERS))
    @classmethod
    def case(cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
        return onnx_case(request.param, tmp_path_factory.mktemp("torch"))


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder of this module's own for compiled kernels, so that the compiler is really called."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("kernels")))
        yield


@pytest.mark.usefixtures("kernels")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # the compiler's own imports
@pytest.mark.parametrize("graph", ["mlp", "outputs_behind_identity", pytest.param("residual", marks=pytest.mark.slow)])
def test_two_compiled_programs_serve_every_batch_size(graph: str, tmp_path: Path) -> None:
    case = onnx_case(graph, tmp_path)
    counters.clear()
    session = open_session(PLAN, case.path)
    first = session.run(case.rows(0, 2))
    kept = {name: array.copy() for name, array in first.items()}
    for rows in range(1, ROWS + 1):
        assert error_of(session.run(case.rows(0, rows)), case.answers) < EXACT
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])
    session.close()
    assert error_of(first, case.answers) < EXACT, "outputs outlive their session"
    assert counters["stats"]["unique_graphs"] == 2, "one for a single row, one for every other number"
    assert not counters["graph_break"], "the graph is compiled in one piece"
    assert counters["inductor"], "the real compiler was at work"


def saved(path: Path, nodes: list[onnx.NodeProto], shape: list[str | int], *weights: onnx.TensorProto, out: int = 2) -> Path:
    """A graph from ``x`` to ``y``, both float32, on disk."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"] + [None] * (out - 1))],
        list(weights),
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def test_quantized_nodes_are_refused(tmp_path: Path) -> None:
    scale, zero = numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.uint8(0), "z")
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]), helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"])]
    path = saved(tmp_path / "q.onnx", nodes, ["n", 4], scale, zero)
    reason = refuse("torch_compiled", path)
    assert is_sentence(reason) and "QuantizeLinear" in str(reason) and "use onnx_runtime" in str(reason)
    with pytest.raises(Unsupported, match="imitate in float"):
        open_session(PLAN, path)


def test_an_operator_without_a_lift_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    graph = helper.make_graph(
        [helper.make_node("Nowhere", ["x"], ["y"], domain="some.where")],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("some.where", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    assert is_sentence(refuse("torch_compiled", path)) and "Nowhere" in str(refuse("torch_compiled", path))


def test_shapes_computed_from_the_rows_are_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Expand", ["w", "shape"], ["wide"]),
        helper.make_node("Add", ["x", "wide"], ["y"]),
    ]
    path = saved(tmp_path / "shape.onnx", nodes, ["n", 4], numpy_helper.from_array(np.ones(4, np.float32), "w"))
    reason = refuse("torch_compiled", path)
    assert is_sentence(reason) and "free dimensions" in str(reason) and "Expand" in str(reason)


@pytest.mark.usefixtures("cheap")
def test_a_free_dimension_other_than_the_rows_stays_free(tmp_path: Path) -> None:
    path = saved(tmp_path / "free.onnx", [helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=0)], ["n", "steps", 3])
    session = open_session(PLAN, path)
    for rows, steps in ((2, 5), (4, 9), (3, 17)):
        x = np.random.default_rng(steps).normal(size=(rows, steps, 3)).astype(np.float32)
        np.testing.assert_allclose(session.run({"x": x})["y"], x.mean(axis=1), atol=1e-6)


@pytest.mark.usefixtures("cheap")
def test_outputs_share_no_memory_with_inputs_weights_or_each_other(tmp_path: Path) -> None:
    path = saved(tmp_path / "same.onnx", [helper.make_node("Identity", ["x"], ["y"])], ["n", 2])
    session = open_session(PLAN, path)
    x = np.ones((3, 2), np.float32)
    y = session.run({"x": x})["y"]
    x[:] = 5
    assert (y == 1).all() and not np.shares_memory(x, y)


@pytest.mark.usefixtures("cheap")
def test_sessions_of_other_thread_counts_are_refused_while_one_is_open(tmp_path: Path) -> None:
    case = onnx_case("mlp", tmp_path)
    torch.set_num_threads(3)
    first = open_session(Plan(runtime="torch_compiled", threads=2), case.path)
    first.run(case.rows(0, 2))
    assert torch.get_num_threads() == 2
    with pytest.raises(Unsupported, match="a session of 2 is open and one of 1 was asked for") as refused:
        open_session(PLAN, case.path)
    assert is_sentence(str(refused.value))
    first.close()
    first.close()
    assert torch.get_num_threads() == 3, "what it was before is given back"
    open_session(PLAN, case.path).close()


@pytest.mark.usefixtures("cheap")
def test_instances_share_the_compiled_graph(tmp_path: Path) -> None:
    case = onnx_case("mlp", tmp_path)
    one, other = (cast(TorchSession, open_session(PLAN, case.path)) for _ in range(2))
    assert one._compiled is other._compiled


def test_a_missing_compiler_is_said(tmp_path: Path) -> None:
    path = onnx_case("mlp", tmp_path).path
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        reason = refuse("torch_compiled", path)
        assert is_sentence(reason) and "install g++" in str(reason)
        with pytest.raises(Unsupported, match=r"needs a C\+\+ compiler"):
            open_session(PLAN, path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_cuda_is_refused(tmp_path: Path) -> None:
    path = onnx_case("mlp", tmp_path).path
    assert devices("torch_compiled") == ("cpu",)
    assert is_sentence(refuse("torch_compiled", path, "cuda"))
    with pytest.raises(Unsupported, match="needs an NVIDIA GPU"):
        open_session(Plan(runtime="torch_compiled", device="cuda"), path)
    with pytest.raises(ConfigError, match="must be one of cpu, cuda"):
        open_session(Plan(runtime="torch_compiled", device="tensorrt"), path)


def test_it_is_considered_only_when_named() -> None:
    assert asked_only() == ("torch_compiled",)


@pytest.mark.usefixtures("cheap")
def test_a_failure_inside_the_graph_is_a_data_error(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    path = saved(tmp_path / "fours.onnx", nodes, ["n", "steps"], numpy_helper.from_array(np.array([0, 4, -1], np.int64), "shape"), out=3)
    session = open_session(PLAN, path)
    for steps in (8, 12):
        assert session.run({"x": np.zeros((2, steps), np.float32)})["y"].shape == (2, 4, steps // 4)
    with pytest.raises(DataError) as raised:
        session.run({"x": np.zeros((2, 10), np.float32)})
    assert is_sentence(str(raised.value))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")
@pytest.mark.parametrize("graph", ["mlp", "residual", "transformer"])
def test_a_gpu_gives_the_same_answers(graph: str, tmp_path: Path) -> None:
    case = onnx_case(graph, tmp_path)
    session = open_session(Plan(runtime="torch_compiled", device="cuda"), case.path)
    for rows in range(1, ROWS + 1):
        assert error_of(session.run(case.rows(0, rows)), case.answers) < EXACT, "is TF32 at work?"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_gpu_computes_in_the_precision_that_is_asked_for(precision: str, tmp_path: Path) -> None:
    case: Case = onnx_case("residual", tmp_path)
    proto = onnx.load(str(case.path))
    helper.set_model_props(proto, {"headway.precision": precision})
    onnx.save(proto, str(case.path))
    error = error_of(open_session(Plan(runtime="torch_compiled", device="cuda"), case.path).run(case.feeds), case.answers)
    assert EXACT < error < NARROW

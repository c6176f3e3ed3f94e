"""No runtime computes in a narrower type than the graph says, instances share weights and nothing else, closed sessions say so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from headway.records import HeadwayError, ModelError, Plan
from headway.runtime import asked_only, census, hopeless, open_session, runtimes
from headway.runtime.censuses import openvino as openvino_census
from headway.runtime.sharing import Shared
from headway.testing.runtimes import onnx_case

REAL = sorted(set(runtimes().present) - {"null", *asked_only()})
K, BLOCK = 128, 32


def narrow_weights(path: Path, kind: int, *, blocks: bool) -> tuple[Path, np.ndarray, np.ndarray]:
    """A product with narrow weights and float activations on disk, its inputs, and the answers in float64."""
    rng = np.random.default_rng(0)
    top = 7 if kind == TensorProto.INT4 else 127
    weights = rng.integers(-top, top, (K, K)).astype(np.int8)
    scales = rng.uniform(0.005, 0.015, (K // BLOCK, K) if blocks else (K,)).astype(np.float32)
    attributes = {"axis": 0, "block_size": BLOCK} if blocks else {"axis": 1}
    graph = helper.make_graph(
        [helper.make_node("DequantizeLinear", ["w", "s"], ["wide"], **attributes), helper.make_node("MatMul", ["x", "wide"], ["y"])],
        "weights",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", K])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", K])],
        [helper.make_tensor("w", kind, (K, K), weights.ravel().tolist()), numpy_helper.from_array(scales, "s")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), str(path))
    x = rng.standard_normal((4, K)).astype(np.float32)
    wide = np.repeat(scales, BLOCK, axis=0) if blocks else scales
    return path, x, x.astype(np.float64) @ (weights * wide.astype(np.float64))


@pytest.mark.parametrize("runtime", REAL)
@pytest.mark.parametrize(("kind", "blocks"), [(TensorProto.INT8, False), (TensorProto.INT8, True), (TensorProto.INT4, True)])
def test_narrow_weights_do_not_narrow_the_activations(runtime: str, kind: int, blocks: bool, tmp_path: Path) -> None:
    path, x, right = narrow_weights(tmp_path / "it.onnx", kind, blocks=blocks)
    session = open_session(Plan(runtime=runtime), path)
    error = np.linalg.norm(session.run({"x": x})["y"] - right) / np.linalg.norm(right)
    assert error < 1e-5, f"{error:.2g}: the library quantized the activations, which the graph leaves in float32"


@pytest.mark.parametrize("runtime", REAL)
def test_narrow_weights_are_not_counted_as_integer_arithmetic(runtime: str, tmp_path: Path) -> None:
    path, _, _ = narrow_weights(tmp_path / "it.onnx", TensorProto.INT8, blocks=True)
    found = census(runtime, path, "v")
    assert found.shares.get("integer", 0.0) == 0.0 and found.shares["float32"] == 1.0
    assert "saves memory traffic, not arithmetic" in found.sentence and found.fallbacks == ()
    assert hopeless(found) is None, "it may pay while weights are what is moved"


@pytest.mark.parametrize("runtime", REAL)
@pytest.mark.parametrize("threads", [1, 2])
def test_many_instances_in_many_threads_give_each_its_own_answers(runtime: str, threads: int, tmp_path: Path) -> None:
    case = onnx_case("residual", tmp_path)
    plan = Plan(runtime=runtime, threads=threads)
    sessions = [open_session(plan, case.path) for _ in range(3)]
    alone = [sessions[0].run(case.rows(start, 2))["y"] for start in range(3)]
    wrong: list[int] = []

    def work(index: int) -> None:
        for turn in range(40):
            start = (index + turn) % 3
            if not np.allclose(sessions[index].run(case.rows(start, 2))["y"], alone[start], rtol=1e-5, atol=1e-6):
                wrong.append(index)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    sessions[0].close()
    assert not wrong
    np.testing.assert_allclose(sessions[1].run(case.rows(0, 2))["y"], alone[0], rtol=1e-5, atol=1e-6, err_msg="closing one closed another")


@pytest.mark.parametrize("runtime", REAL)
def test_a_file_written_again_is_another_graph(runtime: str, tmp_path: Path) -> None:
    first, second = (onnx_case(name, tmp_path) for name in ("cnn", "mlp"))
    path = tmp_path / "one.onnx"
    shutil.copy(first.path, path)
    old = open_session(Plan(runtime=runtime), path)
    shutil.copy(second.path, tmp_path / "new.onnx")
    (tmp_path / "new.onnx").replace(path)
    new = open_session(Plan(runtime=runtime), path)
    assert [spec.shape[1:] for spec in new.inputs] == [(12,)] and len(old.inputs[0].shape) == 4
    old.run(first.rows(0, 1))
    new.run(second.rows(0, 1))


@pytest.mark.parametrize("runtime", REAL)
def test_a_closed_session_says_so(runtime: str, tmp_path: Path) -> None:
    case = onnx_case("mlp", tmp_path)
    session = open_session(Plan(runtime=runtime), case.path)
    session.close()
    session.close()
    with pytest.raises(HeadwayError, match="was closed; open another"):
        session.run(case.rows(0, 1))


class Thing:
    """Something that a weak reference can point at."""


def test_shared_things_live_as_long_as_somebody_holds_them(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("1")
    made: list[int] = []

    def make(path: Path) -> Thing:
        made.append(1)
        return Thing()

    shared: Shared[Thing] = Shared()
    one = shared.get(file, make)
    assert shared.get(file, make) is one and len(made) == 1
    os.utime(file, ns=(1, 1))
    other = shared.get(file, make)
    assert other is not one and len(made) == 2
    del one, other
    shared.get(file, make)
    assert len(made) == 3
    with pytest.raises(ModelError):
        open_session(Plan(runtime="onnx_runtime"), tmp_path / "absent.onnx")


def test_serving_needs_neither_onnx_nor_torch(tmp_path: Path) -> None:
    """The room runs with numpy, msgspec and onnxruntime alone; what is missing is said, not raised."""
    case = onnx_case("mlp", tmp_path)
    np.save(tmp_path / "x.npy", case.rows(0, 3)["x"])
    program = f"""
import sys
for name in ("onnx", "onnx_ir", "torch", "openvino", "scipy", "psutil", "cpuinfo"):
    sys.modules[name] = None
import numpy as np
from pathlib import Path
from headway.records import MissingPackage, Plan, Unsupported
from headway.runtime import census, open_session, runtimes
from headway.measure.environment import Watch, environment
path = Path({str(case.path)!r})
session = open_session(Plan(runtime="onnx_runtime"), path)
print(session.run({{"x": np.load({str(tmp_path / "x.npy")!r})}})["y"].shape)
assert set(runtimes().present) == {{"null", "onnx_runtime"}} and "openvino" in runtimes().missing["openvino"]
for call, error in ((lambda: open_session(Plan(runtime="openvino"), path), MissingPackage), (lambda: census("onnx_runtime", path, "v"), Unsupported)):
    try:
        call()
    except error as raised:
        print(type(raised).__name__)
with Watch():
    print(environment().memory_bytes > 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:4] == ["(3, 4)", "MissingPackage", "Unsupported", "True"]


def test_openvino_s_census_weighs_layers_by_the_shapes_of_a_run(tmp_path: Path) -> None:
    """A convolution over a free picture outweighs a product of as many weights behind it, whatever the graph states of sizes."""
    rng = np.random.default_rng(0)
    weights = {"k": rng.normal(0, 1, (16, 16, 1, 1)), "m": rng.normal(0, 1, (16, 16))}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "k"], ["c"]),
            helper.make_node("GlobalAveragePool", ["c"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("MatMul", ["f", "m"], ["y"]),
        ],
        "free",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    path = tmp_path / "free.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    compiled = openvino_census.compile_graph(path, 1)
    openvino_census._run(compiled)
    macs = {
        openvino_census._fact(node, "layerType"): openvino_census._macs(node, openvino_census._fact(node, "layerType"))
        for node in compiled.get_runtime_model().get_ordered_ops()
        if openvino_census._fact(node, "layerType") in openvino_census.MATRIX
    }
    assert macs == {"Convolution": 16 * 16 * 16 * 16, "FullyConnected": 16 * 16}

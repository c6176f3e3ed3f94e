"""The models that every server answers with, the requests, the right answers, and Headway's bundles of them.

``mlp`` takes about 2 ms a request on one thread and seven to ten times that for 64 (its weights are read once a batch); ``tiny`` takes about 0.1 ms;
``null`` takes no time at all. All take 128 numbers and give 10.
"""

from __future__ import annotations

import functools
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from headway.deploy import Entry, package
from headway.measure.environment import environment
from headway.records import Objective, Plan, Variant

WORK = Path.home() / ".cache" / "headway" / "serving"
HIDDEN = {"mlp": (2560,) * 4, "tiny": (768,) * 3}
NAMES = tuple(HIDDEN)
INPUTS, OUTPUTS, ROWS, MAX_BATCH = 128, 10, 64, 64
TOLERANCE = 1e-3
"""Kernels for different batch sizes round differently; answers to different rows differ by about 1."""


def rows() -> np.ndarray:
    """The rows that are sent, ``[ROWS, INPUTS]`` float32, with three decimals each so that their JSON is short."""
    return np.random.default_rng(0).normal(size=(ROWS, INPUTS)).round(3).astype(np.float32)


def onnx_file(name: str, weights_seed: int = 0) -> Path:
    """The model's file, made on the first call; the seed makes another model of the same shape."""
    path = WORK / "models" / f"{name}-{len(HIDDEN[name])}x{HIDDEN[name][0]}-{weights_seed}.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(_perceptron(HIDDEN[name], weights_seed), path)
    return path


def _perceptron(hidden: tuple[int, ...], seed: int) -> onnx.ModelProto:
    """Dense layers with ReLU between them, weights scaled so that every layer's values stay near 1 (He et al., 2015, equation 10)."""
    rng = np.random.default_rng(seed)
    sizes, nodes, weights, at = (INPUTS, *hidden, OUTPUTS), [], [], "x"
    for layer, (wide, out) in enumerate(itertools.pairwise(sizes)):
        last = layer == len(sizes) - 2
        matrix = rng.normal(size=(wide, out)) * np.sqrt(2 / wide)
        weights += [numpy_helper.from_array(matrix.astype(np.float32), f"w{layer}")]
        weights += [numpy_helper.from_array(rng.normal(size=out).astype(np.float32) * np.float32(0.1), f"b{layer}")]
        nodes.append(helper.make_node("Gemm", [at, f"w{layer}", f"b{layer}"], ["y" if last else f"h{layer}"]))
        at = f"h{layer}"
        if not last:
            nodes.append(helper.make_node("Relu", [at], [f"r{layer}"]))
            at = f"r{layer}"
    ends = [helper.make_tensor_value_info(key, TensorProto.FLOAT, ["batch", size]) for key, size in (("x", INPUTS), ("y", OUTPUTS))]
    graph = helper.make_graph(nodes, "perceptron", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def session(path: Path) -> onnxruntime.InferenceSession:
    """The bare runtime with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@functools.cache
def expected(name: str, weights_seed: int = 0) -> np.ndarray:
    """The right answer to every row, ``[ROWS, OUTPUTS]``."""
    if name == "null":
        return np.repeat(rows().sum(axis=1, dtype=np.float64)[:, None], OUTPUTS, axis=1).astype(np.float32)
    return np.asarray(session(onnx_file(name, weights_seed)).run(None, {"x": rows()})[0])


def right(answer: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether an answer is the one to its own row."""
    return answer.shape == wanted.shape and bool(np.allclose(answer, wanted, rtol=TOLERANCE, atol=TOLERANCE))


def null_file() -> Path:
    """Headway's runtime that takes no time: what is left is the front end."""
    path = WORK / "models" / "null.null.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"inputs": [_tensor("x", INPUTS)], "outputs": [_tensor("y", OUTPUTS)]}
    path.write_text(json.dumps({"tau0_s": 0.0, "alpha_s": 0.0, **tensors}))
    return path


def _tensor(name: str, size: int) -> dict[str, Any]:
    return {"name": name, "dtype": "float32", "shape": ["batch", size]}


def plan(name: str) -> Plan:
    """One instance, one thread, up to 64 rows, greedy: the same for every server."""
    return Plan(runtime="null" if name == "null" else "onnx_runtime", instances=1, threads=1, max_batch=MAX_BATCH)


def bundle(name: str, latency_s: float = 0.02, weights_seed: int = 0, folder: Path | None = None) -> Path:
    """A Headway bundle with the objective ``p99 <= latency_s``; made anew, so that it fits the code that will serve it."""
    folder = folder or WORK / "bundles" / f"{name}-{weights_seed}-{latency_s * 1e3:g}ms"
    file = null_file() if name == "null" else onnx_file(name, weights_seed)
    variant = Variant(
        name=f"weights-{weights_seed}", source="benchmark", origin="onnx", recipe=(), parent_digest="", digest="", path="", parameters=1, flop=1,
        weight_bytes=1, file_bytes=file.stat().st_size, precision="float32",
    )  # fmt: skip
    package(
        folder, name=name, entries=[Entry(variant, file, plan(name), {})], objective=Objective(latency_s=latency_s), environment=environment(),
        samples={"x": rows()},
    )  # fmt: skip
    return folder

"""A small real model: convolutions with fixed weights and a head that scikit-learn trains on its handwritten digits, written as ONNX."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import train_test_split

CHANNELS = (1, 64, 192)
FEATURES = 192 * 4 * 4
CLASSES = 10


def write_digits(folder: Path) -> None:
    """``model.onnx`` with the input ``image`` [batch, 1, 8, 8] and the output ``scores`` [batch, 10], and ``val.npz`` with 900 rows."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    seen, unseen, seen_labels, unseen_labels = train_test_split(images, labels, test_size=900, random_state=0, stratify=labels)
    body = _graph(np.zeros((CLASSES, FEATURES), np.float32), np.zeros(CLASSES, np.float32), features=True)
    session = onnxruntime.InferenceSession(body.SerializeToString(), providers=["CPUExecutionProvider"])
    head = RidgeClassifier(alpha=1.0).fit(session.run(["flat"], {"image": seen})[0], seen_labels)
    onnx.save(_graph(head.coef_.astype(np.float32), head.intercept_.astype(np.float32)), folder / "model.onnx")
    np.savez(folder / "val.npz", image=unseen, label=unseen_labels.astype(np.int64))


def _graph(weight: np.ndarray, bias: np.ndarray, *, features: bool = False) -> onnx.ModelProto:
    random = np.random.default_rng(0)
    initializers = {"head_weight": weight, "head_bias": bias}
    nodes, value = [], "image"
    for number, (entering, leaving) in enumerate(itertools.pairwise(CHANNELS)):
        scale = np.sqrt(2 / (9 * entering))
        initializers[f"w{number}"] = (scale * random.standard_normal((leaving, entering, 3, 3))).astype(np.float32)
        nodes.append(helper.make_node("Conv", [value, f"w{number}"], [f"c{number}"], name=f"conv{number}", pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"], name=f"relu{number}"))
        value = f"r{number}"
    nodes += [
        helper.make_node("AveragePool", [value], ["pooled"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "head_weight", "head_bias"], ["scores"], name="head", transB=1),
    ]
    outputs: Sequence[onnx.ValueInfoProto] = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", CLASSES])]
    if features:
        outputs = [*outputs, helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["batch", FEATURES])]
    weights = [numpy_helper.from_array(array, name) for name, array in initializers.items()]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])
    graph = helper.make_graph(nodes, "digits", [image], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model

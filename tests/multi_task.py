"""A small model with two heads on one hidden layer, and real samples for it: which digit, and whether it is odd."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

LEARN = 900


def write(folder: Path) -> None:
    """``model.onnx`` (outputs ``digit`` and ``odd``), ``val.npz`` and ``train.npz`` with ``label_digit`` and ``label_odd``."""
    pixels, digit = load_digits(return_X_y=True)
    x, odd = (pixels / 16).astype(np.float32), digit % 2
    trunk = MLPClassifier((32,), max_iter=600, random_state=0).fit(x[:LEARN], digit[:LEARN])
    hidden = np.maximum(x @ trunk.coefs_[0] + trunk.intercepts_[0], 0)
    head = LogisticRegression(max_iter=5000).fit(hidden[:LEARN], odd[:LEARN])
    both = np.concatenate([-head.coef_, head.coef_]).T / 2, np.concatenate([-head.intercept_, head.intercept_]) / 2
    weights = {
        "w0": trunk.coefs_[0], "b0": trunk.intercepts_[0], "w1": trunk.coefs_[1], "b1": trunk.intercepts_[1], "w2": both[0], "b2": both[1],
    }  # fmt: skip
    onnx.save(_graph({name: value.astype(np.float32) for name, value in weights.items()}), str(folder / "model.onnx"))
    np.savez(folder / "val.npz", x=x[LEARN:], label_digit=digit[LEARN:], label_odd=odd[LEARN:])
    np.savez(folder / "train.npz", x=x[:LEARN], label_digit=digit[:LEARN], label_odd=odd[:LEARN])


def without_odd(source: Path, target: Path) -> None:
    """The same model with a head for ``odd`` that always says yes."""
    model = onnx.load(str(source))
    for tensor in model.graph.initializer:
        if tensor.name in ("w2", "b2"):
            value = np.zeros(tensor.dims, np.float32) if tensor.name == "w2" else np.array([-1, 1], np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    onnx.save(model, str(target))


def _graph(weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Gemm", ["x", "w0", "b0"], ["h"], name="trunk"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "w1", "b1"], ["digit"], name="digit"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["odd"], name="odd"),
    ]
    graph = helper.make_graph(
        nodes,
        "two_heads",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size]) for name, size in (("digit", 10), ("odd", 2))],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

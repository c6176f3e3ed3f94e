"""Make a small real model and labelled samples: ``model.onnx`` and ``val.npz`` in the current folder.

scikit-learn trains a network on its handwritten digits; its weights become an ONNX graph. The 500 samples were not trained on.
Run it with ``python examples/make_model.py``. It needs the extra ``tune``.
"""

import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier


def make(folder: Path) -> None:
    """Write ``model.onnx`` (input ``pixels`` [batch, 64], output ``scores`` [batch, 10]) and ``val.npz`` (``pixels``, ``label``)."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    seen, unseen, seen_labels, unseen_labels = train_test_split(images, labels, test_size=500, random_state=0, stratify=labels)
    network = MLPClassifier((512, 256), max_iter=12, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # twelve rounds are enough here, and scikit-learn says that more would be better
        network.fit(seen, seen_labels)
    onnx.save(graph(network.coefs_, network.intercepts_), folder / "model.onnx")
    np.savez(folder / "val.npz", pixels=unseen, label=unseen_labels)


def graph(weights: list[np.ndarray], biases: list[np.ndarray]) -> onnx.ModelProto:
    """A chain of dense layers with Relu between them, as an ONNX model."""
    nodes, constants, value = [], [], "pixels"
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        constants += [numpy_helper.from_array(weight.astype(np.float32), f"w{number}")]
        constants += [numpy_helper.from_array(bias.astype(np.float32), f"b{number}")]
        last = number == len(weights) - 1
        made = "scores" if last else f"h{number}"
        nodes.append(helper.make_node("Gemm", [value, f"w{number}", f"b{number}"], [made]))
        if not last:
            nodes.append(helper.make_node("Relu", [made], [f"a{number}"]))
        value = f"a{number}"
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 64])]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 10])]
    body = helper.make_graph(nodes, "digits", inputs, outputs, constants)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


if __name__ == "__main__":
    make(Path.cwd())
    print("wrote model.onnx and val.npz")

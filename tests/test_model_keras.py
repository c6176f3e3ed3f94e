"""Keras and SavedModel come in through TensorFlow with the answers of the network they were. Three TensorFlow processes in all."""

import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from headway.model import load
from headway.records import ModelError

NETWORK = """
import keras, numpy as np
from keras import layers

def net():
    rng = np.random.default_rng(5)
    image, gain = keras.Input((3, 8, 8), name="image"), keras.Input((1,), name="gain")
    hidden = layers.Permute((2, 3, 1))(image)
    hidden = layers.Conv2D(8, 3, padding="same", activation="relu", name="conv")(hidden)
    hidden = layers.GlobalAveragePooling2D()(hidden)
    logits = layers.Multiply(name="logits")([layers.Dense(4, name="dense")(hidden), gain])
    model = keras.Model([image, gain], logits)
    weights = np.load("weights.npz")
    model.get_layer("conv").set_weights([weights["conv.weight"].transpose(2, 3, 1, 0), weights["conv.bias"]])
    model.get_layer("dense").set_weights([weights["dense.weight"].T, weights["dense.bias"]])
    model.save("saved.keras")
    model.export("folder", verbose=False)
    return model
"""


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    shapes = {"conv.weight": (8, 3, 3, 3), "conv.bias": (8,), "dense.weight": (4, 8), "dense.bias": (4,)}
    return {name: rng.random(shape, dtype=np.float32) - 0.5 for name, shape in shapes.items()}


def expected(image: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """The network in numpy: convolution as a sum over the nine shifts."""
    w = weights()
    padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)))
    taps = [
        np.einsum("nchw,oc->nohw", padded[:, :, i : i + 8, j : j + 8], w["conv.weight"][:, :, i, j]) for i in range(3) for j in range(3)
    ]
    pooled = np.maximum(sum(taps) + w["conv.bias"][:, None, None], 0).mean((2, 3))
    return (pooled @ w["dense.weight"].T + w["dense.bias"]) * gain


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(1)
    return {"gain": rng.random((6, 1), dtype=np.float32), "image": rng.random((6, 3, 8, 8), dtype=np.float32)}


@pytest.fixture(scope="module")
def from_callable(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("keras")
    (folder / "networks.py").write_text(NETWORK)
    np.savez(folder / "weights.npz", **weights())
    before = Path.cwd()
    os.chdir(folder)
    yield load("python:networks:net", rows)
    os.chdir(before)


@pytest.mark.parametrize(("reference", "origin"), [("", "keras"), ("saved.keras", "keras"), ("folder", "saved-model")])
def test_every_form_gives_the_networks_answers(from_callable, rows, reference, origin):
    loaded = load(reference, rows if reference == "folder" else None) if reference else from_callable
    model = loaded.models[0]
    assert model.origin == origin
    assert model.opset == 18
    assert {spec.name: spec.shape for spec in model.inputs} == {"image": ("batch", 3, 8, 8), "gain": ("batch", 1)}
    assert loaded.notes == ()
    session = onnxruntime.InferenceSession(model.to_bytes(), providers=["CPUExecutionProvider"])
    assert np.allclose(session.run(None, rows)[0], expected(rows["image"], rows["gain"]), rtol=1e-4, atol=1e-4)
    assert [spec.name for spec in model.outputs] == (["output_0"] if reference == "folder" else ["logits"])


def test_a_file_that_is_no_keras_model(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"hello")
    with pytest.raises(ModelError, match="saved by Keras 3"):
        load(str(tmp_path / "model.keras"))

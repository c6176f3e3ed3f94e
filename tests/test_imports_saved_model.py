"""A folder of TF Serving, and Triton's with a SavedModel, come in with the answers of the function inside. Four TensorFlow processes in all."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from headway.model import load
from headway.model.served.contract import ServedBy
from headway.model.served.tf_serving import find, fits
from headway.records import ModelError
from imported_folders import BATCHING, answers, triton, write

needs_tensorflow = pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed")

SAVE = """
import sys
import tensorflow as tf

class Net(tf.Module):
    def __init__(self):
        self.w = tf.Variable(tf.reshape(tf.range(6.0), (3, 2)) - 2.0)

    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
    def __call__(self, x):
        return {"y": tf.nn.relu(x @ self.w)}

net = Net()
tf.saved_model.save(net, sys.argv[1], signatures=net.__call__.get_concrete_function())
"""
ROWS = {"x": np.random.default_rng(0).normal(0, 1, (5, 3)).astype(np.float32)}
EXPECTED = np.maximum(ROWS["x"] @ (np.arange(6, dtype=np.float32).reshape(3, 2) - 2), 0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "net"
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", SAVE, str(folder)], env=quiet, check=True, capture_output=True)
    return folder


@needs_tensorflow
def test_a_folder_of_tf_serving(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "shop" / "00000012")
    write(tmp_path / "shop" / "3" / "saved_model.pb", b"an older one")
    write(tmp_path / "shop" / "20" / "unfinished", b"")
    write(tmp_path / "shop" / "batching_parameters.txt", BATCHING)
    loaded = load(str(tmp_path / "shop"))
    (model,) = loaded.models
    assert (model.name, model.origin) == ("shop", "saved-model")
    assert np.allclose(answers(model, ROWS), EXPECTED, rtol=1e-5, atol=1e-5)
    assert loaded.notes[:2] == (
        "TF Serving served it with 2 instances, batches of up to 16 (preferred: 8, 16), waiting up to 2 ms",
        "version 12 is taken, the highest of 3, 12",
    )
    assert loaded.served_by == ServedBy(server="TF Serving", instances=2, max_batch=16, max_wait_s=0.002, preferred=(8, 16))


@needs_tensorflow
def test_a_folder_of_triton_with_a_saved_model(saved: Path, tmp_path: Path) -> None:
    config = 'backend: "tensorflow" max_batch_size: 4 input { name: "x" data_type: TYPE_FP32 dims: 3 } output { name: "y" data_type: TYPE_FP32 dims: 2 }'
    folder = triton(tmp_path / "shop", config, {})
    shutil.copytree(saved, folder / "1" / "model.savedmodel")
    loaded = load(str(folder))
    assert np.allclose(answers(loaded.models[0], ROWS), EXPECTED, rtol=1e-5, atol=1e-5)
    assert loaded.notes == ("Triton served it with 2 instances, each request alone",)


def test_batching_without_a_size_is_not_guessed(tmp_path: Path) -> None:
    write(tmp_path / "1" / "saved_model.pb", b"x")
    write(tmp_path / "batching_parameters.txt", "batch_timeout_micros { value: 5 }")
    found = find(tmp_path, tmp_path)
    assert (found.door, found.path, found.served_by) == ("saved_model", tmp_path / "1", None)
    assert found.notes == ("batching_parameters.txt names no max_batch_size: how TF Serving batched is not known",)


@pytest.mark.parametrize(
    "text", ["max_batch_size { value: 0 }", "max_batch_size: {value: 10} num_batch_threads {value: 99999}", "max_batch_size 5"]
)
def test_batching_that_nobody_could_mean(tmp_path: Path, text: str) -> None:
    write(tmp_path / "1" / "saved_model.pb", b"x")
    write(tmp_path / "batching_parameters.txt", text)
    with pytest.raises(ModelError):
        find(tmp_path, tmp_path)


@pytest.mark.parametrize("name", ["v1", "1a", "-1", "1" * 30])
def test_other_folders_are_no_versions(tmp_path: Path, name: str) -> None:
    write(tmp_path / name / "saved_model.pb", b"x")
    assert not fits(tmp_path)

"""From another server's folder to a served bundle: ``inspect`` on every form, and one whole ``tune`` of a Triton model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from command_line import ask, headway, serving
from headway.cli import main
from imported_folders import mar, mlserver, triton

CONFIG = """
backend: "onnxruntime"
max_batch_size: 8
input { name: "image" data_type: TYPE_FP32 dims: [ 1, 8, 8 ] }
output { name: "scores" data_type: TYPE_FP32 dims: 10 label_filename: "labels.txt" }
instance_group { count: 2 kind: KIND_CPU }
dynamic_batching { max_queue_delay_microseconds: 100 }
"""
SERVED = "Triton served it with 2 instances, batches of up to 8, waiting up to 100 us"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """A folder with the digits model in the form of each server, and its samples."""
    folder = tmp_path_factory.mktemp("imports")
    graph = (digits / "model.onnx").read_bytes()
    shutil.copy(digits / "val.npz", folder / "val.npz")
    triton(folder / "triton", CONFIG, {"1/model.onnx": graph, "labels.txt": "\n".join("0123456789")})
    mar(folder / "shop.mar", {"net.onnx": graph}, serializedFile="net.onnx", handler="image_classifier")
    mlserver(folder / "mlserver", {"net.onnx": graph}, parameters={"uri": "net.onnx"})
    (folder / "empty").mkdir()
    mlserver(folder / "sklearn", {}, implementation="mlserver_sklearn.SKLearnModel")
    return folder


@pytest.mark.parametrize(
    ("place", "note"),
    [
        ("triton", SERVED),
        ("shop.mar", "TorchServe's handler image_classifier is not imported"),
        ("mlserver", "MLServer served it with 1 instance, each request alone"),
    ],
)
def test_inspect_tells_cost_and_how_it_was_served(
    work: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str, note: str
) -> None:
    monkeypatch.chdir(work)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    with pytest.raises(SystemExit) as ended:
        main(["inspect", place, "--data", "val.npz", "--json"])
    assert not ended.value.code
    (line,) = json.loads(capsys.readouterr().out)
    assert line["cost"]["inputs"][0]["name"] == "image" and line["cost"]["parameters"] > 100_000
    assert any(said.startswith(note) for said in line["notes"])


def test_inspect_refuses_with_the_reason(work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(work)
    for place, reason in (("sklearn", "a scikit-learn model is a pickle"), ("empty", "Looked for: saved_model.pb")):
        with pytest.raises(SystemExit) as ended:
            main(["inspect", place])
        assert ended.value.code == 2
        assert reason in " ".join(capsys.readouterr().err.split())


def test_a_model_of_triton_is_tuned_and_served(work: Path, cache: Path, digits_samples: dict[str, np.ndarray]) -> None:
    small = ("--techniques", "fold", "--runtimes", "onnx_runtime", "--no-compare", "--budget", "8s", "--json")
    said = headway(["tune", "triton", "--data", "val.npz", "--slo", "p99<=50ms, drop<=5%", "--out", "run", *small], work, cache)
    assert said.code == 0, said.err
    assert said.json["choice"]["met"] is True
    assert SERVED in said.err
    images = digits_samples["image"][:1]
    session = onnxruntime.InferenceSession(work / "triton" / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    expected = session.run(None, {"image": images})[0]
    with serving(["run"], work, cache) as ready:
        tensor = {"name": "image", "shape": list(images.shape), "datatype": "FP32", "data": images.ravel().tolist()}
        _, text = ask(f"{ready['url']}/v2/models/{ready['model']}/infer", {"inputs": [tensor]})
        answer = json.loads(text)["outputs"][0]
        assert np.allclose(np.array(answer["data"]).reshape(answer["shape"]), expected, rtol=1e-3, atol=1e-3)

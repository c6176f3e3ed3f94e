"""PyTorch comes in by both exporters, from a callable and from a ``.pt2`` file, with the answers of the network it was."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from headway.model import cost, load
from headway.model.doors.python import export
from headway.model.workshop import MissingPackage, Request, missing
from headway.records import ModelError

NETWORK = """
import numpy as np, torch
from torch import nn

class Net(nn.Module):
    labels = ["a", "b", "c", "d"]

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.dense = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8, 4)
        self.load_state_dict({key: torch.from_numpy(value) for key, value in np.load("weights.npz").items()}, strict=False)

    def forward(self, gain, image):
        hidden = torch.relu(self.norm(self.conv(image))).mean((2, 3))
        return {"logits": self.dense(hidden) * gain, "hidden": hidden, "total": hidden.sum(), "nothing": None}

class Stuck(nn.Module):
    def forward(self, x):
        return x.reshape(4, 2, 3).sum(1) if x.shape[0] == 4 else x[:, :3]

class Pair(nn.Module):
    def forward(self, x, y):
        return x + y, x * y

def net():
    made = Net()
    rows = torch.rand(3, 1), torch.rand(3, 3, 8, 8)
    dims = {"gain": {0: torch.export.Dim.DYNAMIC}, "image": {0: torch.export.Dim.DYNAMIC}}
    torch.export.save(torch.export.export(made.eval(), rows, dynamic_shapes=dims), "free.pt2")
    torch.export.save(torch.export.export(made.eval(), (rows[0][:1], rows[1][:1])), "fixed.pt2")
    return made.train()

def efficientnet():
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_name("efficientnet-lite0"), {"image": np.zeros((1, 3, 224, 224), np.float32)}

def stuck():
    return Stuck()

def pair():
    return Pair(), {"x": np.ones((2, 3)), "y": np.ones((2, 3))}
"""


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    shapes = {"conv.weight": (8, 3, 3, 3), "conv.bias": (8,), "norm.weight": (8,), "norm.bias": (8,), "norm.running_mean": (8,)}
    shapes |= {"norm.running_var": (8,), "dense.weight": (4, 8), "dense.bias": (4,)}
    return {name: rng.random(shape, dtype=np.float32) - (0 if "var" in name else 0.5) for name, shape in shapes.items()}


def expected(image: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """The network in numpy: convolution as a sum over the nine shifts."""
    w = weights()
    padded = np.pad(image, ((0, 0), (0, 0), (1, 1), (1, 1)))
    size = image.shape[2]
    taps = [
        np.einsum("nchw,oc->nohw", padded[:, :, i : i + size, j : j + size], w["conv.weight"][:, :, i, j])
        for i in range(3)
        for j in range(3)
    ]
    hidden = sum(taps) + w["conv.bias"][:, None, None]
    normal = (hidden - w["norm.running_mean"][:, None, None]) / np.sqrt(w["norm.running_var"] + 1e-5)[:, None, None]
    pooled = np.maximum(normal * w["norm.weight"][:, None, None] + w["norm.bias"][:, None, None], 0).mean((2, 3))
    return (pooled @ w["dense.weight"].T + w["dense.bias"]) * gain


def answers(model, feeds):
    session = onnxruntime.InferenceSession(model.to_bytes(), providers=["CPUExecutionProvider"])
    return session.run([model.outputs[0].name], feeds)[0]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torch")
    (folder / "networks.py").write_text(NETWORK)
    np.savez(folder / "weights.npz", **weights())
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(1)
    return {"image": rng.random((6, 3, 8, 8)), "gain": rng.random((6, 1))}  # float64, as many pipelines give


@pytest.fixture(scope="module")
def loaded(place, rows):
    return load("python:networks:net", rows)


def test_both_exporters_give_the_networks_answers(loaded, rows):
    assert [(model.name, model.origin) for model in loaded.models] == [("net-dynamo", "torch-dynamo"), ("net-script", "torch-script")]
    feeds = {name: array.astype(np.float32) for name, array in rows.items()}
    for model in loaded.models:
        assert [spec.name for spec in model.inputs] == ["gain", "image"]
        assert [spec.shape for spec in model.inputs] == [("batch", 1), ("batch", 3, 8, 8)]
        assert [spec.name for spec in model.outputs] == ["logits", "hidden"]
        assert np.allclose(answers(model, feeds), expected(rows["image"], rows["gain"]), rtol=1e-4, atol=1e-4)
        assert cost(model).uncounted == ()
        assert str(Path.cwd()) not in model.to_bytes().decode("latin-1")
    assert "evaluation mode" in loaded.notes[0]
    assert "left out: total" in loaded.notes[1]
    assert loaded.labels == ("a", "b", "c", "d")


def test_an_exported_program_gives_the_same(loaded, rows):
    free = load("free.pt2", rows)
    feeds = {name: array.astype(np.float32) for name, array in rows.items()}
    assert free.models[0].origin == "torch-dynamo"
    assert free.models[0].inputs[0].shape == ("batch", 1)
    assert np.allclose(answers(free.models[0], feeds), expected(rows["image"], rows["gain"]), rtol=1e-4, atol=1e-4)


def test_an_exported_program_with_a_fixed_batch_is_freed(loaded, rows):
    fixed = load("fixed.pt2", exporters=["torch-dynamo"])  # on the example inputs in the file
    feeds = {name: array.astype(np.float32) for name, array in rows.items()}
    assert "made free" in fixed.notes[-1]
    assert np.allclose(answers(fixed.models[0], feeds), expected(rows["image"], rows["gain"]), rtol=1e-4, atol=1e-4)


def test_an_export_that_answers_otherwise_is_dropped(place):
    """The network behaves differently at the batch of the trace; TorchScript keeps what it saw there."""
    with pytest.raises(ModelError, match="at least one export must give the original's answers"):
        load("python:networks:stuck", {"x": np.random.default_rng(0).random((4, 6), dtype=np.float32)}, exporters=["torch-script"])


def test_a_callable_may_bring_its_example_inputs(place):
    model = load("python:networks:pair", exporters=["torch-script"]).models[0]
    assert [spec.name for spec in model.inputs] == ["x", "y"]
    assert [spec.name for spec in model.outputs] == ["output_0", "output_1"]


def test_a_published_network_costs_what_is_published(place):
    """EfficientNet-Lite0: 4.7 million parameters and about 0.4 billion multiply-adds (its authors' table)."""
    model = load("python:networks:efficientnet", exporters=["torch-script"]).models[0]
    done = cost(model)
    convolutions = sum(operator.flop for operator in done.operators if operator.op_type in {"Conv", "Gemm"})
    assert 0.37e9 < convolutions / 2 < 0.41e9
    assert 4.6e6 < done.parameters < 4.7e6
    assert done.uncounted == ()


def test_a_file_that_is_no_program(tmp_path):
    (tmp_path / "model.pt2").write_bytes(b"hello")
    with pytest.raises(ModelError, match=r"torch\.export\.save"):
        load(str(tmp_path / "model.pt2"))


HOSTILE = """
import os, sys
def raises(): raise ValueError("no weights here\\nand more")
def leaves(): sys.exit(3)
def dies(): print("about to die", flush=True); os._exit(9)
def text(): return "not a model"
value = 3
"""


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("hostile:raises", "raised ValueError: no weights here; run it by itself"),
        ("hostile:leaves", "raised SystemExit"),
        ("hostile:text", "must return a model object of keras or torch, got str"),
        ("hostile:value", "must name something callable"),
        ("hostile:nothing", "must hold 'nothing'"),
        ("hostile", "must read python:module:callable"),
        ("hostile:a b", "must read python:module:callable"),
        ("not_there_at_all:make", "must be importable"),
        ("broken:make", "the module must import, but it raised ZeroDivisionError"),
    ],
)
def test_callables_that_give_no_model(tmp_path, monkeypatch, reference, message):
    (tmp_path / "hostile.py").write_text(HOSTILE)
    (tmp_path / "broken.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "hostile", raising=False)
    with pytest.raises(ModelError, match=message):
        export(Request(reference, None, None, tmp_path))


@pytest.mark.parametrize(("name", "message"), [("raises", "raised ValueError"), ("dies", "process died; it last said: about to die")])
def test_the_workshops_failures_cross_over(tmp_path, monkeypatch, name, message):
    (tmp_path / "hostile.py").write_text(HOSTILE)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=message):
        load(f"python:hostile:{name}")


def test_the_room_needs_no_framework():
    code = "import sys, headway.model; print(sorted({'torch', 'tensorflow', 'keras', 'tf2onnx'} & set(sys.modules)))"
    place = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=place)
    assert done.stdout.strip() == "[]"


def test_a_missing_framework_names_its_extra():
    error = missing("torch.onnx", "model.pt2")
    assert isinstance(error, MissingPackage)
    assert "pip install 'headway[torch]'" in str(error)
    assert "headway[keras]" in str(missing("tensorflow", "model.keras"))

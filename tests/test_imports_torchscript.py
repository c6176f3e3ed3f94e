"""TorchScript comes in from an archive of TorchServe, a folder of Triton or by itself, with the answers of the module it was."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headway.model import load
from headway.records import ModelError
from imported_folders import answers, mar, triton, write

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")]


class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Two inputs, a dictionary of one tensor going out, and a branch that only a script keeps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.dense, self.norm = torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4)
        self.norm.running_mean.uniform_(-1, 1)

    def forward(self, image: torch.Tensor, gain: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.norm(self.dense(image))
        if hidden.size(1) > 3:
            hidden = torch.relu(hidden)
        return {"logits": hidden * gain}


@pytest.fixture(scope="module")
def rows() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"gain": rng.random((6, 1), dtype=np.float32), "image": rng.random((6, 6), dtype=np.float32)}


@pytest.fixture(scope="module")
def expected(rows: dict[str, np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        made: np.ndarray = Net().eval()(torch.from_numpy(rows["image"]), torch.from_numpy(rows["gain"]))["logits"].numpy()
    return made


def scripted(folder: Path) -> bytes:
    path = folder / "saved.pt"
    torch.jit.save(torch.jit.script(Net()), path)  # in training mode
    return path.read_bytes()


def traced(folder: Path) -> bytes:
    path = folder / "saved.pt"
    with torch.no_grad():
        torch.jit.save(torch.jit.trace(Net().eval(), (torch.rand(3, 6), torch.rand(3, 1)), strict=False), path)
    return path.read_bytes()


def frozen(folder: Path) -> bytes:
    path = folder / "saved.pt"
    torch.jit.save(torch.jit.freeze(torch.jit.script(Net()).eval()), path)
    return path.read_bytes()


@pytest.mark.parametrize("made", [scripted, traced, frozen])
def test_an_archive_of_torchserve(tmp_path: Path, made: Callable[[Path], bytes], rows: dict[str, np.ndarray], expected: np.ndarray) -> None:
    files = {"net.pt": made(tmp_path), "handler.py": f"open({str(tmp_path / 'ran')!r}, 'w').close()"}
    loaded = load(str(mar(tmp_path / "shop.mar", files, serializedFile="net.pt", handler="handler.py")), rows)
    (model,) = loaded.models
    assert (model.name, model.origin) == ("shop-script", "torch-script")
    assert {spec.name: spec.shape for spec in model.inputs} == {"image": ("batch", 6), "gain": ("batch", 1)}
    assert [spec.name for spec in model.outputs] == ["logits"]
    assert np.allclose(answers(model, rows), expected, rtol=1e-4, atol=1e-5)
    assert loaded.notes[0].startswith("TorchScript is a program") and "handler.py is not imported" in loaded.notes[1]
    assert not (tmp_path / "ran").exists()


CONFIG = """
platform: "pytorch_libtorch" max_batch_size: 4 dynamic_batching { }
input { name: "INPUT__0" data_type: TYPE_FP32 dims: 6 }
input { name: "INPUT__1" data_type: TYPE_FP32 dims: 1 }
output { name: "OUTPUT__0" data_type: TYPE_FP32 dims: 4 }
"""


def test_a_folder_of_triton_names_places(tmp_path: Path, rows: dict[str, np.ndarray], expected: np.ndarray) -> None:
    """The samples have the names of the configuration, in another order than its own; without samples rows are made up from it."""
    folder = triton(tmp_path / "net", CONFIG, {"1/model.pt": traced(tmp_path)})
    given = {"INPUT__1": rows["gain"], "INPUT__0": rows["image"]}
    loaded = load(str(folder), given)
    assert np.allclose(answers(loaded.models[0], given), expected, rtol=1e-4, atol=1e-5)
    assert loaded.notes[0] == "Triton served it with 1 instance, batches of up to 4, without waiting for more"
    (model,) = load(str(folder)).models
    assert [spec.name for spec in model.inputs] == ["INPUT__0", "INPUT__1"]


def test_a_file_by_itself(tmp_path: Path, rows: dict[str, np.ndarray], expected: np.ndarray) -> None:
    traced(tmp_path)
    (model,) = load(f"torchscript:{tmp_path / 'saved.pt'}", rows).models
    assert model.name == "saved-script"
    assert np.allclose(answers(model, rows), expected, rtol=1e-4, atol=1e-5)


def test_torchscript_needs_samples(tmp_path: Path) -> None:
    path = mar(tmp_path / "shop.mar", {"net.pt": traced(tmp_path)}, serializedFile="net.pt")
    with pytest.raises(ModelError, match=r"shop.mar/net.pt: a PyTorch module does not tell its input shapes, .* give samples"):
        load(str(path))


def test_weights_of_an_eager_model_are_not_opened(tmp_path: Path) -> None:
    torch.save(Net().state_dict(), tmp_path / "net.pth")
    path = mar(tmp_path / "shop.mar", {"net.pth": (tmp_path / "net.pth").read_bytes()}, serializedFile="net.pth")
    with pytest.raises(ModelError, match=r"must be TorchScript or ONNX, got weights or a module saved by torch.save \(eager mode\)"):
        load(str(path))


def test_a_program_that_touches_files_is_not_loaded(tmp_path: Path, rows: dict[str, np.ndarray]) -> None:
    class Writes(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.from_file("/etc/hostname", False, 1, dtype=torch.uint8)

    torch.jit.save(torch.jit.script(Writes()), tmp_path / "net.pt")
    files = {"net.pt": (tmp_path / "net.pt").read_bytes()}
    for place in (mar(tmp_path / "shop.mar", files, serializedFile="net.pt"), f"torchscript:{tmp_path / 'net.pt'}"):
        with pytest.raises(ModelError, match="calls the operator from_file, which reads or writes files"):
            load(str(place), {"x": rows["gain"]})


def without_forward(content: bytes) -> bytes:
    """The archive with a program whose methods have another name."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(made, "w") as other:
        for entry in archive.infolist():
            inner = archive.read(entry)
            other.writestr(entry, inner.replace(b"forward", b"backwar") if entry.filename.endswith(".py") else inner)
    return made.getvalue()


def test_a_damaged_archive_of_pytorch(tmp_path: Path, rows: dict[str, np.ndarray]) -> None:
    content = traced(tmp_path)
    for place, other in enumerate((content[:-30], content.replace(b"constants.pkl", b"constants.pkx"), without_forward(content))):
        write(tmp_path / f"{place}.pt", other)
        with pytest.raises(ModelError, match="must be TorchScript"):
            load(f"torchscript:{tmp_path / f'{place}.pt'}", rows)

"""Which door opens a model file that lies in another server's folder, or why none does."""

from __future__ import annotations

from pathlib import Path

from headway.model.reference import ONNX
from headway.model.served._files import check_tree
from headway.model.torch_file import not_torchscript
from headway.records import ModelError

SAVED_MODEL, TORCHSCRIPT = "saved_model", "torchscript"
NO_CODE = "no code of it is executed; give the model itself by python:module:callable"
_REASONS = {
    ".py": f"it is Python code, and {NO_CODE}",
    ".plan": "a TensorRT engine is compiled for one GPU and cannot be read back; give the ONNX file that it was made from",
    ".engine": "a TensorRT engine is compiled for one GPU and cannot be read back; give the ONNX file that it was made from",
    ".xml": "OpenVINO's own format is not read; give the ONNX file that it was made from",
    ".graphdef": "a frozen graph has no signature; give the SavedModel folder that it was made from",
    ".safetensors": "it holds weights without a graph; give the model by python:module:callable",
    ".so": "it is compiled code and is not executed; export the model to ONNX, or by torch.export, and give that file",
    ".pt2": "give the .pt2 file by itself",
}
_PICKLE = "a pickle can run code and is not opened; export the model to ONNX where it was trained and give that file"
_REASONS |= dict.fromkeys((".pkl", ".pickle", ".joblib", ".bin", ".ckpt"), _PICKLE)


def door_of(path: Path, source: Path, told: str = "") -> str:
    """The door for a model file or a SavedModel folder.

    Args:
        source: what the user gave, for messages.
        told: what the path is called there; its name when empty.

    Raises:
        ModelError: no door takes it; the message says why and what to do.
    """
    told = told or path.name
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            check_tree(path)
            return SAVED_MODEL
        raise ModelError(f"{source}: {told} must be a model file or a SavedModel folder, got a folder without saved_model.pb")
    kind = path.suffix.lower()
    if not path.is_file() and kind not in _REASONS:
        raise ModelError(f"{source}: the model must lie at {told}, got nothing there; copy it with the rest of the folder")
    if kind == ".onnx":
        return ONNX
    if kind in (".pt", ".pth"):
        reason = not_torchscript(path)
        if not reason:
            return TORCHSCRIPT
        raise ModelError(f"{source}: {told} must be TorchScript or ONNX, got {reason}")
    why = _REASONS.get(kind, "export the model to ONNX and give that file")
    raise ModelError(f"{source}: the model must be ONNX, TorchScript or a SavedModel, got {told}: {why}")

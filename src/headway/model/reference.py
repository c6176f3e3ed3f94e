"""What a model reference means: ``FILE.KIND``, ``KIND:rest`` or a folder that holds ``KIND.pb``; the kind names the door."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from headway.records import ModelError

ONNX = "onnx"
_SCHEME = re.compile(r"^([a-z_][a-z_0-9]+):(.+)$")  # two letters at least: a drive of Windows is no scheme
_HINTS = {
    "pt": "a pickle can run code and is not opened; use torch.export and give the .pt2 file, or python:module:callable",
    "h5": "save it from Keras 3 as FILE.keras",
    "tflite": "give the SavedModel folder that it was made from",
    "pb": "give the SavedModel folder, not the file in it",
    "json": "give the model file, not a description",
}
_HINTS |= dict.fromkeys(("pth", "pkl", "pickle", "bin", "ckpt"), _HINTS["pt"])


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference: which door opens it, what it is given, and a short name for people."""

    door: str
    source: str
    name: str


def parse(text: str, doors: tuple[str, ...]) -> Reference:
    """The door, source and name that a reference means.

    Raises:
        ModelError: no door fits, or the file or folder is not there.
    """
    scheme = _SCHEME.match(text)
    if scheme and scheme[1] in doors:
        return Reference(scheme[1], scheme[2], re.split(r"[:.]", scheme[2])[-1])
    path = Path(text)
    if not path.exists():
        raise ModelError(f"{text}: must be an existing model, got nothing there; check the path. A model is one of: {kinds(doors)}")
    if path.is_dir():
        found = [file.stem for file in sorted(path.glob("*.pb")) if file.stem in doors]
        if not found:
            raise ModelError(
                f"{text}: a folder must be a TensorFlow SavedModel (hold saved_model.pb), got none. A model is: {kinds(doors)}"
            )
        return Reference(found[0], text, path.resolve().name)
    kind = path.suffix.removeprefix(".").lower()
    if kind == ONNX or kind in doors:
        return Reference(kind, text, path.stem)
    hint = _HINTS.get(kind)
    raise ModelError(
        f"{text}: must be a model, got a file of kind {path.suffix or 'without suffix'!r}; {hint or 'a model is one of: ' + kinds(doors)}"
    )


def kinds(doors: tuple[str, ...]) -> str:
    """The forms of a reference, for messages."""
    return (
        "FILE.onnx, FILE.pt2, FILE.keras, a SavedModel folder, python:module:callable"
        if set(doors) <= _SHIPPED
        else ", ".join((ONNX, *doors))
    )


_SHIPPED = {"pt2", "keras", "saved_model", "python"}

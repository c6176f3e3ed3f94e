"""What a model reference means: ``FILE.KIND``, ``KIND:rest``, a folder that holds ``KIND.pb``, or one that another server serves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headway.model.served.contract import Form
from headway.records import ModelError

ONNX = "onnx"
_SCHEME = re.compile(r"^([a-z_][a-z_0-9]+):(.+)$")  # two letters at least: a drive of Windows is no scheme
_HINTS = {
    "pt": "a pickle can run code and is not opened; use torch.export and give the .pt2 file, or python:module:callable; of TorchScript, give torchscript:FILE",
    "h5": "save it from Keras 3 as FILE.keras",
    "tflite": "give the SavedModel folder that it was made from",
    "pb": "give the SavedModel folder, not the file in it",
    "json": "give the model file, not a description",
    "pbtxt": "give the folder, not the file in it",
    "gz": "unpack it and give the folder",
}
_HINTS["tgz"] = _HINTS["gz"]
_HINTS |= dict.fromkeys(("pth", "pkl", "pickle", "bin", "ckpt"), _HINTS["pt"])


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed reference: the door that opens it, or the server whose form it has; what that is given; and a short name for people."""

    door: str
    source: str
    name: str


def parse(text: str, doors: tuple[str, ...], forms: Mapping[str, Form] | None = None) -> Reference:
    """The door, source and name that a reference means.

    Args:
        forms: the forms in which other servers keep models, by name.

    Raises:
        ModelError: no door fits, several do, or the file or folder is not there.
    """
    forms = forms or {}
    scheme = _SCHEME.match(text)
    if scheme and scheme[1] in doors:
        return Reference(scheme[1], scheme[2], _name(scheme[2]))
    forced = scheme[1] if scheme and scheme[1] in forms else ""
    place = scheme[2] if scheme and forced else text
    path = Path(place)
    if not _there(path):
        raise ModelError(f"{text}: must be an existing model, got nothing there; check the path. A model is one of: {kinds(doors)}")
    if forced:
        return _forced(forced, place, forms[forced])
    if path.is_dir():
        return _folder(text, doors, forms)
    kind = path.suffix.removeprefix(".").lower()
    if kind == ONNX or kind in doors or kind in forms:
        return Reference(kind, text, path.stem)
    hint = _HINTS.get(kind)
    raise ModelError(
        f"{text}: must be a model, got a file of kind {path.suffix or 'without suffix'!r}; {hint or 'a model is one of: ' + kinds(doors)}"
    )


def kinds(doors: tuple[str, ...]) -> str:
    """The forms of a reference, for messages."""
    return (
        "FILE.onnx, FILE.pt2, FILE.keras, a SavedModel folder, torchscript:FILE.pt, python:module:callable, "
        "or what Triton, TorchServe (FILE.mar), MLServer or TF Serving serves"
        if set(doors) <= _SHIPPED
        else ", ".join((ONNX, *doors))
    )


def _folder(text: str, doors: tuple[str, ...], forms: Mapping[str, Form]) -> Reference:
    """The one thing that a folder holds."""
    path = Path(text)
    found = [file.stem for file in sorted(path.glob("*.pb")) if file.stem in doors]
    found += [name for name, form in forms.items() if form.fits(path)]
    if not found:
        sought = "; ".join(["saved_model.pb: a TensorFlow SavedModel", *(form.LOOKS_LIKE for form in forms.values())])
        raise ModelError(f"{text}: a folder must hold a model, got none. Looked for: {sought}. A model is: {kinds(doors)}")
    if len(found) > 1:
        ways = " or ".join(f"{name}:{text}" for name in found)
        raise ModelError(f"{text}: a folder must hold one model, got what looks like {' and '.join(found)}; write {ways}")
    return Reference(found[0], text, path.resolve().name)


def _forced(name: str, place: str, form: Form) -> Reference:
    path = Path(place)
    if path.is_dir() and not form.fits(path):
        raise ModelError(f"{name}:{place}: the folder must look so: {form.LOOKS_LIKE}; got another; check the path")
    if path.is_file() and path.suffix.lower() != f".{name}":
        raise ModelError(f"{name}:{place}: must be a folder or a file of kind .{name}, got a file of kind {path.suffix!r}; check the path")
    return Reference(name, place, path.stem if path.is_file() else path.resolve().name)


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, a zero byte
        return False


def _name(rest: str) -> str:
    """The last word of a module's or a file's name."""
    path = Path(rest)
    return path.stem if _there(path) else re.split(r"[:.]", rest)[-1]


_SHIPPED = {"pt2", "keras", "saved_model", "python", "torchscript"}

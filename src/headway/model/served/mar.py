"""TorchServe: an archive ``NAME.mar``, or a folder with ``MAR-INF``; ONNX or TorchScript inside, and never the code beside it.

pytorch/serve, ``model-archiver/README.md`` (the manifest), ``ts/torch_handler/base_handler.py`` (which file is opened how) and
``docs/batch_inference_with_ts.md``. The four numbers of ``model-config.yaml`` that say how it was served stand at the start of a line; the
rest of that file is not read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headway.model.served._archive import unpack
from headway.model.served._files import inside, labels_of, read_json, read_text
from headway.model.served._model_file import NO_CODE, TORCHSCRIPT, door_of
from headway.model.served.contract import Inside, ServedBy
from headway.records import ModelError

LOOKS_LIKE = "TorchServe: MAR-INF/MANIFEST.json, or a file NAME.mar"
SERVER = "TorchServe"
MANIFEST, LABELS = "MAR-INF/MANIFEST.json", "index_to_name.json"
DEFAULT_WAIT_S = 0.1
"""``maxBatchDelay`` where it is not set."""
NOT_UNPACKED = (".py", ".pyc")
_CONFIGURED = re.compile(r"""^["']?(minWorkers|maxWorkers|batchSize|maxBatchDelay)["']?\s*:\s*(\d{1,9})\s*(?:#.*)?$""", re.MULTILINE)
_BUILT_IN = ("base_handler", "image_classifier", "image_segmenter", "object_detector", "text_classifier")


def fits(folder: Path) -> bool:
    """Whether the manifest's folder lies there."""
    return (folder / "MAR-INF").is_dir()


def find(source: Path, place: Path) -> Inside:
    """The manifest's ``serializedFile``, when it is ONNX or TorchScript. Python files of an archive are not even unpacked.

    Raises:
        ModelError: an eager model, a model made by a handler's code, a file that is not there, an archive that cannot be trusted.
    """
    folder = source
    if not source.is_dir():
        unpack(source, place, lambda name: not name.lower().endswith(NOT_UNPACKED))
        folder = place
    manifest = read_json(inside(folder, MANIFEST))
    model = manifest.get("model")
    if not isinstance(model, dict):
        raise ModelError(f"{source}: {MANIFEST} must have a 'model', got none; make the archive again with torch-model-archiver")
    handler = str(model.get("handler", ""))[:100]
    path = inside(folder, _serialized(source, model, handler))
    if model.get("modelFile"):
        raise ModelError(
            f"{source}: must hold ONNX or TorchScript, got an eager model: {path.name} are weights for the Python code in "
            f"{str(model['modelFile'])[:100]}, and {NO_CODE}"
        )
    door = door_of(path, source)
    notes = []
    if door == TORCHSCRIPT:
        notes.append("TorchScript is a program in PyTorch's own language: it was run to be exported; Python code of the archive was not")
    if handler and handler != "base_handler":
        what = f"TorchServe's handler {handler}" if handler in _BUILT_IN else f"the handler {handler}"
        notes.append(
            f"{what} is not imported: what it does before and after the model is not in it; samples must be what the model itself takes"
        )
    return Inside(door=door, path=path, served_by=_served_by(folder, model), labels=_labels(folder), notes=tuple(notes))


def _serialized(source: Path, model: Mapping[str, Any], handler: str) -> str:
    named = model.get("serializedFile")
    if not isinstance(named, str) or not named:
        raise ModelError(
            f"{source}: {MANIFEST} must name a serializedFile, got none: the handler {handler or 'there'} makes the model, and {NO_CODE}"
        )
    return named


def _served_by(folder: Path, model: Mapping[str, Any]) -> ServedBy | None:
    """What ``model-config.yaml`` says; none where there is no such file, since registration then decided."""
    named = model.get("configFile")
    if not isinstance(named, str) or not named:
        return None
    told = {name: int(number) for name, number in _CONFIGURED.findall(read_text(inside(folder, named)))}
    size = told.get("batchSize", 1)
    workers = told.get("minWorkers", told.get("maxWorkers"))
    wait_s = told["maxBatchDelay"] / 1e3 if "maxBatchDelay" in told else DEFAULT_WAIT_S
    return ServedBy(server=SERVER, instances=workers, max_batch=size, max_wait_s=wait_s if size > 1 else 0.0) if told else None


def _labels(folder: Path) -> tuple[str, ...]:
    """``index_to_name.json``: a class's number to its name, or to a list that ends with it."""
    if not (folder / LABELS).exists():
        return ()
    told = read_json(inside(folder, LABELS))
    names = []
    for number in range(len(told)):
        value = told.get(str(number))
        value = value[-1] if isinstance(value, list) and value else value
        if not isinstance(value, str):
            return ()
        names.append(value)
    return labels_of(names)

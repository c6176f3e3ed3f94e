"""MLServer: a folder with ``model-settings.json``, which names the runtime and the model's file; adaptive batching from the same file.

SeldonIO/MLServer, ``mlserver/settings.py``, ``mlserver/utils.py`` (a relative uri is looked for beside the settings) and ``mlserver/batching/hooks.py``
(batches are formed where both the size and the time are set); workers are in ``settings.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headway.model.served._datatypes import NAMES, UNKNOWN
from headway.model.served._files import inside, read_json
from headway.model.served._model_file import door_of
from headway.model.served.contract import Inside, ServedBy
from headway.records import ModelError, TensorSpec

LOOKS_LIKE = "MLServer: model-settings.json"
SERVER = "MLServer"
SETTINGS, WORKERS = "model-settings.json", "settings.json"
WELL_KNOWN = ("model.onnx",)
_TREES = "it is a tree model in its library's own format; convert it with onnxmltools where it was trained and give the .onnx file"
_EXPLAINS = "it explains or watches another model; give that model"
REFUSED = {
    "mlserver_sklearn": "a scikit-learn model is a pickle, which can run code and is not opened; convert it with skl2onnx (zipmap=False) where it was trained and give the .onnx file",
    "mlserver_xgboost": _TREES,
    "mlserver_lightgbm": _TREES,
    "mlserver_catboost": "it is a tree model in its library's own format; save it with CatBoost's format='onnx' and give the .onnx file",
    "mlserver_mlflow": "an MLflow model is opened by pickles and Python code, which are not executed; give the file of its framework (with the flavour onnx, the .onnx file in it)",
    "mlserver_huggingface": "it is downloaded and run by Python code, which is not executed; export it (optimum-cli export onnx --model NAME FOLDER) and give FOLDER/model.onnx",
    "mlserver_alibi_detect": _EXPLAINS,
    "mlserver_alibi_explain": _EXPLAINS,
}
"""The package of a runtime, and why its models are not taken."""
MOST_TENSORS = 1000


def fits(folder: Path) -> bool:
    """Whether the settings lie there."""
    return (folder / SETTINGS).exists()


def find(source: Path, place: Path) -> Inside:
    """The file that ``parameters.uri`` names, when it is ONNX, TorchScript or a SavedModel.

    Raises:
        ModelError: a runtime whose models cannot be taken, a file that is not there, a folder that cannot be trusted.
    """
    settings = read_json(inside(source, SETTINGS))
    implementation = str(settings.get("implementation", ""))[:200]
    reason = REFUSED.get(implementation.partition(".")[0])
    if reason:
        raise ModelError(f"{source}: a model of {implementation} cannot be taken: {reason}")
    path = _path(source, settings)
    door = door_of(path, source, str(path.relative_to(source)))
    custom = f"the runtime {implementation} is Python code and is not executed: what it does before and after the model is not imported"
    return Inside(
        door=door, path=path, name=_name(settings), served_by=_served_by(source, settings), inputs=_specs(settings.get("inputs")),
        outputs=_specs(settings.get("outputs")), notes=(custom,) if implementation else (),
    )  # fmt: skip


def _name(settings: Mapping[str, Any]) -> str:
    name = settings.get("name")
    return name if isinstance(name, str) and name.replace("-", "").replace("_", "").isalnum() and len(name) <= 100 else ""


def _path(source: Path, settings: Mapping[str, Any]) -> Path:
    parameters = settings.get("parameters")
    uri = parameters.get("uri") if isinstance(parameters, dict) else None
    if uri is None or uri in (".", "./"):
        return _only(source, source)
    if not isinstance(uri, str) or "://" in uri:
        raise ModelError(f"{source}: parameters.uri must be a file in the folder, got {str(uri)[:200]!r}; copy the model into the folder")
    path = inside(source, uri)
    return _only(source, path) if path.is_dir() and not (path / "saved_model.pb").is_file() else path


def _only(source: Path, folder: Path) -> Path:
    """The well-known name, or the only ONNX file of a folder."""
    for name in WELL_KNOWN:
        if (folder / name).is_file():
            return inside(source, str((folder / name).relative_to(source)))
    found = sorted(folder.glob("*.onnx")) if folder.is_dir() else []
    if len(found) != 1:
        got = f"{len(found)} ONNX files" if found else "none"
        where = "parameters.uri is not set, and the folder" if folder == source else f"{folder.relative_to(source)}"
        raise ModelError(f"{source}: {where} must hold one ONNX file, got {got}; name the model's file in parameters.uri")
    return inside(source, str(found[0].relative_to(source)))


def _served_by(source: Path, settings: Mapping[str, Any]) -> ServedBy:
    """Batches are formed only where both numbers are set."""
    size, wait_s = _number(source, settings, "max_batch_size", int), _number(source, settings, "max_batch_time", float)
    joined = size > 1 and wait_s > 0
    workers = 1
    if (source / WORKERS).exists():
        workers = max(1, int(_number(source, read_json(inside(source, WORKERS)), "parallel_workers", int, 1)))
    return ServedBy(server=SERVER, instances=workers, max_batch=int(size) if joined else 1, max_wait_s=wait_s if joined else 0.0)


def _number(source: Path, settings: Mapping[str, Any], name: str, kind: type[int] | type[float], otherwise: float = 0) -> float:
    value = settings.get(name, otherwise)
    fits_kind = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9 and value == kind(value)
    if not fits_kind:
        raise ModelError(f"{source}: {name} must be a number, got {str(value)[:100]!r}; correct the settings")
    return float(value)


def _specs(tensors: Any) -> tuple[TensorSpec, ...]:
    """The tensors of the metadata, whole shapes with the batch; those that are not complete are left out."""
    made = []
    for tensor in tensors[:MOST_TENSORS] if isinstance(tensors, list) else []:
        told = tensor if isinstance(tensor, dict) else {}
        name, shape = told.get("name"), told.get("shape")
        if isinstance(name, str) and isinstance(shape, list) and shape and all(isinstance(size, int) for size in shape):
            dtype = NAMES.get(str(told.get("datatype")), UNKNOWN)
            made.append(TensorSpec(name=name, dtype=dtype, shape=("batch", *(size if size >= 0 else "?" for size in shape[1:]))))
    return tuple(made)

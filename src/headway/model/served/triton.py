"""Triton: a model's folder with ``config.pbtxt`` and numbered versions, or a repository that holds a single model.

triton-inference-server/server, ``docs/user_guide/model_repository.md`` and ``model_configuration.md``: file names by backend, version
policies, instance groups, the dynamic batcher, and what the server completes by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headway.model.served._datatypes import NAMES, UNKNOWN
from headway.model.served._files import inside, labels_of, read_text, subfolders, versions
from headway.model.served._model_file import NO_CODE, TORCHSCRIPT, door_of
from headway.model.served._pbtxt import ENUMS, read_message
from headway.model.served.contract import MOST_THREADS, Inside, ServedBy
from headway.records import ModelError, TensorSpec

LOOKS_LIKE = "Triton: config.pbtxt, or 1/model.onnx"
SERVER = "Triton"
CONFIG = "config.pbtxt"
FILES = {
    "onnxruntime": "model.onnx", "pytorch": "model.pt", "tensorflow": "model.savedmodel", "openvino": "model.xml",
    "tensorrt": "model.plan", "python": "model.py",
}  # fmt: skip
"""The model's name in a version's folder, by backend."""
PLATFORMS = {
    "onnxruntime_onnx": "onnxruntime", "pytorch_libtorch": "pytorch", "tensorflow_savedmodel": "tensorflow", "tensorrt_plan": "tensorrt",
}  # fmt: skip
"""The older name of a backend."""
REFUSED = {
    "python": f"the Python backend executes model.py, and {NO_CODE}",
    "tensorrt": "a TensorRT engine is compiled for one GPU and cannot be read back; give the ONNX file that it was made from",
    "tensorflow_graphdef": "a frozen graph has no signature; give the SavedModel folder that it was made from",
    "ensemble": "an ensemble is several models; give the folder of one of them",
}
DEFAULT_INSTANCES = {"onnxruntime": 2, "tensorflow": 2}
"""Where a group on processors says no count (triton-inference-server/core, ``model_config_utils.cc``); 1 for other backends."""
MOST_LISTED = 8


def fits(folder: Path) -> bool:
    """Whether it is a model's folder, or holds some."""
    return (folder / CONFIG).exists() or any(_known(each) for each in versions(folder).values()) or bool(_models(folder))


def find(source: Path, place: Path) -> Inside:
    """The model of the version that Triton serves: the highest that its policy allows.

    Raises:
        ModelError: a backend that is not taken, a version or a file that is not there, a folder that cannot be trusted.
    """
    folder = _model_folder(source)
    if not (folder / CONFIG).exists():
        return _bare(folder)
    config = read_message(inside(folder, CONFIG), "ModelConfig")
    number, version, notes = _version(folder, config)
    backend, path = _model(folder, version, config)
    told = f"{number}/{path.relative_to(version)}"
    door = door_of(path, folder, told)
    joins = config.max_batch_size > 0
    served_by = _served_by(config, backend)
    if config.HasField("sequence_batching"):
        notes += ("the sequence batcher keeps state between requests, which is not imported: every request stands alone",)
    return Inside(
        door=door, path=path, name=folder.resolve().name, served_by=served_by,
        inputs=_specs(config.input, joins), outputs=_specs(config.output, joins), positional=door == TORCHSCRIPT,
        labels=_labels(folder, config), notes=notes,
    )  # fmt: skip


def _model_folder(source: Path) -> Path:
    """The folder of the model: the given one, or the only model of a repository."""
    if (source / CONFIG).exists() or any(_known(each) for each in versions(source).values()):
        return source
    models = _models(source)
    if not models:
        raise ModelError(f"{source}: must be a Triton model's folder or hold one, got neither {CONFIG} nor 1/model.onnx; check the path")
    if len(models) > 1:
        names = ", ".join(each.name for each in models[:MOST_LISTED]) + (", ..." if len(models) > MOST_LISTED else "")
        raise ModelError(f"{source}: must be one model, got a Triton repository of {len(models)} ({names}); give the folder of one of them")
    return inside(source, models[0].name)


def _models(source: Path) -> list[Path]:
    return [each for each in subfolders(source) if (each / CONFIG).is_file()]


def _known(version: Path) -> bool:
    return any((version / name).exists() for name in FILES.values())


def _bare(folder: Path) -> Inside:
    """A model without a configuration: Triton completes one from the file."""
    found = {number: each for number, each in versions(folder).items() if _known(each)}
    number, version = max(found.items())
    _, path = _by_file(folder, inside(folder, version.name))
    notes = (*_other_versions(number, found), f"no {CONFIG}: how {SERVER} batched is not known")
    return Inside(door=door_of(path, folder, f"{number}/{path.relative_to(version)}"), path=path, name=folder.resolve().name, notes=notes)


def _version(folder: Path, config: Any) -> tuple[int, Path, tuple[str, ...]]:
    there = {number: each for number, each in versions(folder).items() if number > 0 and not each.name.startswith("0")}
    asked = set(config.version_policy.specific.versions) if config.version_policy.HasField("specific") else set()
    served = {number: each for number, each in there.items() if not asked or number in asked}
    if not served:
        wanted = f"version {' or '.join(map(str, sorted(asked)))}" if asked else "a version's folder such as 1"
        got = f"only {', '.join(map(str, list(there)[:MOST_LISTED]))}" if there else "none"
        raise ModelError(f"{folder}: must hold {wanted} with the model in it, got {got}; copy the whole folder")
    number, version = max(served.items())
    return number, inside(folder, version.name), _other_versions(number, served)


def _other_versions(number: int, found: Sequence[int] | dict[int, Path]) -> tuple[str, ...]:
    return (f"version {number} is taken, the highest of {len(found)}",) if len(found) > 1 else ()


def _model(folder: Path, version: Path, config: Any) -> tuple[str, Path]:
    """The backend, and the model's file or folder.

    Raises:
        ModelError: the backend is not taken.
    """
    backend = config.backend or PLATFORMS.get(config.platform, config.platform)
    if config.HasField("ensemble_scheduling"):
        backend = "ensemble"
    if backend in REFUSED:
        beside = " (model.onnx lies beside it: if that is the model, give that file)" if (version / "model.onnx").is_file() else ""
        raise ModelError(f"{folder}: a model for the backend {backend!r} cannot be taken: {REFUSED[backend]}{beside}")
    if backend not in ("", *FILES):
        taken = "onnxruntime, pytorch or tensorflow"
        raise ModelError(f"{folder}: the backend must be {taken}, got {backend[:100]!r}; give the ONNX file that the model was made from")
    named = config.default_model_filename
    if not backend and not named:
        return _by_file(folder, version)
    path = inside(version, named or FILES[backend])
    return backend or _backend_of(path), _whole(path)


def _by_file(folder: Path, version: Path) -> tuple[str, Path]:
    """The backend by the file that lies there, as Triton finds it."""
    for backend, name in FILES.items():
        if (version / name).exists():
            if backend in REFUSED:
                raise ModelError(f"{folder}: a model for the backend {backend!r} cannot be taken: {REFUSED[backend]}")
            return backend, _whole(inside(version, name))
    raise ModelError(
        f"{folder}: version {version.name} must hold the model, got none of {', '.join(FILES.values())}; copy the whole folder"
    )


def _backend_of(path: Path) -> str:
    return next((backend for backend, name in FILES.items() if Path(name).suffix == path.suffix), "")


def _whole(path: Path) -> Path:
    """A folder named ``model.onnx`` holds the graph beside its weights."""
    return inside(path, path.name if (path / path.name).is_file() else "model.onnx") if path.suffix == ".onnx" and path.is_dir() else path


def _served_by(config: Any, backend: str) -> ServedBy:
    batching = config.dynamic_batching if config.HasField("dynamic_batching") else None
    joined = batching is not None and config.max_batch_size > 1
    gpu = any(ENUMS["Kind"][group.kind] == "KIND_GPU" or group.gpus for group in config.instance_group)
    default = 1 if gpu else DEFAULT_INSTANCES.get(backend, 1)
    counts = [(group.count if group.count > 0 else default) * max(1, len(group.gpus)) for group in config.instance_group]
    return ServedBy(
        server=SERVER, instances=sum(counts) or default, threads=_threads(config), max_batch=config.max_batch_size if joined else 1,
        max_wait_s=batching.max_queue_delay_microseconds / 1e6 if joined else 0.0,
        preferred=tuple(batching.preferred_batch_size) if joined else (), device="gpu" if gpu else "cpu",
    )  # fmt: skip


def _threads(config: Any) -> int | None:
    """Threads inside an instance; none: every core, which is what 0 says too."""
    told = next((entry.value.string_value for entry in config.parameters if entry.key == "intra_op_thread_count"), "0").strip()
    if not (told.isascii() and told.isdigit() and len(told) < 10) or int(told) > MOST_THREADS:
        raise ModelError(f"{SERVER}: intra_op_thread_count must be a number from 0 to {MOST_THREADS}, got {told[:40]!r}; correct {CONFIG}")
    return int(told) or None


def _specs(tensors: Sequence[Any], joins: bool) -> tuple[TensorSpec, ...]:
    """The tensors as the graph should have them: the batch put before them, and their own shape where they are reshaped."""
    made = []
    for tensor in tensors:
        sizes = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
        shape = tuple(size if size >= 0 else "?" for size in sizes)
        dtype = NAMES.get(ENUMS["DataType"][tensor.data_type].removeprefix("TYPE_"), UNKNOWN)
        made.append(TensorSpec(name=tensor.name, dtype=dtype, shape=("batch", *shape) if joins else shape))
    return tuple(made)


def _labels(folder: Path, config: Any) -> tuple[str, ...]:
    """The classes of the first output that has a file of labels."""
    named = next((output.label_filename for output in config.output if output.label_filename), "")
    return labels_of(read_text(inside(folder, named)).splitlines()) if named else ()

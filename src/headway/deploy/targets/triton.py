"""A Triton model repository: ONNX Runtime backend, or Python backend with onnxruntime; dynamic batching from the plan."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path

import msgspec
import numpy as np

from headway.deploy.asking import Refused, ask
from headway.deploy.exporting import Request, Written
from headway.deploy.targets._triton_config import LABELS, ONNX_RUNTIME, PYTHON, WARM_FOLDER, Settings, config_text, shape_there, warm_file
from headway.deploy.targets._triton_server import Running, running
from headway.records import BundleError, ConfigError, Export, Plan, ServerPolicy, TensorSpec, Unsupported, parse_time_s
from headway.runtime import runtimes
from headway.serve import batchable

BACKENDS = (ONNX_RUNTIME, PYTHON)
RUNTIME = "onnx_runtime"
SETTINGS: Mapping[str, str] = {
    "backend": "onnxruntime (the default), or python: a model.py that needs onnxruntime and numpy in the Python of Triton's Python backend",
    "deadline": "how long a request may wait in the queue before it is refused: none (the default), objective (its latency bound), or a time",
    "queue": "how many requests may wait; further ones are refused at once: none (the default), or a number",
}
MODEL_FILE = Path(__file__).parent.parent / "triton_files" / "model.py"
REQUEST_S, BATCH_S, BYTE_S = 115e-6, 160e-6, 0.9e-9
"""CPU time beside the model, behind the Python backend: of a request, of a batch, and of a byte of a request's tensors [s]."""
OWN_S, OWN_BYTE_S = 66e-6, 0.46e-9
"""What Headway's own server took for a request, one of many, and for a byte, on a machine of that pace [s]."""
HALF = 0.5
"""How full a batch is taken to be, when its share is laid on requests."""
MEASURED = "benchmarks/exports front, one core of a shared AMD EPYC"
MOST_QUEUED = 2**31 - 1
MOST_WAIT_S = 3600.0
WEIGHT_ONLY = "quantize_weights"
STALL = "triton-inference-server/server, issue 8870"
PACKAGES = "numpy onnxruntime"
"""What ``model.py`` imports."""
TRIES = 3
MOST_AT_ONCE = 16

Arrays = Mapping[str, np.ndarray]


def write(request: Request) -> Written:
    """The model's folder with ``config.pbtxt``, the model, warm-up rows out of the golden set, and labels.

    Raises:
        ConfigError: a setting is out of range. Unsupported: Triton cannot serve the variant.
    """
    backend = _backend(request.settings)
    waits_s, queue = _deadline_s(request), _queue(request.settings)
    _check(request)
    joins = batchable(request.inputs, request.outputs)
    folder = request.folder / request.name
    request.copy_model(f"{request.name}/1/model.onnx")
    if backend == PYTHON:
        shutil.copyfile(MODEL_FILE, folder / "1" / "model.py")
    plan = msgspec.structs.replace(request.bundled.plan, runtime=RUNTIME)
    settings = Settings(
        name=request.name, backend=backend, plan=plan, inputs=request.inputs, outputs=request.outputs, joins=joins, waits_s=waits_s, queue=queue,
        labelled=_write_labels(request, folder, joins), warm=_write_warm(request, folder, joins),
    )  # fmt: skip
    (folder / "config.pbtxt").write_text(config_text(settings), "utf-8")
    return Written(
        model=f"{request.name}/1/model.onnx", policy=_policy(request, backend, plan, joins), start=_start(backend),
        notes=_notes(request, backend, joins, waits_s is not None or queue is not None),
    )  # fmt: skip


def answers(folder: Path, export: Export, inputs: Arrays) -> dict[str, np.ndarray]:
    """The real server's answers: every row in a request of its own, all at the same time, so that it forms batches.

    Raises:
        MissingPackage: no Triton here. Unsupported: it lacks the backend. BundleError: it could not serve the model.
    """
    backend = PYTHON if (folder / export.model / "1" / "model.py").is_file() else ONNX_RUNTIME
    with running(folder, export.model, backend) as server:
        return answers_of(server, export, inputs)


def answers_of(server: Running, export: Export, inputs: Arrays) -> dict[str, np.ndarray]:
    """As ``answers``, of a server that runs already."""
    joins = batchable(export.inputs, export.outputs)
    count = len(next(iter(inputs.values()))) if joins else 1
    each = [{name: array[row : row + 1] for name, array in inputs.items()} for row in range(count)] if joins else [dict(inputs)]
    with ThreadPoolExecutor(min(count, MOST_AT_ONCE)) as pool:
        first = list(pool.map(lambda one: _try(server, export, one, joins), each))
    given = [_asked(server, export, one, joins) if answer is None else answer for one, answer in zip(each, first, strict=True)]
    return {spec.name: np.concatenate([answer[spec.name] for answer in given]) if joins else given[0][spec.name] for spec in export.outputs}


def _try(server: Running, export: Export, inputs: Arrays, joins: bool) -> dict[str, np.ndarray] | None:
    """The answer to one request in the shapes of the model; none when the queue refused it."""
    specs = {spec.name: spec for spec in export.inputs}
    sent = {name: array.reshape(shape_there(specs[name], array.shape, joins)) for name, array in inputs.items()}
    try:
        got = ask(server.where, export.model, sent, export.outputs)
        return {spec.name: _shaped(spec, got[spec.name], joins) for spec in export.outputs}
    except Refused as refused:
        if refused.status == HTTPStatus.SERVICE_UNAVAILABLE:
            return None
        raise
    except KeyError as error:
        raise BundleError(f"tritonserver must answer with every output, and {error} is missing") from error


def _asked(server: Running, export: Export, inputs: Arrays, joins: bool) -> dict[str, np.ndarray]:
    """A request that the queue refused, asked again with no other beside it."""
    for _ in range(TRIES):
        answer = _try(server, export, inputs, joins)
        if answer is not None:
            return answer
    raise BundleError("tritonserver must answer a request that has the server to itself, and its queue refused it")


def _shaped(spec: TensorSpec, array: np.ndarray, joins: bool) -> np.ndarray:
    alone = joins and len(spec.shape) == 1 and array.shape[1:] == (1,)
    return array[:, 0] if alone else array


def _backend(settings: Mapping[str, str]) -> str:
    backend = settings.get("backend", ONNX_RUNTIME)
    if backend not in BACKENDS:
        raise ConfigError(f"--set backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    return backend


def _deadline_s(request: Request) -> float | None:
    text = request.settings.get("deadline", "none")
    if text == "none":
        return None
    seconds = request.bundle.manifest.objective.latency_s if text == "objective" else parse_time_s(text, "--set deadline")
    if seconds is not None and seconds > MOST_WAIT_S:
        raise ConfigError(f"--set deadline must be at most {MOST_WAIT_S:g}s, got {seconds:g}s; give none for no deadline")
    return seconds


def _queue(settings: Mapping[str, str]) -> int | None:
    text = settings.get("queue", "none")
    if text == "none":
        return None
    if not text.isdecimal() or not 1 <= int(text) <= MOST_QUEUED:
        raise ConfigError(f"--set queue must be none or a number from 1 to {MOST_QUEUED}, got {text!r}")
    return int(text)


def _check(request: Request) -> None:
    plan = request.bundled.plan
    if plan.device != "cpu":
        raise Unsupported(
            f"the export to Triton is for processors, and the plan's device is {plan.device!r}; export a variant planned for the cpu"
        )
    runtime = runtimes().present.get(RUNTIME)
    reason = runtime.refuse(request.bundle.model_path(request.index)) if runtime is not None else None
    if reason is not None:
        raise Unsupported(f"Triton would run the variant {request.bundled.variant.name!r} by ONNX Runtime, which refuses it: {reason}")


def _write_labels(request: Request, folder: Path, joins: bool) -> frozenset[str]:
    """The outputs that have as many classes as there are labels; the file is written when there is one."""
    labels = request.bundle.manifest.labels
    golden = request.bundle.golden.outputs[request.index]
    classes = {name: math.prod(array.shape[1:] if joins else array.shape) for name, array in golden.items()}
    named = frozenset(name for name, count in classes.items() if labels and count == len(labels) and golden[name].dtype.kind in "fiu")
    if named:
        (folder / LABELS).write_text("".join(f"{' '.join(label.splitlines())}\n" for label in labels), "utf-8")
    return named


def _write_warm(request: Request, folder: Path, joins: bool) -> dict[str, tuple[int, ...]]:
    """The bytes of the golden set's first row, and its shape, by input."""
    shapes = {}
    (folder / WARM_FOLDER).mkdir()
    for place, spec in enumerate(request.inputs):
        array = request.bundle.golden.inputs[spec.name]
        row = array[0] if joins else array
        (folder / WARM_FOLDER / warm_file(place)).write_bytes(np.ascontiguousarray(row, row.dtype.newbyteorder("<")).tobytes())
        shapes[spec.name] = row.shape
    return shapes


def _policy(request: Request, backend: str, plan: Plan, joins: bool) -> ServerPolicy:
    size, rows = _bytes_a_request(request, joins), max(1.0, HALF * plan.max_batch)
    front_s = REQUEST_S + BATCH_S / rows + BYTE_S * size
    formula = f"{REQUEST_S * 1e6:.3g} us, a batch's {BATCH_S * 1e6:.3g} us over {rows:g} requests, and {BYTE_S * 1e9:.2g} ns for each of {size} bytes"
    if backend == PYTHON:
        basis = f"{formula}: CPU of tritonserver and of the Python backend's process beside a light model ({MEASURED})"
    else:
        basis = f"{formula}: an upper bound, measured behind the Python backend ({MEASURED}), which has a process more; the ONNX Runtime backend was not measured"
    steals = backend == PYTHON or plan.instances * plan.threads >= request.bundle.manifest.environment.cores
    return ServerPolicy(plan=plan, refuses=False, front_s=front_s, front_steals=steals, basis=basis, own_front_s=OWN_S + OWN_BYTE_S * size)


def _bytes_a_request(request: Request, joins: bool) -> int:
    """Of one row's tensors, inputs and outputs, by the golden set."""
    golden = request.bundle.golden
    arrays = [*golden.inputs.values(), *golden.outputs[request.index].values()]
    return sum(array.nbytes // max(1, len(array)) if joins else array.nbytes for array in arrays)


def _start(backend: str) -> tuple[str, ...]:
    """In Triton's container, and as a program."""
    options = '--shm-size=1g -p 8000:8000 -p 8001:8001 -p 8002:8002 -v "$PWD":/models:ro'
    container = f"docker run --rm {options} nvcr.io/nvidia/tritonserver:YY.MM-py3"
    inside = "tritonserver --model-repository /models"
    if backend == PYTHON:
        inside = f"sh -c 'pip install {PACKAGES} && {inside}'"
    return f"{container} {inside}", "tritonserver --model-repository ."


def _notes(request: Request, backend: str, joins: bool, limited: bool) -> tuple[str, ...]:
    """What is other there than behind Headway's server."""
    plan = request.bundled.plan
    notes = []
    if plan.runtime != RUNTIME:
        notes.append(
            f"the plan's runtime is {plan.runtime}; Triton runs the model by ONNX Runtime, so only times measured with that hold there"
        )
    if limited:
        notes.append(
            f"a limit on the queue can make Triton stop answering under load ({STALL}); try it at the load you expect before you rely on it"
        )
    rowless = [spec.name for spec in (*request.inputs, *request.outputs) if joins and len(spec.shape) == 1]
    if rowless:
        notes.append(f"Triton has no rows without dimensions: {', '.join(rowless)} are sent and answered with the shape [rows, 1]")
    if backend == ONNX_RUNTIME and plan.threads > 1:
        notes.append(
            "threads of Triton's ONNX Runtime backend spin between calls, and it has no setting for that; those of the plan were measured without"
        )
    if backend == ONNX_RUNTIME and any(step.technique == WEIGHT_ONLY for step in request.bundled.variant.recipe):
        notes.append(
            "Triton's ONNX Runtime backend cannot be told to keep activations exact beside narrow weights; compare its answers, or take backend=python"
        )
    if request.scaling is not None:
        notes.append("Triton does not scale itself: the planned settings stand in export.json, for what runs its containers")
    return tuple(notes)

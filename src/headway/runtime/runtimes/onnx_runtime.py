"""ONNX Runtime on the CPU or an NVIDIA GPU: float32 exactly as written, integer kernels where the graph carries quantize/dequantize nodes.

Memory: weights are held once for all one-thread instances of a process (they share one session, whose ``run`` may be called from several
threads and which then has no pool of its own); with more threads each instance owns its session, since a shared pool would make them
wait for each other. Measured with 96 MiB of weights and three instances: 104 MiB shared, 409 MiB owned; the shared one is as fast with
small weights and about a tenth faster with weights that overflow the cache. The arena stays on: without it resident memory did not fall,
and it keeps batches of changing size from asking the system each time.

On a GPU: the library of the package ``onnxruntime-gpu``. Nodes without a kernel there run on the CPU, as the library decides; a session
without the GPU is refused. Products are computed in float32 (TF32 is off). TensorRT builds its engine at the first run, and again when a
size leaves the range seen so far, which takes from seconds to minutes.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from headway.records import ConfigError, DataError, HeadwayError, ModelError, TensorSpec, Unsupported
from headway.runtime.session import check_feeds
from headway.runtime.sharing import Shared

DEVICES = ("cpu", "cuda", "tensorrt")
PRECISION_KEY = "headway.precision"
_TYPES = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16", "tensor(bfloat16)": "bfloat16", "tensor(bool)": "bool",
    "tensor(string)": "object", "tensor(int8)": "int8", "tensor(int16)": "int16", "tensor(int32)": "int32", "tensor(int64)": "int64",
    "tensor(uint8)": "uint8", "tensor(uint16)": "uint16", "tensor(uint32)": "uint32", "tensor(uint64)": "uint64",
}  # fmt: skip

Provider = str | tuple[str, dict[str, Any]]
_CUDA: Provider = ("CUDAExecutionProvider", {"use_tf32": "0"})
_PROVIDERS: dict[str, list[Provider]] = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": [_CUDA, "CPUExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider", _CUDA, "CPUExecutionProvider"],
}
"""By device, what takes the nodes: each provider those that the ones before it have no kernel for."""
_one_thread: dict[str, Shared[ort.InferenceSession]] = {device: Shared() for device in DEVICES}

ort.disable_telemetry_events()
ort.set_default_logger_severity(3)


def versions() -> dict[str, str]:
    """The library's version."""
    return {"onnxruntime": ort.__version__}


def usable() -> tuple[str, ...]:
    """The devices whose provider this build of the library has, and for which a GPU is here."""
    here = ort.get_available_providers() if _gpu_is_here() else []
    return tuple(device for device in DEVICES if device == "cpu" or _first(device) in here)


def refuse(path: Path, *, device: str = "cpu") -> str | None:
    """Why the graph cannot be honoured: no device, a type without kernels, or it does not load; none when it can."""
    try:
        open_session(path, threads=1, device=device).close()
    except (ModelError, Unsupported) as error:
        return str(error)
    return None


def open_session(path: Path, *, threads: int, device: str = "cpu") -> OnnxRuntimeSession:
    """A session of ``threads`` threads, which do not spin between calls.

    Raises:
        ConfigError: threads below one.
        ModelError: no ONNX graph. Unsupported: the device is not here, or the graph asks for what its provider does not have.
    """
    if threads < 1:
        raise ConfigError(f"threads must be at least 1, got {threads}")
    if threads == 1:
        session = _one_thread[device].get(path, functools.partial(load, device=device))
    else:
        session = load(path, session_options(threads), device=device)
    refusal = _refusal(session, device)
    if refusal is not None:
        raise Unsupported(refusal)
    return OnnxRuntimeSession(session)


class OnnxRuntimeSession:
    """One graph in ONNX Runtime."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session: ort.InferenceSession | None = session
        self.inputs = tuple(_spec(value) for value in session.get_inputs())
        self.outputs = tuple(_spec(value) for value in session.get_outputs())
        self._names = [spec.name for spec in self.outputs]

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name."""
        session = self._session
        if session is None:
            raise HeadwayError("a session must be open to run, and this one was closed; open another")
        check_feeds(self.inputs, feeds)
        try:
            return dict(zip(self._names, session.run(self._names, dict(feeds)), strict=True))
        except Exception as error:  # the library raises its own types, which share no base
            raise DataError(f"the graph must run on these inputs, got from ONNX Runtime: {_short(error)}") from error

    def close(self) -> None:
        """Let go of the graph; closing twice is harmless."""
        self._session = None


def session_options(threads: int = 1) -> ort.SessionOptions:
    """The options that every session and the census run with: all optimizations, and nothing that computes in a narrower type unasked."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # By default products with block-wise narrow weights quantize their activations to int8 as well: 5e-3 off where 1 (float32) is exact.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    options.add_session_config_entry("mlas.enable_gemm_fastmath_arm64_bfloat16", "0")
    options.log_severity_level = 4
    return options


def load(path: Path, options: ort.SessionOptions | None = None, device: str = "cpu") -> ort.InferenceSession:
    """The library's own session.

    Raises:
        ModelError: no ONNX graph. Unsupported: a node without a kernel, or the device is not here.
    """
    if device != "cpu":
        _prepare(device)
    if not path.is_file():
        raise ModelError(f"{path}: must be an ONNX file, got nothing there")
    try:
        session = ort.InferenceSession(str(path), options or session_options(), providers=_PROVIDERS[device], enable_fallback=0)
    except Exception as error:  # the library raises its own types, which share no base
        text = _short(error)
        if "NOT_IMPLEMENTED" in str(error):
            raise Unsupported(f"ONNX Runtime has no {device} kernel for a node of the graph: {text}") from error
        if device != "cpu":
            load(path)  # a graph that is at fault fails here too
            raise Unsupported(
                f"ONNX Runtime must start {_first(device)} for this graph, got: {text}; check the GPU, or plan for cpu"
            ) from error
        raise ModelError(f"{path}: must be an ONNX graph that ONNX Runtime can load, got: {text}") from error
    if _first(device) not in session.get_providers():  # what cannot start is left out in silence
        raise Unsupported(
            f"ONNX Runtime must run on {device}, and {_first(device)} did not start (got {', '.join(session.get_providers())}); "
            f"check the GPU's driver{', CUDA and cuDNN' if device == 'cuda' else ', CUDA, cuDNN and TensorRT'}, or plan for cpu"
        )
    return session


def _first(device: str) -> str:
    first = _PROVIDERS[device][0]
    return first if isinstance(first, str) else first[0]


def _prepare(device: str) -> None:
    """Nothing, when the library has the provider; its own libraries are then loaded, from NVIDIA's packages where those are installed."""
    if _first(device) not in ort.get_available_providers():
        raise Unsupported(
            f"the device {device} needs ONNX Runtime with {_first(device)}, got {', '.join(ort.get_available_providers())}; "
            "run: pip uninstall onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]'" + (" tensorrt" if device == "tensorrt" else "")
        )
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # TensorRT takes TF32 otherwise, and its provider has no option for it
    with contextlib.redirect_stdout(sys.stderr):  # it prints what it does not find
        ort.preload_dlls()


def _gpu_is_here() -> bool:
    """Whether Linux shows an NVIDIA GPU (or that of Windows, inside WSL); elsewhere opening a session tells."""
    return sys.platform != "linux" or any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()


def _refusal(session: ort.InferenceSession, device: str) -> str | None:
    asked = session.get_modelmeta().custom_metadata_map.get(PRECISION_KEY, "float32")
    if asked != "float32":
        return (
            f"ONNX Runtime's CPU provider computes float nodes in float32 and has no {asked} kernels to speak of, which the graph asks for"
            if device == "cpu"
            else f"ONNX Runtime computes float nodes in float32 on {device}, and the graph asks for {asked}; use torch_compiled there"
        )
    return None


def _spec(value: ort.NodeArg) -> TensorSpec:
    if value.type not in _TYPES:
        raise Unsupported(f"tensor {value.name!r} must be of a plain element type, got {value.type}")
    return TensorSpec(
        name=value.name, dtype=_TYPES[value.type], shape=tuple(size if isinstance(size, int | str) else "?" for size in value.shape)
    )


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:300] + "..."

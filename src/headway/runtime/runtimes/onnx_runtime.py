"""ONNX Runtime on the CPU: float32 exactly as written, integer kernels where the graph carries quantize/dequantize nodes.

Memory: weights are held once for all one-thread instances of a process (they share one session, whose ``run`` may be called from several
threads and which then has no pool of its own); with more threads each instance owns its session, since a shared pool would make them
wait for each other. Measured with 96 MiB of weights and three instances: 104 MiB shared, 409 MiB owned; the shared one is as fast with
small weights and about a tenth faster with weights that overflow the cache. The arena stays on: without it resident memory did not fall,
and it keeps batches of changing size from asking the system each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort

from headway.records import ConfigError, DataError, HeadwayError, ModelError, TensorSpec, Unsupported
from headway.runtime.session import check_feeds
from headway.runtime.sharing import Shared

DEVICES = ("cpu",)
PRECISION_KEY = "headway.precision"
_TYPES = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16", "tensor(bfloat16)": "bfloat16", "tensor(bool)": "bool",
    "tensor(string)": "object", "tensor(int8)": "int8", "tensor(int16)": "int16", "tensor(int32)": "int32", "tensor(int64)": "int64",
    "tensor(uint8)": "uint8", "tensor(uint16)": "uint16", "tensor(uint32)": "uint32", "tensor(uint64)": "uint64",
}  # fmt: skip

_one_thread: Shared[ort.InferenceSession] = Shared()

ort.disable_telemetry_events()
ort.set_default_logger_severity(3)


def versions() -> dict[str, str]:
    """The library's version."""
    return {"onnxruntime": ort.__version__}


def refuse(path: Path, *, device: str = "cpu") -> str | None:
    """Why the graph cannot be honoured: it asks for a type without CPU kernels, or does not load; none when it can."""
    try:
        open_session(path, threads=1, device=device).close()
    except (ModelError, Unsupported) as error:
        return str(error)
    return None


def open_session(path: Path, *, threads: int, device: str = "cpu") -> OnnxRuntimeSession:
    """A session of ``threads`` threads, which do not spin between calls.

    Raises:
        ConfigError: threads below one.
        ModelError: no ONNX graph. Unsupported: a graph that asks for what the CPU provider does not have.
    """
    if threads < 1:
        raise ConfigError(f"threads must be at least 1, got {threads}")
    session = _one_thread.get(path, load) if threads == 1 else load(path, session_options(threads))
    refusal = _refusal(session)
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


def load(path: Path, options: ort.SessionOptions | None = None) -> ort.InferenceSession:
    """The library's own session, on the CPU.

    Raises:
        ModelError: no ONNX graph. Unsupported: a node without a CPU kernel.
    """
    if not path.is_file():
        raise ModelError(f"{path}: must be an ONNX file, got nothing there")
    try:
        return ort.InferenceSession(str(path), options or session_options(), providers=["CPUExecutionProvider"])
    except Exception as error:  # the library raises its own types, which share no base
        text = _short(error)
        if "NOT_IMPLEMENTED" in str(error):
            raise Unsupported(f"ONNX Runtime has no CPU kernel for a node of the graph: {text}") from error
        raise ModelError(f"{path}: must be an ONNX graph that ONNX Runtime can load, got: {text}") from error


def _refusal(session: ort.InferenceSession) -> str | None:
    asked = session.get_modelmeta().custom_metadata_map.get(PRECISION_KEY, "float32")
    if asked != "float32":
        return (
            f"ONNX Runtime's CPU provider computes float nodes in float32 and has no {asked} kernels to speak of, which the graph asks for"
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

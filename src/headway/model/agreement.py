"""Whether a graph gives the answers it should: run in ONNX Runtime and compared with the original. Knows no framework."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime

from headway.records import ModelError

TOLERANCE = 1e-4
_QUIET = 4
_ONE_PIECE_BYTES = 1_900_000_000
_RUNTIME_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Non-zero status code returned while running )?")


class Runner:
    """One graph in ONNX Runtime, for checks only: two threads at most, no trust in its speed.

    Raises:
        ModelError: ONNX Runtime cannot load the graph.
    """

    def __init__(self, proto: onnx.ModelProto, name: str, *, optimize: bool = True) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _QUIET
        options.intra_op_num_threads = 2
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not optimize:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._name = name
        try:
            self._session = _session(proto, options)
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            raise ModelError(
                f"{name}: must run in ONNX Runtime, got: {one_line(error)}. Export it again, perhaps with another opset."
            ) from error

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name.

        Raises:
            ModelError: the graph does not run on these inputs.
        """
        try:
            values = self._session.run(None, dict(feeds))
        except Exception as error:
            shapes = ", ".join(f"{key} {array.dtype}{list(array.shape)}" for key, array in feeds.items())
            raise ModelError(f"{self._name}: must run on {shapes}, got: {one_line(error)}. Check names, types and shapes.") from error
        return dict(zip((port.name for port in self._session.get_outputs()), values, strict=True))


def _session(proto: onnx.ModelProto, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    providers = ["CPUExecutionProvider"]
    if sum(len(tensor.raw_data) for tensor in proto.graph.initializer) < _ONE_PIECE_BYTES:
        return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=providers)
    with tempfile.TemporaryDirectory(prefix="headway-") as folder:
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)  # saving with external data empties the tensors of what it is given
        onnx.save_model(copy, f"{folder}/model.onnx", save_as_external_data=True, location="model.data")
        return onnxruntime.InferenceSession(f"{folder}/model.onnx", options, providers=providers)


def difference(got: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> str:
    """Empty when the outputs agree; else one phrase on the first that does not.

    Floats agree within 1e-4 plus 1e-4 of the largest expected magnitude in that output; the places of NaN and infinity must agree;
    integers, booleans and text must be equal.
    """
    for name, want in expected.items():
        if name not in got:
            return f"output {name} is missing"
        have = got[name]
        if have.shape != want.shape:
            return f"output {name} has shape {list(have.shape)}, not {list(want.shape)}"
        problem = _array_difference(have, want)
        if problem:
            return f"output {name} {problem}"
    return ""


def _array_difference(have: np.ndarray, want: np.ndarray) -> str:
    if want.dtype.kind not in "fV":  # V: bfloat16 and other types that numpy itself does not know
        return "" if np.array_equal(have, want) else "differs"
    exact, wide = have.astype(np.float64), want.astype(np.float64)
    finite = np.isfinite(wide)
    if not np.array_equal(finite, np.isfinite(exact)):
        return "has NaN or infinity in other places"
    gap = np.abs(exact[finite] - wide[finite]).max(initial=0.0)
    return f"differs by {gap:.2g}" if gap > TOLERANCE * (1 + np.abs(wide[finite]).max(initial=0.0)) else ""


def rows(arrays: Mapping[str, np.ndarray], start: int, stop: int) -> dict[str, np.ndarray]:
    """The rows from ``start`` to ``stop`` of every array."""
    return {name: array[start:stop] if array.ndim else array for name, array in arrays.items()}


def stack(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays joined along the first dimension."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def one_line(error: BaseException) -> str:
    """The first line of an exception's message, short enough for a sentence."""
    text = next((line.strip() for line in str(error).split("\n") if line.strip()), type(error).__name__)
    return _RUNTIME_PREFIX.sub("", text)[:300].rstrip(". ")

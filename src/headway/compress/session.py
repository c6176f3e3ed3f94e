"""A graph run on a few samples through ONNX Runtime on the CPU, to see what a change does to the answers.

It is a measuring instrument, not a runtime: one thread, so that the same samples give the same bytes on any machine; nobody times it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, ValueInfoProto

from headway.records import DataError, Unsupported

LARGEST_BYTES = 1_900_000_000  # a protobuf message ends at 2 GiB


def open_cpu(proto: ModelProto, expose: Sequence[str] = (), *, exact: bool = False) -> ort.InferenceSession:
    """A session on the CPU that also returns the values named in ``expose``; ``exact`` keeps the graph as it is written.

    Raises:
        Unsupported: the model is too large for one message, or ONNX Runtime does not take it; the message says why.
    """
    if proto.ByteSize() > LARGEST_BYTES:
        raise Unsupported(f"compression needs a model below {LARGEST_BYTES / 1e9:.1f} GB, got {proto.ByteSize() / 1e9:.1f} GB")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_DISABLE_ALL if exact else levels.ORT_ENABLE_BASIC if expose else levels.ORT_ENABLE_ALL
    if expose:
        probed = ModelProto()
        probed.CopyFrom(proto)
        present = {value.name for value in proto.graph.output}
        probed.graph.output.extend(ValueInfoProto(name=name) for name in expose if name not in present)
        proto = probed
    try:
        return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common base
        raise Unsupported(f"the graph must load in ONNX Runtime on the CPU, but it says: {_first_line(error)}") from error


def batches(session: ort.InferenceSession, samples: Mapping[str, np.ndarray], *, rows: int, size: int) -> Iterator[dict[str, np.ndarray]]:
    """Feeds of ``size`` samples each, from the first ``rows`` samples; a model with a fixed batch gets its own size.

    Raises:
        DataError: an input of the model has no samples, or fewer than its fixed batch.
    """
    inputs = session.get_inputs()
    missing = [value.name for value in inputs if value.name not in samples]
    if missing:
        raise DataError(f"samples must hold every input of the model, got {sorted(samples)}; add {', '.join(missing)}")
    rows = min([rows, *(len(samples[value.name]) for value in inputs)])
    fixed = {value.shape[0] for value in inputs if value.shape and isinstance(value.shape[0], int)}
    if fixed:
        size = max(fixed)
        rows -= rows % size
        if not rows:
            raise DataError(
                f"samples must fill the model's fixed batch of {size}, got {min(len(samples[v.name]) for v in inputs)}; give more"
            )
    for start in range(0, rows, size):
        yield {value.name: np.ascontiguousarray(samples[value.name][start : min(start + size, rows)]) for value in inputs}


def run(session: ort.InferenceSession, feeds: Mapping[str, np.ndarray], names: Sequence[str] | None = None) -> list[np.ndarray]:
    """The session's outputs (or those named) for one batch.

    Raises:
        Unsupported: ONNX Runtime fails on this batch; the message says why.
    """
    try:
        outputs: list[np.ndarray] = session.run(None if names is None else list(names), dict(feeds))
    except Exception as error:  # as above
        raise Unsupported(f"the graph must run on the calibration samples, but ONNX Runtime says: {_first_line(error)}") from error
    return outputs


def answers(proto: ModelProto, samples: Mapping[str, np.ndarray], rows: int) -> list[list[np.ndarray]]:
    """All outputs for the first ``rows`` samples, batch by batch."""
    session = open_cpu(proto)
    return [run(session, feeds) for feeds in batches(session, samples, rows=rows, size=rows)]


def relative_error(reference: Sequence[Sequence[np.ndarray]], got: Sequence[Sequence[np.ndarray]]) -> float:
    """Relative L2 distance: ||got - reference|| / ||reference|| over all outputs.

    Infinite when ``got`` is not finite where ``reference`` is, or has another shape.
    """
    difference = norm = 0.0
    for before, after in zip((a for batch in reference for a in batch), (a for batch in got for a in batch), strict=True):
        if before.dtype.kind not in "fiub":
            continue
        if before.shape != after.shape:
            return float("inf")
        left, right = before.astype(np.float64), after.astype(np.float64)
        same = np.isfinite(left)
        if not np.isfinite(right[same]).all():
            return float("inf")
        difference += float(np.square(left[same] - right[same]).sum())
        norm += float(np.square(left[same]).sum())
    return float(np.sqrt(difference / norm)) if norm else (0.0 if not difference else float("inf"))


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__

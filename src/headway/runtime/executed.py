"""The kernels that ONNX Runtime executes, with the shapes they were given: its own profile of one run on zeros.

The runtime's optimized graph does not tell shapes: the blocked and the quantized kernels have no shape inference, and without the
output's size a convolution counts a hundred times too little. One run of one row tells them all.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnxruntime as ort

from headway.runtime.runtimes.onnx_runtime import load, session_options

OTHER_SIZES = (16, 64, 256, 1)
"""What is tried for a free dimension that is not the first (a sequence length, an image's height), until the graph runs."""
_TYPES = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16, "tensor(bool)": np.bool_, "tensor(int8)": np.int8,
    "tensor(int16)": np.int16, "tensor(int32)": np.int32, "tensor(int64)": np.int64, "tensor(uint8)": np.uint8, "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32, "tensor(uint64)": np.uint64,
}  # fmt: skip

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Kernel:
    """One executed kernel: its operator, and the shapes of the inputs that it was given and of its outputs."""

    op_type: str
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]


def executed(path: Path, optimized: Path) -> tuple[Kernel, ...]:
    """The kernels of one run of one row, in order; none when the graph does not run on zeros. The optimized graph goes to ``optimized``.

    Kernels inside loops count as often as they ran.

    Raises:
        ModelError, Unsupported: ONNX Runtime cannot load the graph.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = session_options()
        options.optimized_model_filepath = str(optimized)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", f"{optimized.name}.weights")
        options.add_session_config_entry("session.disable_prepacking", "1")  # or the profile leaves out the weights' shapes
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = load(path, options)
        ran = _run(session)
        events = json.loads(Path(session.end_profiling()).read_text("utf-8", "replace"))
    return _last_run(events) if ran else ()


def _run(session: ort.InferenceSession) -> bool:
    inputs = session.get_inputs()
    if any(value.type not in _TYPES for value in inputs):
        return False
    for size in OTHER_SIZES:
        feeds: dict[str, np.ndarray] = {value.name: np.zeros(_shape(value.shape, size), _TYPES[value.type]) for value in inputs}
        try:
            session.run(None, feeds)
        except Exception:  # its own types again; another size may do
            continue
        return True
    return False


def _shape(stated: Sequence[int | str | None], other: int) -> Shape:
    return tuple(size if isinstance(size, int) else 1 if axis == 0 else other for axis, size in enumerate(stated))


def _last_run(events: Sequence[Mapping[str, object]]) -> tuple[Kernel, ...]:
    """Kernels between the beginning of the last run (a run that failed comes first) and its end."""
    ends = [index for index, event in enumerate(events) if event.get("name") == "model_run"]
    if not ends:
        return ()
    inside = events[ends[-2] + 1 if len(ends) > 1 else 0 : ends[-1]]
    kernels = []
    for event in inside:
        facts = event.get("args")
        if event.get("cat") == "Node" and isinstance(facts, dict) and "output_type_shape" in facts:
            kernels.append(Kernel(str(facts["op_name"]), _shapes(facts.get("input_type_shape", [])), _shapes(facts["output_type_shape"])))
    return tuple(kernels)


def _shapes(given: Sequence[Mapping[str, Sequence[int]]]) -> tuple[Shape, ...]:
    return tuple(tuple(shape) for entry in given for shape in entry.values())


def multiply_adds(kernel: Kernel) -> int:
    """Multiply-adds of one kernel of the kinds that ``headway.runtime.censuses.onnx_runtime`` counts; at least 1.

    - Convolution: each output element takes one filter, that is the weight without its first dimension. Transposed: each input element.
    - Recurrent layers: each step of each row takes both weight matrices.
    - Attention without a weight: queries against keys, then the result against values.
    - Every other product: each element of the left matrix meets each column of the output.
    """
    given, out = kernel.inputs, kernel.outputs[0] if kernel.outputs else ()
    if not given:
        return 1
    if "Conv" in kernel.op_type:
        at = 3 if kernel.op_type.startswith("QLinear") else 1
        weight = given[at] if len(given) > at else ()
        return max(1, prod(given[0] if "Transpose" in kernel.op_type else out) * prod(weight[1:]))
    if kernel.op_type in ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"):
        return max(1, prod(given[0][:-1]) * sum(prod(weight) for weight in given[1:3]))
    if kernel.op_type == "MultiHeadAttention" and len(given) > 1 and len(given[1]) >= 2:
        return max(1, 2 * prod(given[0]) * given[1][-2])
    if kernel.op_type in ("Attention", "QAttention") and len(given) > 1:
        return max(1, prod(given[0]) * given[1][-1])
    return max(1, prod(given[0]) * (out[-1] if out else 1))

"""OpenVINO on the CPU: the precision is always explicit, float32 unless the graph asks for a narrower one.

Each instance owns its compiled graph of one stream (requests of one compiled graph would wait for each other), and all of a process share
the graph as read, and so its weights. Measured with 96 MiB of weights and three instances: 442 MiB resident, 728 MiB when each reads its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openvino as ov

from headway.records import ConfigError, DataError, HeadwayError, ModelError, TensorSpec, Unsupported
from headway.runtime.session import check_feeds
from headway.runtime.sharing import Shared

DEVICES = ("cpu",)
PRECISION_PLACE = ["framework", "headway.precision"]
_HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_TAKEN = {"float32": ov.Type.f32, "bfloat16": ov.Type.bf16, "float16": ov.Type.f16}
_LONG = ("int64", "uint64", "uint32")
_LARGEST = 2**31 - 1
_CAPABILITIES = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16"}


def versions() -> dict[str, str]:
    """The library's version, without its build."""
    return {"openvino": ov.__version__.split("-")[0]}


def refuse(path: Path, *, device: str = "cpu") -> str | None:
    """Why the graph cannot be honoured: unreadable, float64, or a precision that this CPU has no instructions for; none when it can."""
    try:
        graph = _graphs.get(path, ReadGraph)
        _check_types(graph.model)
        precision_of(graph.core, graph.model)
    except (ModelError, Unsupported) as error:
        return str(error)
    return None


def open_session(path: Path, *, threads: int, device: str = "cpu") -> OpenVinoSession:
    """A session with its own compiled graph of one stream and ``threads`` threads.

    Raises:
        ConfigError: threads below one. ModelError: no readable graph. Unsupported: operators, a precision or a type (float64) that is not there.
    """
    if threads < 1:
        raise ConfigError(f"threads must be at least 1, got {threads}")
    graph = _graphs.get(path, ReadGraph)
    _check_types(graph.model)
    return OpenVinoSession(graph, _compile(graph, threads))


class ReadGraph:
    """A graph as OpenVINO reads it, with the names of its ports; compiled as often as there are instances, never changed after it was read.

    Raises:
        ModelError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.core = ov.Core()
        self.model = read(self.core, path)
        self.inputs = [port.any_name for port in self.model.inputs]
        self.outputs = [port.any_name for port in self.model.outputs]
        _unshare(self.model)


_graphs: Shared[ReadGraph] = Shared()


class OpenVinoSession:
    """One graph compiled by OpenVINO, with one infer request. Names are the read graph's: a compiled port may carry those of values that
    were merged into it too.
    """

    def __init__(self, graph: ReadGraph, compiled: ov.CompiledModel) -> None:
        self._graph: ReadGraph | None = graph
        self._request: ov.InferRequest | None = compiled.create_infer_request()
        self.inputs = tuple(_spec(port, name) for port, name in zip(compiled.inputs, graph.inputs, strict=True))
        self.outputs = tuple(_spec(port, name) for port, name in zip(compiled.outputs, graph.outputs, strict=True))
        self._long = tuple(spec.name for spec in self.inputs if spec.dtype in _LONG)

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name, copied out of the request's memory."""
        request = self._request
        if request is None:
            raise HeadwayError("a session must be open to run, and this one was closed; open another")
        check_feeds(self.inputs, feeds)
        for name in self._long:
            _check_range(name, feeds[name])
        try:
            results = request.infer([feeds[spec.name] for spec in self.inputs], share_inputs=True, share_outputs=False)
        except RuntimeError as error:
            raise DataError(f"the graph must run on these inputs, got from OpenVINO: {_short(error)}") from error
        return {spec.name: results[index] for index, spec in enumerate(self.outputs)}

    def close(self) -> None:
        """Let go of the graph; closing twice is harmless."""
        self._graph = self._request = None


def compile_graph(path: Path, threads: int) -> ov.CompiledModel:
    """The graph compiled for the CPU with an explicit precision, one stream and no core pinning (instances share the cores)."""
    return _compile(_graphs.get(path, ReadGraph), threads)


def _compile(graph: ReadGraph, threads: int) -> ov.CompiledModel:
    precision = precision_of(graph.core, graph.model)
    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",  # or activations in front of int8 weights become int8 too: 5e-3 off instead of 4e-7
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        "ENABLE_CPU_PINNING": "NO",
        "ENABLE_HYPER_THREADING": "YES",
    }
    try:
        compiled = graph.core.compile_model(graph.model, "CPU", settings)
    except RuntimeError as error:
        raise Unsupported(f"OpenVINO cannot compile the graph for the CPU: {_short(error)}") from error
    taken = compiled.get_property("INFERENCE_PRECISION_HINT")
    if taken != _TAKEN[precision]:
        raise Unsupported(f"the graph asks for {precision}, and OpenVINO would compute it in {taken.get_type_name()} on this CPU")
    return compiled


def read(core: ov.Core, path: Path) -> ov.Model:
    """The graph as OpenVINO reads it.

    Raises:
        ModelError: it cannot be read.
    """
    if not path.is_file():
        raise ModelError(f"{path}: must be an ONNX file, got nothing there")
    try:
        return core.read_model(str(path))
    except RuntimeError as error:
        raise ModelError(f"{path}: must be an ONNX graph that OpenVINO can read, got: {_short(error)}") from error


def precision_of(core: ov.Core, graph: ov.Model) -> str:
    """The precision that the graph asks for.

    Raises:
        Unsupported: this CPU has no instructions for it.
    """
    asked = str(graph.get_rt_info(PRECISION_PLACE).value) if graph.has_rt_info(PRECISION_PLACE) else "float32"
    if asked not in _HINTS:
        raise Unsupported(f"the graph asks for the precision {asked!r}, and OpenVINO here knows {', '.join(_HINTS)}")
    if _CAPABILITIES[asked] not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise Unsupported(f"the graph asks for {asked}, and this CPU has no instructions for it")
    return asked


def _unshare(graph: ov.Model) -> None:
    """Give products that use one matrix in different orientations a copy each.

    OpenVINO (2026.4 at least) packs such a matrix once when the same activation is fused into both products, and then gives wrong
    answers for one of them in silence; tied weights look like this. The contract suite's graph ``shared_weights`` shows it.
    """
    for node in graph.get_ops():
        if node.get_type_name() != "Constant" or node.get_element_type() != ov.Type.f32 or len(node.get_output_shape(0)) != 2:
            continue
        copies: dict[str, ov.Output] = {}
        for target in node.output(0).get_target_inputs():
            user = target.get_node()
            if user.get_type_name() not in ("MatMul", "Transpose"):
                continue
            use = f"{user.get_type_name()} {user.get_attributes().get('transpose_b')}"
            if use not in copies:
                copies[use] = ov.opset13.constant(node.get_data()).output(0) if copies else node.output(0)
            target.replace_source_output(copies[use])


def _check_types(graph: ov.Model) -> None:
    for port in [*graph.inputs, *graph.outputs]:
        if port.element_type == ov.Type.f64:
            raise Unsupported(f"the graph's {port.any_name!r} is float64, and OpenVINO's CPU plugin would compute it in float32")


def _check_range(name: str, array: np.ndarray) -> None:
    if array.size and (array.max() > _LARGEST or array.min() < -_LARGEST - 1):
        raise DataError(
            f"input {name!r} must hold integers of at most 32 bits, which is what OpenVINO's CPU plugin computes in; use another runtime"
        )


def _spec(port: ov.ConstOutput, name: str) -> TensorSpec:
    shape = tuple("?" if size.is_dynamic else int(size.get_length()) for size in port.partial_shape)
    return TensorSpec(name=name, dtype=np.dtype(port.element_type.to_dtype()).name, shape=shape)


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:300] + "..."

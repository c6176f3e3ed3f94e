"""An ONNX graph as a flat torch graph with free rows: lifted, then traced by ``torch.export`` without being compiled.

Tracing first matters: the compiler would follow the lift's own Python and stop in the middle of it, which gives many small programs in
place of one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import Tensor, fx, nn
from torch.export import Dim, export

from headway.lift import Lifted, lift
from headway.lift.store import graphs
from headway.model import Model
from headway.model.reading import read_onnx
from headway.records import HeadwayError, TensorSpec, Unsupported

PRECISION_KEY = "headway.precision"
ROWS = 3
"""Rows of the example that is traced; 0 and 1 would be taken for fixed."""
OTHER_SIZES = (16, 64, 256)
"""What is tried for a free dimension that is not the first, until the graph runs."""
_PLAIN = ("float64", "float32", "float16", "bool", "int8", "int16", "int32", "int64", "uint8")
"""Element types that numpy and torch share and that torch computes in."""


@dataclass(frozen=True)
class Traced:
    """A flat graph: a module of positional inputs and outputs, what they are, and the precision that the graph asks for."""

    module: fx.GraphModule
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: str


class _Positional(nn.Module):
    """A lifted graph with inputs and outputs by position."""

    def __init__(self, lifted: Lifted) -> None:
        super().__init__()
        self.lifted = lifted

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Outputs in the graph's order."""
        results = self.lifted(dict(zip(self.lifted.input_names, inputs, strict=True)))
        return tuple(results[name] for name in self.lifted.output_names)


def trace(path: Path, device: str) -> Traced:
    """A file's graph, traced for a device.

    Raises:
        ModelError: no ONNX graph. Unsupported: it cannot be lifted or traced, or holds quantized nodes; the message says which.
    """
    proto = read_onnx(path)
    _check_exact(proto)
    constant = {tensor.name for tensor in proto.graph.initializer}
    inputs = tuple(_spec(value) for value in proto.graph.input if value.name not in constant)
    outputs = tuple(_spec(value) for value in proto.graph.output)
    precision = next((entry.value for entry in proto.metadata_props if entry.key == PRECISION_KEY), "float32")
    lifted = lift(Model.from_proto(proto, path.stem, "onnx")).eval().requires_grad_(False).to(device)
    return Traced(_flat(_Positional(lifted), inputs, device), inputs, outputs, precision)


def _check_exact(proto: onnx.ModelProto) -> None:
    """Nothing, when no node computes in integers what the lift would compute in float."""
    for graph in (proto.graph, *graphs(proto.graph)):
        for node in graph.node:
            if any(part in node.op_type for part in ("QuantizeLinear", "QLinear", "Integer")):
                raise Unsupported(
                    f"the graph holds quantized nodes ({node.op_type}), which torch_compiled could only imitate in float, slower than float itself; "
                    "use onnx_runtime or openvino for them"
                )


def _flat(module: nn.Module, inputs: Sequence[TensorSpec], device: str) -> fx.GraphModule:
    """The module traced with every free dimension left free."""
    free = tuple({axis: Dim.DYNAMIC for axis, size in enumerate(spec.shape) if not isinstance(size, int)} for spec in inputs)
    reason = ""
    for other in OTHER_SIZES:
        example = tuple(torch.zeros(_shape(spec, other), dtype=getattr(torch, spec.dtype), device=device) for spec in inputs)
        try:
            with torch.no_grad():
                program = export(module, example, dynamic_shapes=(free,), strict=False)
        except HeadwayError as error:
            reason = str(error)
        except Exception as error:  # the tracer raises types of its own
            reason = " ".join(str(error).split())[:300]
        else:
            return _simplified(program.module())
        if all(isinstance(size, int) for spec in inputs for size in spec.shape[1:]):
            break
    raise Unsupported(f"torch.export must trace the graph with its free dimensions left free, got: {reason}; use another runtime")


def _simplified(module: fx.GraphModule) -> fx.GraphModule:
    """The same with numbers in place of reads of constants, and without assertions on inner types.

    A read (of a bound of a Clip) would split the compiled program in two. Autocast changes inner types on purpose.
    """
    for node in list(module.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            module.graph.erase_node(node)
            continue
        source = node.args[0] if node.target is torch.ops.aten.item.default else None
        if isinstance(source, fx.Node) and source.op == "get_attr":
            numbers: dict[fx.Node, fx.node.Argument] = {node: _attribute(module, str(source.target)).item()}
            for user in list(node.users):
                user.args = fx.map_arg(user.args, functools.partial(_looked_up, numbers))
                user.kwargs = fx.map_arg(user.kwargs, functools.partial(_looked_up, numbers))
            module.graph.erase_node(node)
    module.recompile()
    return module


def _looked_up(numbers: Mapping[fx.Node, fx.node.Argument], given: fx.Node) -> fx.node.Argument:
    return numbers.get(given, given)


def _attribute(module: nn.Module, target: str) -> Tensor:
    owner, _, name = target.rpartition(".")
    found: Tensor = getattr(module.get_submodule(owner), name)
    return found


def _shape(spec: TensorSpec, other: int) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else ROWS if axis == 0 else other for axis, size in enumerate(spec.shape))


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    name = (
        onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name if value.type.HasField("tensor_type") and kind.elem_type else "no tensor"
    )
    if name not in _PLAIN:
        raise Unsupported(f"tensor {value.name!r} must be of a type that numpy and torch share, got {name}; use another runtime")
    shape = tuple(axis.dim_value if axis.HasField("dim_value") else axis.dim_param or "?" for axis in kind.shape.dim)
    return TensorSpec(name=value.name, dtype=name, shape=shape)

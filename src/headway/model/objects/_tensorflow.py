"""A function of TensorFlow tensors to ONNX through tf2onnx, with names, a free batch, and the original's answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx

from headway.model.agreement import one_line
from headway.model.feeds import lengthen
from headway.model.specs import BATCH, synthetic_inputs
from headway.model.workshop import Exported, Request
from headway.records import ModelError, TensorSpec

OPSET = 18
ROWS = 4


@dataclass(frozen=True)
class Port:
    """An input: its name, its shape without the batch (none where free), its element type; and the batch when it is fixed."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    batch: int | None = None


def convert(run: Callable[..., object], ports: Sequence[Port], output_names: Sequence[str], request: Request, origin: str) -> Exported:
    """The function as one ONNX file and its answers on the rows tried.

    Args:
        run: takes one tensor for each port, in order; gives a tensor, a sequence, or a mapping of tensors.
        output_names: names for the outputs in order; used when they are as many as the outputs and those have no names of their own.

    Raises:
        ModelError: samples that do not fit the inputs, or a function that does not run or convert.
    """
    if request.exporters is not None and origin not in request.exporters:
        raise ModelError(
            f"{request.source}: exporters must name {origin}, the only route for this model, got {', '.join(request.exporters)}"
        )
    notes: list[str] = []
    names = _bind(ports, request, notes)
    rows = _rows(ports, names, request)
    tensors = {name: tf.convert_to_tensor(array) for name, array in rows.items()}
    expected = _original(run, tensors, output_names, request.source)
    signature = [tf.TensorSpec([port.batch, *port.shape], port.dtype, name=f"headway_input_{index}") for index, port in enumerate(ports)]

    def flat(*inputs: tf.Tensor) -> list[tf.Tensor]:
        return [tf.identity(value) for value in leaves(run(*inputs), output_names).values()]

    try:
        proto, _ = tf2onnx.convert.from_function(tf.function(flat, input_signature=signature), signature, opset=OPSET)
    except Exception as error:  # tf2onnx raises of many kinds
        raise ModelError(
            f"{request.source}: must convert to ONNX opset {OPSET}, but tf2onnx raised {type(error).__name__}: {one_line(error)}"
        ) from error
    _rename(proto, [spec.name for spec in signature], list(names), list(expected))
    folder = request.folder / origin
    folder.mkdir()
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    return Exported({origin: folder / "model.onnx"}, rows, expected, tuple(notes))


def leaves(made: object, output_names: Sequence[str]) -> dict[str, tf.Tensor]:
    """Outputs by name: keys of a mapping, the given names, else ``output`` or ``output_0`` ..."""
    if isinstance(made, Mapping):
        return {str(key): value for key, value in made.items()}
    values = list(made) if isinstance(made, list | tuple) else [made]
    if len(output_names) == len(values):
        return dict(zip(output_names, values, strict=True))
    return {"output": values[0]} if len(values) == 1 else {f"output_{index}": value for index, value in enumerate(values)}


def _bind(ports: Sequence[Port], request: Request, notes: list[str]) -> tuple[str, ...]:
    """The graph's input names: the ports' own where samples have them, else the samples' in order."""
    own = tuple(port.name for port in ports)
    if request.samples is None or set(own) <= set(request.samples):
        return own
    given = tuple(request.samples)
    if len(given) != len(own) or set(own) & set(given):
        raise ModelError(
            f"{request.source}: the samples must hold the model's inputs {', '.join(own)}, got {', '.join(given)}; rename the arrays"
        )
    if len(given) > 1:
        notes.append(f"no sample is named as an input of the model ({', '.join(own)}); passed in order: {', '.join(given)}")
    return given


def _rows(ports: Sequence[Port], names: Sequence[str], request: Request) -> dict[str, np.ndarray]:
    count = next((port.batch for port in ports if port.batch), ROWS)
    if request.samples is None:
        specs = [
            TensorSpec(name=name, dtype=port.dtype, shape=("batch", *("?" if size is None else size for size in port.shape)))
            for name, port in zip(names, ports, strict=True)
        ]
        return synthetic_inputs(specs, count)
    return {name: lengthen(request.samples[name], count).astype(port.dtype) for name, port in zip(names, ports, strict=True)}


def _original(
    run: Callable[..., object], tensors: Mapping[str, tf.Tensor], output_names: Sequence[str], source: str
) -> dict[str, np.ndarray]:
    try:
        made = leaves(run(*tensors.values()), output_names)
    except Exception as error:  # whatever the model raises
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in tensors.items())
        raise ModelError(f"{source}: the model must run on {shapes}, but it raised {type(error).__name__}: {one_line(error)}") from error
    arrays = {name: np.asarray(value) for name, value in made.items()}
    count = len(next(iter(tensors.values())))
    if any(array.ndim == 0 or len(array) != count for array in arrays.values()):
        raise ModelError(
            f"{source}: every output must have one row for each of the {count} rows given, got one without; leave it out of the model"
        )
    return {f"{name}_out" if name in tensors else name: array for name, array in arrays.items()}


def _rename(proto: onnx.ModelProto, signature: Sequence[str], inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Give the graph's inputs and outputs their names, in the graph and in every node (tf2onnx may reorder inputs)."""
    graph = proto.graph
    by_spec = dict(zip(signature, inputs, strict=True))
    new = {port.name: by_spec[port.name.split(":")[0]] for port in graph.input}
    new |= {port.name: name for port, name in zip(graph.output, outputs, strict=True)}
    taken = set(new.values()) - set(new)
    for node in graph.node:  # a value inside that already has one of the names steps aside
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = new.get(name, f"{name}__inside" if name in taken else name)
    for tensor in graph.initializer:
        if tensor.name in taken:
            tensor.name = f"{tensor.name}__inside"
    for port in [*graph.input, *graph.output]:
        port.name = new[port.name]
        for axis, dim in enumerate(port.type.tensor_type.shape.dim):
            if dim.WhichOneof("value") != "dim_value":  # tf2onnx calls them unk__7
                dim.dim_param = BATCH if axis == 0 else f"{port.name}_{axis}"
    del graph.value_info[:]

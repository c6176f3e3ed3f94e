"""The module: parameters and buffers by ONNX name, and the call."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from onnx import ModelProto, inliner
from torch import Tensor, nn

from headway.lift.program import Frame, compile_model
from headway.lift.quantizing import Grid
from headway.lift.store import collect
from headway.model import Model
from headway.records import InputError, Unsupported

OLDEST_OPSET = 11


class Lifted(nn.Module):
    """An ONNX graph that torch can differentiate.

    Attributes:
        weights: parameters by the name of their ONNX tensor; float tensors of more than one element, float latents of quantized
            weights, and scales when they learn.
        latents: how each latent becomes integers.
        update_statistics: batch normalization uses the batch's statistics and updates the stored ones; otherwise it uses the stored.
    """

    def __init__(self, proto: ModelProto, *, learn_scales: bool = False) -> None:
        super().__init__()
        store = collect(proto.graph, learn_scales)
        self._program = compile_model(proto, store, learn_scales)
        self._narrow = store.narrow
        self.latents: dict[str, Grid] = store.latents
        self.update_statistics = False
        self._weight_names = {f"weight_{position}": key for position, key in enumerate(store.weights)}
        self._buffer_names: dict[str, str] = {}
        self._plain: dict[str, Any] = {}
        for attribute, key in self._weight_names.items():
            self.register_parameter(attribute, nn.Parameter(store.weights[key].contiguous()))
        for key, value in store.statistics.items():
            self._hold(f"statistic_{len(self._buffer_names)}", key, value, persistent=True)
        for key, value in store.fixed.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                self._hold(f"fixed_{len(self._buffer_names)}", key, value, persistent=False)
            else:
                self._plain[key] = value
        initial = {tensor.name for tensor in proto.graph.initializer}
        self.input_names = tuple(value.name for value in proto.graph.input if value.name not in initial)
        self.output_names = tuple(value.name for value in proto.graph.output)

    def _hold(self, attribute: str, key: str, value: Tensor, persistent: bool) -> None:
        self.register_buffer(attribute, value, persistent=persistent)
        self._buffer_names[attribute] = key

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """Parameters by ONNX name."""
        return {key: self._parameters[attribute] for attribute, key in self._weight_names.items()}  # type: ignore[misc]

    @property
    def statistics(self) -> dict[str, Tensor]:
        """Stored statistics of batch normalization by ONNX name."""
        return {key: self._buffers[name] for name, key in self._buffer_names.items() if name.startswith("statistic_")}  # type: ignore[misc]

    def forward(self, inputs: Mapping[str, Tensor], *, keep: Collection[str] = ()) -> dict[str, Tensor]:
        """Run the graph.

        Args:
            inputs: tensors by the graph's input names.
            keep: names of inner values to be given as well.

        Raises:
            InputError: an input is missing, or ``keep`` names a value that the graph has not.
        """
        missing = [name for name in self.input_names if name not in inputs]
        if missing:
            raise InputError(f"lifted: the inputs must hold {', '.join(self.input_names)}, got no {', '.join(missing)}; add it")
        frame = Frame(self._tensors(), self.training, self.update_statistics, self._device(), dict(inputs))
        self._program.execute(frame, keep)
        unknown = [name for name in keep if name not in frame.values]
        if unknown:
            raise InputError(f"lifted: keep must name values of the main graph, got {', '.join(unknown)}; take names from the graph")
        return {name: frame.values[name] for name in (*self.output_names, *keep)}

    def _device(self) -> torch.device:
        first = next((each for each in (*self._parameters.values(), *self._buffers.values()) if each is not None), None)
        return torch.device("cpu") if first is None else first.device

    def _tensors(self) -> dict[str, Any]:
        found = dict(self._plain)
        for attribute, key in self._buffer_names.items():
            found[key] = self._buffers[attribute]
        for attribute, key in self._weight_names.items():
            found[key] = self._parameters[attribute]
        for key, dtype in self._narrow.items():
            found[key] = found[key].to(dtype)
        return found


def lift(model: Model, *, learn_scales: bool = False) -> Lifted:
    """A trainable module that gives the model's answers.

    Args:
        model: a graph at opset 11 or later.
        learn_scales: scales of quantize and dequantize nodes become parameters (those of int32 biases stay).

    Raises:
        Unsupported: a node cannot be lifted; the message names it, the operator and what to do.
    """
    proto = model.to_proto()
    if model.opset < OLDEST_OPSET and not proto.functions:
        raise Unsupported(
            f"lift: {model.name} must be at opset {OLDEST_OPSET} or later, got {model.opset}; load it with headway.model.load, which converts it"
        )
    return Lifted(inliner.inline_local_functions(proto) if proto.functions else proto, learn_scales=learn_scales)

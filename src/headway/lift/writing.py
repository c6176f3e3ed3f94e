"""Values of a lifted module back into the graph it came from."""

from __future__ import annotations

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from headway.lift.lifted import Lifted
from headway.lift.quantizing import Grid, dequantized, spread
from headway.lift.store import places
from headway.lift.tensors import from_proto, to_array
from headway.model import Model
from headway.records import ModelError

_PAYLOADS = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")


def write_back(model: Model, lifted: Lifted) -> Model:
    """The same graph with the module's weights and stored statistics; everything else, and every unchanged tensor, stays to the byte.

    Integer weights are quantized again by their (perhaps learned) scales; an integer whose latent did not move stays as it was.

    Raises:
        ModelError: the graph lacks a weight of the module, or holds it in another shape.
    """
    proto = model.to_proto()
    values = {name: tensor.detach().cpu() for name, tensor in {**lifted.weights, **lifted.statistics}.items()}
    found = {place.key: place.tensor for place in places(proto.graph)}
    for name, value in values.items():
        tensor = found.get(name)
        if tensor is None or tuple(tensor.dims) != tuple(value.shape):
            had = "none" if tensor is None else f"shape {list(tensor.dims)}"
            raise ModelError(
                f"{model.name}: the graph must hold the tensor {name} of shape {list(value.shape)}, got {had}; write back into the graph that was lifted"
            )
    starts = {name: from_proto(found[grid.scale_name]) for name, grid in lifted.latents.items()}
    for name, value in values.items():
        grid = lifted.latents.get(name)
        if grid is None:
            _write(found[name], value)
        else:
            scale = values.get(grid.scale_name, starts[name])
            _write_integers(found[name], value, grid, starts[name], scale)
    return Model.from_proto(proto, model.name, model.origin)


def _write(tensor: TensorProto, value: Tensor) -> None:
    new = to_array(value, tensor.data_type)
    if new.tobytes() != numpy_helper.to_array(tensor).tobytes():
        _fill(tensor, new)


def _write_integers(tensor: TensorProto, latent: Tensor, grid: Grid, before: Tensor, scale: Tensor) -> None:
    old = from_proto(tensor)
    wide = scale.double()
    exact = latent.double() / spread(wide, latent, grid.axis, grid.block)
    zero = 0.0 if grid.zero is None else spread(grid.zero, latent, grid.axis, grid.block).double()
    new = torch.clamp(torch.round(exact) + zero, *grid.bounds)
    if torch.equal(before, scale.to(before.dtype)):
        new = torch.where(latent == dequantized(old, grid, before).to(latent.dtype), old.double(), new)
    if not torch.equal(new, old.double()):
        _fill(tensor, new.numpy().astype(np.int64).astype(helper.tensor_dtype_to_np_dtype(tensor.data_type)))


def _fill(tensor: TensorProto, array: np.ndarray) -> None:
    fresh = numpy_helper.from_array(array)
    for payload in _PAYLOADS:
        tensor.ClearField(payload)
    tensor.raw_data = fresh.raw_data

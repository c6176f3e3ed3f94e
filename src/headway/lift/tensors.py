"""ONNX tensors and element types as torch's, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from headway.records import Unsupported

DTYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.UINT16: torch.uint16,
    TensorProto.UINT32: torch.uint32,
    TensorProto.UINT64: torch.uint64,
    TensorProto.BOOL: torch.bool,
    TensorProto.COMPLEX64: torch.complex64,
    TensorProto.COMPLEX128: torch.complex128,
    TensorProto.FLOAT8E4M3FN: torch.float8_e4m3fn,
    TensorProto.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    TensorProto.FLOAT8E5M2: torch.float8_e5m2,
    TensorProto.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
    TensorProto.INT4: torch.int8,
    TensorProto.UINT4: torch.uint8,
    TensorProto.INT2: torch.int8,
    TensorProto.UINT2: torch.uint8,
}
"""Torch's type of each ONNX element type; integers of 2 and 4 bits are held in 8."""

RANGES: dict[int, tuple[int, int]] = {
    TensorProto.INT2: (-2, 1),
    TensorProto.UINT2: (0, 3),
    TensorProto.INT4: (-8, 7),
    TensorProto.UINT4: (0, 15),
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT8: (0, 255),
    TensorProto.INT16: (-(2**15), 2**15 - 1),
    TensorProto.UINT16: (0, 2**16 - 1),
    TensorProto.INT32: (-(2**31), 2**31 - 1),
}
"""Smallest and largest value of each integer type that a value can be quantized to."""

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})
_VIEWS = {"bfloat16": (np.uint16, torch.bfloat16)} | {
    name: (np.uint8, getattr(torch, name)) for name in ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
}
_NARROW = {"int4": np.int8, "uint4": np.uint8, "int2": np.int8, "uint2": np.uint8}


def torch_dtype(kind: int) -> torch.dtype:
    """Torch's type of an ONNX element type.

    Raises:
        Unsupported: torch has none.
    """
    if kind not in DTYPES:
        raise Unsupported(f"lift: the element type must be one that torch has, got {TensorProto.DataType.Name(kind)}; cast it before")
    return DTYPES[kind]


def from_array(array: NDArray[Any]) -> Any:
    """A numpy array as a tensor of its own; arrays of strings stay numpy's."""
    array = np.asarray(array)
    name = array.dtype.name
    if array.dtype.kind in "OUS":
        return array
    if name in _VIEWS:
        kind, dtype = _VIEWS[name]
        return torch.from_numpy(array.view(kind).copy()).view(dtype)
    if name in _NARROW:
        array = array.astype(_NARROW[name])
    return torch.from_numpy(np.array(array, order="C"))


def from_proto(tensor: TensorProto) -> Any:
    """An ONNX tensor as torch's; strings as a numpy array of objects."""
    return from_array(numpy_helper.to_array(tensor))


def to_array(tensor: Tensor, kind: int) -> NDArray[Any]:
    """A torch tensor as a numpy array of an ONNX element type."""
    tensor = tensor.detach().cpu().contiguous()
    wide = tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
    return wide.numpy().astype(helper.tensor_dtype_to_np_dtype(kind))


def ints(value: Tensor) -> list[int]:
    """The values of a one-dimensional (or scalar) integer tensor."""
    found = value.tolist()
    return found if isinstance(found, list) else [found]

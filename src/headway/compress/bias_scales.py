"""Integer biases brought back to the scale that kernels assume: that of the layer's input times that of its weight.

Runtimes fuse dequantize, layer and quantize into one integer kernel and add the bias without looking at its own scale (ONNX Runtime's
``QLinearConv`` and ``QGemm`` specifications). After scales were learned the two must be made equal again, or answers are wrong by orders of
magnitude in the fused form only.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from headway.compress.graph import copied, initializers, producers

BIASED = frozenset({"Conv", "ConvTranspose", "Gemm"})


def settle_bias_scales(proto: ModelProto) -> ModelProto:
    """A copy in which every int32 bias has the product of its layer's scales; biases keep their values to the rounding of that scale."""
    proto = copied(proto)
    made, fixed = producers(proto.graph), initializers(proto.graph)
    for node in proto.graph.node:
        if node.op_type in BIASED and len(node.input) > 2:
            value, weight, bias = (made.get(name) for name in node.input[:3])
            if all(_dequantizes(one) for one in (value, weight, bias)):
                _settle(value, weight, bias, fixed)  # type: ignore[arg-type]
    return proto


def _dequantizes(node: NodeProto | None) -> bool:
    return node is not None and node.op_type == "DequantizeLinear"


def _settle(value: NodeProto, weight: NodeProto, bias: NodeProto, fixed: dict[str, TensorProto]) -> None:
    if not all(name in fixed for name in (value.input[1], weight.input[1], bias.input[0], bias.input[1])):
        return
    integers, old = fixed[bias.input[0]], fixed[bias.input[1]]
    if integers.data_type != TensorProto.INT32:
        return
    scale = numpy_helper.to_array(fixed[value.input[1]]).reshape(-1) * numpy_helper.to_array(fixed[weight.input[1]]).reshape(-1)
    before = numpy_helper.to_array(old)
    scale = scale.astype(np.float32) if before.ndim else scale.astype(np.float32).reshape(())
    if scale.shape != before.shape or np.array_equal(scale, before):
        return
    exact = numpy_helper.to_array(integers).astype(np.float64) * before
    limits = np.iinfo(np.int32)
    integers.CopyFrom(numpy_helper.from_array(np.clip(np.rint(exact / scale), limits.min, limits.max).astype(np.int32), integers.name))
    old.CopyFrom(numpy_helper.from_array(scale, old.name))

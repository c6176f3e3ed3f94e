"""After scales moved, biases follow, and the fused integer kernels answer what the graph says."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, numpy_helper

from headway.compress import Context, make
from headway.compress.bias_scales import settle_bias_scales
from headway.compress.graph import copied, initializers, producers
from headway.compress.session import open_cpu
from headway.model import Model
from headway.records import Step
from headway.testing.small_graphs import cnn, samples


def test_biases_take_the_product_of_the_scales_and_keep_their_values() -> None:
    rows = samples(cnn(), 16)
    recipe = (Step(technique="fold"), Step(technique="quantize_static"))
    proto = make(Model.from_proto(cnn(), "m", "onnx"), recipe, Context(rows, frozenset({"avx512_vnni"}))).model.to_proto()
    assert settle_bias_scales(proto) == proto
    moved = copied(proto)
    made = producers(moved.graph)
    scales = {made[node.input[0]].input[1] for node in moved.graph.node if node.op_type in ("Conv", "Gemm")}
    for tensor in moved.graph.initializer:
        if tensor.name in scales:
            tensor.CopyFrom(numpy_helper.from_array(1.05 * numpy_helper.to_array(tensor), tensor.name))
    settled = settle_bias_scales(moved)
    fixed, made = initializers(settled.graph), producers(settled.graph)
    biased = [node for node in settled.graph.node if node.op_type in ("Conv", "Gemm") and len(node.input) > 2]
    assert biased
    for node in biased:
        value, weight, bias = (made[name] for name in node.input)
        assert fixed[bias.input[0]].data_type == TensorProto.INT32
        product = numpy_helper.to_array(fixed[value.input[1]]) * numpy_helper.to_array(fixed[weight.input[1]])
        assert np.array_equal(numpy_helper.to_array(fixed[bias.input[1]]).reshape(-1), product.reshape(-1).astype(np.float32))
    exact = open_cpu(settled, exact=True).run(None, rows)[0]
    fused = open_cpu(settled).run(None, rows)[0]
    assert np.abs(exact - fused).max() < 0.05 * np.abs(exact).max()

"""A MatMul of two matrices and the Add of its bias joined into one Gemm, the form in which 8-bit kernels take both."""

from __future__ import annotations

from onnx import GraphProto, ModelProto, NodeProto, helper, shape_inference

from headway.compress.graph import consumers, initializers, replace


def join_biases(proto: ModelProto) -> ModelProto:
    """The same model (changed in place, and returned) with a Gemm for each MatMul of two axes that only the Add of a constant row reads.

    Expects the form of ``graph.normalise``; a value whose number of axes cannot be inferred is left alone.
    """
    graph = proto.graph
    ranks = _ranks(proto)
    fixed = initializers(graph)
    outputs = {value.name for value in graph.output}
    joined: dict[str, NodeProto] = {}
    gone: set[str] = set()
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in fixed or node.input[0] in fixed or node.output[0] in outputs:
            continue
        matrix, readers = fixed[node.input[1]], consumers(graph)[node.output[0]]
        if len(matrix.dims) != 2 or ranks.get(node.output[0]) != 2 or len(readers) != 1 or readers[0].op_type != "Add":
            continue
        add = readers[0]
        bias = next((name for name in add.input if name in fixed), None)
        if (
            bias is None
            or list(fixed[bias].dims) not in ([matrix.dims[1]], [1, matrix.dims[1]])
            or fixed[bias].data_type != matrix.data_type
        ):
            continue
        joined[add.name] = helper.make_node("Gemm", [*node.input, bias], [add.output[0]], node.name)
        gone.add(node.name)
    if joined:
        replace(graph.node, [joined.get(node.name, node) for node in graph.node if node.name not in gone])
    return proto


def _ranks(proto: ModelProto) -> dict[str, int]:
    graph: GraphProto = shape_inference.infer_shapes(proto).graph
    return {value.name: len(value.type.tensor_type.shape.dim) for value in graph.value_info if value.type.tensor_type.HasField("shape")}

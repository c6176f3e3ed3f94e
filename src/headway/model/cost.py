"""What one request costs on a graph: FLOP and bytes of every operator. The rules are in ``flop``; this file knows the graph around them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil, prod

import numpy as np
import onnx_ir as ir

from headway.model.flop import NodeView, ShapeUnknown, flop_of
from headway.model.flop.pointwise import LOOKUPS, VIEWS
from headway.model.graph import Model
from headway.model.shapes import Shape, at_one_request
from headway.model.weights import parameters
from headway.records import Cost, OperatorCost

_RANDOM = frozenset(["RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"])
_SMALL = 64


def cost(model: Model, samples: Mapping[str, np.ndarray] | None = None, *, sizes: Mapping[str, int] | None = None) -> Cost:
    """Parameters, FLOP and bytes of a model for one request.

    The batch is one. Other free dimensions take their size from ``sizes`` by name, then from ``samples``; else ``height`` and
    ``width`` are 224 and all others 64. Bytes are lower bounds on what must move: operators that only rename a shape move nothing, a
    look-up reads only the rows it gives (so a table that is only looked up is no weight that moves), what can be computed
    beforehand costs nothing, and between a QuantizeLinear and a DequantizeLinear values have their narrow size. Loop and Scan bodies
    count once, of an If the costlier branch; both, and operators without a rule or a shape, are named in ``uncounted``.
    """
    graph, shapes = at_one_request(model, samples, sizes)
    counter = _Counter(graph, shapes)
    operators = counter.count(graph.graph)
    return Cost(
        parameters=parameters(model),
        flop=sum(operator.flop for operator in operators),
        weight_bytes=ceil(sum(counter.moved_weights.values())),
        activation_bytes=sum(operator.activation_bytes for operator in operators),
        opset=model.opset,
        inputs=model.inputs,
        outputs=model.outputs,
        operators=tuple(operators),
        uncounted=tuple(sorted(counter.uncounted)),
    )


class _Counter:
    """One walk over a graph in order; knows which values are constant and how wide each is stored."""

    def __init__(self, graph: ir.Model, shapes: Mapping[str, Shape]) -> None:
        self._shapes = shapes
        self._stored: dict[str, float] = {}  # bytes of constants and of what is computed from constants alone
        self._outputs = {value.name for value in graph.graph.outputs}
        self.moved_weights: dict[str, float] = {}
        self.uncounted: set[str] = set()

    def count(self, body: ir.Graph) -> list[OperatorCost]:
        """The cost of each node of a body, those of bodies inside it too."""
        for name, value in body.initializers.items():
            if value.const_value is not None:
                self._stored[name] = value.const_value.nbytes
        found: list[OperatorCost] = []
        for node in body:
            inner = [
                attribute for attribute in node.attributes.values() if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            ]
            if inner:
                found.extend(self._control_flow(node, inner))
            elif self._is_constant(node):
                self._fold(node)
            else:
                found.append(self._one(node))
        return found

    def _control_flow(self, node: ir.Node, inner: Iterable[ir.Attr]) -> list[OperatorCost]:
        bodies = [
            body
            for attribute in inner
            for body in (attribute.as_graphs() if attribute.type == ir.AttributeType.GRAPHS else [attribute.as_graph()])
        ]
        counted = [self.count(body) for body in bodies]
        if node.op_type == "If":
            self.uncounted.add("If (the costlier branch counted)")
            return max(counted, key=lambda operators: sum(operator.flop for operator in operators))
        self.uncounted.add(f"{node.op_type} (its body counted once)")
        return [operator for operators in counted for operator in operators]

    def _is_constant(self, node: ir.Node) -> bool:
        return node.op_type not in _RANDOM and all(value is None or value.name in self._stored for value in node.inputs)

    def _fold(self, node: ir.Node) -> None:
        """What a runtime computes once, at load; a dequantized weight stays as narrow as it is stored."""
        narrow = sum(self._stored.get(value.name or "", 0.0) for value in node.inputs if value is not None)
        for value in node.outputs:
            name = value.name or ""
            wide = prod(self._shapes[name]) * _width(value) if name in self._shapes else narrow
            self._stored[name] = min(narrow, wide) if node.op_type == "DequantizeLinear" else wide

    def _one(self, node: ir.Node) -> OperatorCost:
        try:
            flop = flop_of(self._view(node))
        except (KeyError, ShapeUnknown, ValueError, IndexError, ZeroDivisionError) as error:
            flop = 0
            self.uncounted.add(f"{node.op_type} (shape unknown)" if isinstance(error, ShapeUnknown) else node.op_type)
        weights = self._weights(node)
        for name, size in weights.items():
            self.moved_weights[name] = size
        return OperatorCost(
            node=node.name or node.outputs[0].name or "",
            op_type=node.op_type,
            flop=flop,
            weight_bytes=ceil(sum(weights.values())),
            activation_bytes=ceil(self._activation_bytes(node)),
        )

    def _view(self, node: ir.Node) -> NodeView:
        constants = {}
        for index, value in enumerate(node.inputs):
            tensor = value.const_value if value is not None else None
            if tensor is not None and tensor.size <= _SMALL and tensor.dtype != ir.DataType.STRING:
                constants[index] = tensor.numpy()
        return NodeView(
            node.op_type, node.domain, {name: attribute.value for name, attribute in node.attributes.items()},
            tuple(None if value is None else self._shapes.get(value.name or "") for value in node.inputs),
            tuple(self._shapes.get(value.name or "") for value in node.outputs), constants,
            tuple(value is not None for value in node.inputs),
        )  # fmt: skip

    def _weights(self, node: ir.Node) -> dict[str, float]:
        """Constants that the node reads whole, by name, with their stored bytes."""
        whole = node.inputs[1:] if node.op_type in LOOKUPS else node.inputs
        return {value.name or "": self._stored[value.name or ""] for value in whole if value is not None and value.name in self._stored}

    def _activation_bytes(self, node: ir.Node) -> float:
        if node.op_type in VIEWS or self._fused(node):
            return 0
        written = sum(self._bytes(value) for value in node.outputs)
        inputs = {value.name: value for value in node.inputs if value is not None}
        if node.op_type in LOOKUPS:
            table = node.inputs[0]
            others = sum(
                self._bytes(value)
                for name, value in inputs.items()
                if table is not None and name != table.name and name not in self._stored
            )
            return 2 * written + others
        return written + sum(self._bytes(value) for name, value in inputs.items() if name not in self._stored)

    def _fused(self, node: ir.Node) -> bool:
        """Whether the node only says how wide a value is stored: its work is done in the kernel beside it."""
        if node.op_type == "DequantizeLinear":
            return node.outputs[0].name not in self._outputs
        return node.op_type == "QuantizeLinear" and node.inputs[0] is not None and node.inputs[0].producer() is not None

    def _bytes(self, value: ir.Value) -> float:
        shape = self._shapes.get(value.name or "")
        return prod(shape) * self._stored_width(value) if shape is not None else 0

    def _stored_width(self, value: ir.Value) -> float:
        """Bytes of one element as it is kept between kernels: narrow when it was just dequantized, or is only quantized next."""
        producer = value.producer()
        if producer is None or value.name in self._outputs:
            return _width(value)
        if producer.op_type == "DequantizeLinear" and producer.inputs[0] is not None:
            return _width(producer.inputs[0])
        users = [user for user, _ in value.uses()]
        if users and all(user.op_type == "QuantizeLinear" for user in users):
            return max(_width(user.outputs[0], 1.0) for user in users)
        return _width(value)


def _width(value: ir.Value, unknown: float = 4.0) -> float:
    """Bytes of one element of the value's own type."""
    return (
        value.dtype.bitwidth / 8 if value.dtype is not None and value.dtype not in (ir.DataType.UNDEFINED, ir.DataType.STRING) else unknown
    )

"""FLOP of one ONNX operator from its shapes; a multiply-add is two, and so is every row of these tables.

Counted is floating-point (or integer, in quantized operators) arithmetic on elements. Comparisons for control, index arithmetic and
data movement count zero. A transcendental function (exp, tanh, erf, ...) counts as one operation on an element, whatever it takes on a
machine: the count is of the algorithm, so that two graphs can be compared, and is not a time. Published numbers for networks are often
multiply-adds (MAC): half of this.
"""

from __future__ import annotations

from headway.model.flop import attention, linear, pointwise, recurrent, windows
from headway.model.flop.view import NodeView, ShapeUnknown

RULES = {**pointwise.RULES, **linear.RULES, **windows.RULES, **recurrent.RULES, **attention.RULES}

__all__ = ["NodeView", "RULES", "ShapeUnknown", "flop_of"]


def flop_of(node: NodeView) -> int:
    """Work of one execution of the node [FLOP].

    Raises:
        KeyError: no rule for this operator.
        ShapeUnknown: a shape that the rule needs is not known.
    """
    return int(RULES[node.op_type](node))

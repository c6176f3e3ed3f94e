"""Recurrent operators: for every step, row and direction, the gates' products and the cell's pointwise work.

With input size I and hidden size H, in FLOP: products 2 G H (I + H) for G gates; the sum of the two products G H; the bias G H (its
two parts are added beforehand); activations as one operation each. LSTM (Hochreiter and Schmidhuber 1997): 5 activations, 4 more for
cell and output. GRU (Cho et al. 2014): 3 activations, 4 more for reset and update. The ONNX specification gives the layout:
X (steps, rows, I) or (rows, steps, I), W (directions, G H, I).
"""

from __future__ import annotations

from collections.abc import Callable

from headway.model.flop.view import NodeView


def _recurrent(gates: int, pointwise: int) -> Callable[[NodeView], int]:
    def rule(node: NodeView) -> int:
        steps, rows, width = node.input(0)  # which of the two first is which does not matter
        directions = 2 if node.attributes.get("direction") in ("bidirectional", b"bidirectional") else 1
        hidden = int(node.attributes["hidden_size"])
        products = 2 * gates * hidden * (width + hidden)
        sums = gates * hidden * (1 + node.has(3))
        return steps * rows * directions * (products + sums + pointwise * hidden)

    return rule


RULES: dict[str, Callable[[NodeView], int]] = {
    "LSTM": _recurrent(gates=4, pointwise=9),
    "DynamicQuantizeLSTM": _recurrent(gates=4, pointwise=9),
    "GRU": _recurrent(gates=3, pointwise=7),
    "RNN": _recurrent(gates=1, pointwise=1),
}

"""Recurrent layers freed from initial states that are nothing but zeros: that is what they start from when none is given.

Exporters share one tensor of zeros among all layers of a stack. Without it the layers' hidden units are no longer tied to one another.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper

from headway.compress.graph import initializers, producers

RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
STATES = (5, 6)
_MOVES = frozenset({"Cast", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze"})


def drop_zero_states(proto: ModelProto) -> None:
    """Leave out the initial states [directions, batch, hidden] that are zero whatever the input, in place. Expects the form of ``graph.normalise``."""
    fixed = {name: numpy_helper.to_array(tensor) for name, tensor in initializers(proto.graph).items()}
    made_by = producers(proto.graph)
    for node in proto.graph.node:
        if node.op_type not in RECURRENT or node.domain not in ("", "ai.onnx"):
            continue
        for place in STATES:
            if place < len(node.input) and _is_zero(node.input[place], fixed, made_by):
                node.input[place] = ""
        while node.input and not node.input[-1]:
            del node.input[-1]


def _is_zero(name: str, fixed: dict[str, np.ndarray], made_by: dict[str, NodeProto]) -> bool:
    while name not in fixed:
        node = made_by.get(name)
        if node is not None and node.op_type == "ConstantOfShape":
            value = next((numpy_helper.to_array(attribute.t) for attribute in node.attribute if attribute.name == "value"), np.zeros(1))
            return not value.any()
        if node is None or node.op_type not in _MOVES or node.domain not in ("", "ai.onnx"):
            return False
        name = node.input[0]
    return not fixed[name].any()

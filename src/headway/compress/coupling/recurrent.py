"""LSTM and GRU: hidden units, the same in both directions, and what the next layer reads of them."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from headway.compress.coupling.coupled import Layer
from headway.compress.coupling.walk import Rule, Walk

GATES = {"LSTM": 4, "GRU": 3}


def recurrent(walk: Walk, node: NodeProto) -> None:
    """W (directions, gates*hidden, inside), R (directions, gates*hidden, hidden), B, initial states and peepholes."""
    names = [*node.input, *[""] * (8 - len(node.input))]
    value, weight, recurrence, bias, _lengths, *states = names
    own = [name for name in (weight, recurrence, bias) if name]
    if any(name not in walk.fixed for name in own) or walk.integer(node, "layout", 0):
        walk.pin_inputs(node, "takes its weights from the graph")
        return
    gates, hidden = GATES[node.op_type], walk.shape(recurrence)[2]
    units = walk.source(node, hidden)
    axes = walk.read(value)
    walk.pin(node, "runs along them", *axes[:2])
    if units is None:
        walk.use(weight, {2: axes[2]}, sums=2)
        return
    walk.use(weight, {1: np.tile(units, gates), 2: axes[2]}, sums=2)
    walk.use(recurrence, {1: np.tile(units, gates), 2: units}, sums=2)
    if bias:
        walk.use(bias, {1: np.tile(units, 2 * gates)})
    walk.attributes[node.name, "hidden_size", 0] = units
    for position, name in enumerate(states):
        _state(walk, node, name, np.tile(units, 3) if position == 2 else units)
    shape = walk.shape(value)
    steps = float(shape[0] * walk.shape(weight)[0] * gates * hidden)
    walk.layers.append(Layer(node.name, node.op_type, axes[2], units, weight, 2, value, node.output[0], "", steps * shape[2]))
    walk.layers.append(Layer(node.name, "recurrence", units, units, recurrence, 2, node.output[0], "", "", steps * hidden))
    for name in node.output:
        if name:
            walk.write(name, [*[None] * (len(walk.shape(name)) - 1), units])


def _state(walk: Walk, node: NodeProto, name: str, units: np.ndarray) -> None:
    if not name:
        return
    if name in walk.fixed:
        walk.use(name, {len(walk.shape(name)) - 1: units})
        return
    row = walk.read(name)[-1]
    if row is None:
        walk.pin(node, "starts from a state that stays", units)
    else:
        walk.unite(node, units, row)


RULES: dict[str, Rule] = dict.fromkeys(GATES, recurrent)

"""LSTM, GRU and RNN: torch's fused kernels where the layout allows, otherwise step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from headway.lift.node import Node
from headway.lift.registry import Run, operator
from headway.lift.tensors import ints

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_ORDERS = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""Position in ONNX's order of each gate in torch's: LSTM iofc to ifgo, GRU zrh to rzn."""
_USUAL = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
Activation = Callable[[Tensor], Tensor]


@operator("LSTM", "GRU", "RNN", host=(4,))
def _recurrent(node: Node) -> Run:
    kind, batch_first = node.operator, node.get("layout", 0)
    ways = 2 if node.get("direction", "forward") == "bidirectional" else 1
    names = node.get("activations") or _USUAL[kind] * ways
    fused = _fusable(node, [name.lower() for name in names])
    activations = None if fused else _activations(node, names)

    def run(x: Tensor, w: Tensor, r: Tensor, b: Any = None, lengths: Any = None, h: Any = None, c: Any = None, p: Any = None) -> Any:
        if batch_first:
            x, h, c = (None if each is None else each.transpose(0, 1) for each in (x, h, c))
        shape = (ways, x.shape[1], r.shape[2])
        h = x.new_zeros(shape) if h is None else h
        c = x.new_zeros(shape) if c is None else c
        whole = lengths is None or all(each == x.shape[0] for each in ints(lengths))
        if fused and whole and p is None:
            y, hidden, cell = _fused(node, x, w, r, b, h, c)
        else:
            chosen = activations or _activations(node, names)
            y, hidden, cell = _stepwise(node, x, (w, r, b, p), lengths, h, c, chosen)
        if batch_first:
            y, hidden, cell = y.permute(2, 0, 1, 3), hidden.transpose(0, 1), cell.transpose(0, 1)
        return (y, hidden, cell)[: len(node.proto.output)]

    return run


def _fusable(node: Node, names: list[str]) -> bool:
    kind = node.operator
    usual = [name.lower() for name in _USUAL[kind]]
    relu = kind == "RNN" and all(name == "relu" for name in names)
    same = relu or names == usual * (len(names) // len(usual))
    linear = kind != "GRU" or node.get("linear_before_reset", 0)
    return bool(same and linear and not node.get("clip") and not node.get("input_forget", 0))


def _fused(node: Node, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """By torch's kernel; ``b`` is absent or holds the input's and the state's biases one after the other."""
    kind, ways = node.operator, w.shape[0]
    back = node.get("direction", "forward") == "reverse"
    weights: list[Tensor] = []
    for way in range(ways):
        biases = () if b is None else b[way].chunk(2)
        weights += [_ordered(each, kind) for each in (w[way], r[way], *biases)]
    x = x.flip(0) if back else x
    rest = (b is not None, 1, 0.0, False, ways == 2, False)
    if kind == "LSTM":
        y, hidden, cell = torch.lstm(x, (h, c), weights, *rest)
    else:
        relu = (node.get("activations") or ["Tanh"])[0].lower() == "relu"
        function = torch.gru if kind == "GRU" else (torch.rnn_relu if relu else torch.rnn_tanh)
        y, hidden = function(x, h, weights, *rest)
        cell = c
    y = y.flip(0) if back else y
    return y.reshape(*y.shape[:2], ways, -1).transpose(1, 2), hidden, cell


def _ordered(tensor: Tensor, kind: str) -> Tensor:
    parts = tensor.chunk(_GATES[kind])
    return torch.cat([parts[position] for position in _ORDERS[kind]]) if kind != "RNN" else tensor


def _activations(node: Node, names: Sequence[str]) -> list[Activation]:
    alphas, betas = iter(node.get("activation_alpha") or []), iter(node.get("activation_beta") or [])
    return [_activation(node, name.lower(), alphas, betas) for name in names]


def _activation(node: Node, name: str, alphas: Any, betas: Any) -> Activation:
    plain: dict[str, Activation] = {
        "sigmoid": torch.sigmoid, "tanh": torch.tanh, "relu": torch.relu,
        "softsign": torch.nn.functional.softsign, "softplus": torch.nn.functional.softplus,
    }  # fmt: skip
    if name in plain:
        return plain[name]
    if name == "leakyrelu":
        alpha = next(alphas, 0.01)
        return lambda x: torch.nn.functional.leaky_relu(x, alpha)
    if name == "elu":
        alpha = next(alphas, 1.0)
        return lambda x: torch.nn.functional.elu(x, alpha)
    if name == "thresholdedrelu":
        alpha = next(alphas, 1.0)
        return lambda x: torch.where(x > alpha, x, torch.zeros_like(x))
    if name in ("affine", "hardsigmoid", "scaledtanh"):
        alpha, beta = next(alphas, 0.2 if name == "hardsigmoid" else 1.0), next(betas, 0.5 if name == "hardsigmoid" else 0.0)
        return {
            "affine": lambda x: alpha * x + beta,
            "hardsigmoid": lambda x: torch.clamp(alpha * x + beta, 0, 1),
            "scaledtanh": lambda x: alpha * torch.tanh(beta * x),
        }[name]
    raise node.refuse(f"must use activations of the ONNX standard, got {name}; change the model")


def _stepwise(
    node: Node, x: Tensor, weights: Sequence[Any], lengths: Tensor | None, h: Tensor, c: Tensor, activations: list[Activation]
) -> tuple[Tensor, Tensor, Tensor]:
    ways, each = h.shape[0], len(activations) // h.shape[0]
    ends = torch.full((x.shape[1],), x.shape[0]) if lengths is None else lengths
    ends = ends.to(x.device).reshape(-1, 1)
    outputs, hidden, cells = [], [], []
    for way in range(ways):
        back = way == 1 or node.get("direction", "forward") == "reverse"
        own = [None if tensor is None else tensor[way] for tensor in weights]
        made = _one_way(node, x, own, ends, h[way], c[way], activations[way * each : (way + 1) * each], back)
        for store, value in zip((outputs, hidden, cells), made, strict=True):
            store.append(value)
    return torch.stack(outputs, 1), torch.stack(hidden), torch.stack(cells)


def _one_way(
    node: Node, x: Tensor, weights: Sequence[Any], ends: Tensor, h: Tensor, c: Tensor, activations: list[Activation], back: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """One direction; after its end a row keeps its state and gives zeros."""
    w, r, b, p = weights
    gates = _GATES[node.operator]
    wb, rb = (x.new_zeros(r.shape[0]),) * 2 if b is None else b.chunk(2)
    peep = (x.new_zeros(h.shape[-1]),) * 3 if p is None else p.chunk(3)
    seen = (x @ w.T + wb).chunk(gates, -1)
    parts = list(zip(r.chunk(gates), rb.chunk(gates), strict=True))
    cell_of = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}[node.operator]
    rows: list[Tensor] = [x.new_zeros(())] * x.shape[0]
    for turn in reversed(range(x.shape[0])) if back else range(x.shape[0]):
        new_h, new_c = cell_of(node, [each[turn] for each in seen], parts, peep, h, c, activations)
        alive = turn < ends
        h, c = torch.where(alive, new_h, h), torch.where(alive, new_c, c)
        rows[turn] = torch.where(alive, new_h, torch.zeros_like(new_h))
    return torch.stack(rows), h, c


def _clipped(node: Node, value: Tensor) -> Tensor:
    limit = node.get("clip")
    return torch.clamp(value, -limit, limit) if limit else value


def _lstm(node: Node, seen: Any, parts: Any, peep: Any, h: Tensor, c: Tensor, act: list[Activation]) -> tuple[Tensor, Tensor]:
    i, o, f, g = (value + h @ r.T + rb for value, (r, rb) in zip(seen, parts, strict=True))
    enter = act[0](_clipped(node, i + peep[0] * c))
    forget = 1 - enter if node.get("input_forget", 0) else act[0](_clipped(node, f + peep[2] * c))
    cell = forget * c + enter * act[1](_clipped(node, g))
    return act[0](_clipped(node, o + peep[1] * cell)) * act[2](cell), cell


def _gru(node: Node, seen: Any, parts: Any, _: Any, h: Tensor, c: Tensor, act: list[Activation]) -> tuple[Tensor, Tensor]:
    (rz, bz), (rr, br), (rh, bh) = parts
    update = act[0](_clipped(node, seen[0] + h @ rz.T + bz))
    reset = act[0](_clipped(node, seen[1] + h @ rr.T + br))
    inner = reset * (h @ rh.T + bh) if node.get("linear_before_reset", 0) else (reset * h) @ rh.T + bh
    return (1 - update) * act[1](_clipped(node, seen[2] + inner)) + update * h, c


def _rnn(node: Node, seen: Any, parts: Any, _: Any, h: Tensor, c: Tensor, act: list[Activation]) -> tuple[Tensor, Tensor]:
    r, rb = parts[0]
    return act[0](_clipped(node, seen[0] + h @ r.T + rb)), c

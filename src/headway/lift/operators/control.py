"""If, Loop and Scan: subgraphs that see the values around them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from headway.lift.node import Node
from headway.lift.registry import Run, operator


@operator("If", frame=True)
def _if(node: Node) -> Run:
    yes, no = node.compile(node.get("then_branch")), node.compile(node.get("else_branch"))

    def run(frame: Any, condition: Tensor) -> tuple[Any, ...]:
        return tuple((yes if bool(condition) else no)(frame))

    return run


@operator("Loop", frame=True)
def _loop(node: Node) -> Run:
    body = node.compile(node.get("body"))
    state_count = len(node.proto.input) - 2

    def run(frame: Any, limit: Tensor | None = None, condition: Tensor | None = None, *state: Any) -> tuple[Any, ...]:
        rounds = None if limit is None else int(limit)
        goes, values, rows, turn = condition is None or bool(condition), list(state), [], 0
        while goes and (rounds is None or turn < rounds):
            made = body(frame, torch.tensor(turn), torch.tensor(True), *values)
            goes, values = bool(made[0]), made[1 : 1 + state_count]
            rows.append(made[1 + state_count :])
            turn += 1
        if not rows:
            empty = len(body.outputs) - 1 - state_count
            return (*values, *(torch.zeros(0) for _ in range(empty)))
        return (*values, *(torch.stack(column) for column in zip(*rows, strict=True)))

    return run


@operator("Scan", frame=True)
def _scan(node: Node) -> Run:
    body, count = node.compile(node.get("body")), node.get("num_scan_inputs")
    state_count = len(node.proto.input) - count
    out_count = len(body.outputs) - state_count
    in_axes = node.get("scan_input_axes") or [0] * count
    out_axes = node.get("scan_output_axes") or [0] * out_count
    in_back = node.get("scan_input_directions") or [0] * count
    out_back = node.get("scan_output_directions") or [0] * out_count

    def run(frame: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
        values = list(inputs[:state_count])
        columns = [each.unbind(axis) for each, axis in zip(inputs[state_count:], in_axes, strict=True)]
        columns = [each[::-1] if back else each for each, back in zip(columns, in_back, strict=True)]
        rows = []
        for parts in zip(*columns, strict=True):
            made = body(frame, *values, *parts)
            values = made[:state_count]
            rows.append(made[state_count:])
        outputs = []
        for position, (axis, back) in enumerate(zip(out_axes, out_back, strict=True)):
            parts = [row[position] for row in rows]
            outputs.append(torch.stack(parts[::-1] if back else parts, axis))
        return (*values, *outputs)

    return run

"""Sequences and optional values, as lists and None."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from headway.lift.node import Node
from headway.lift.registry import Run, operator, plain
from headway.lift.tensors import ints


def _insert(sequence: list[Any], value: Any, position: Tensor | None = None) -> list[Any]:
    made = list(sequence)
    at = len(made) if position is None else int(position)
    made.insert(at, value)
    return made


def _erase(sequence: list[Any], position: Tensor | None = None) -> list[Any]:
    made = list(sequence)
    del made[-1 if position is None else int(position)]
    return made


plain({
    "SequenceConstruct": lambda *values: list(values),
    "SequenceEmpty": list,
    "SequenceAt": lambda sequence, position: sequence[int(position)],
    "SequenceLength": lambda sequence: torch.tensor(len(sequence)),
    "SequenceInsert": _insert,
    "SequenceErase": _erase,
    "OptionalGetElement": lambda value: value,
    "OptionalHasElement": lambda value=None: torch.tensor(value is not None),
    "Optional": lambda value=None: value,
})  # fmt: skip


@operator("ConcatFromSequence")
def _join(node: Node) -> Run:
    axis, fresh = node.get("axis"), node.get("new_axis", 0)
    return lambda sequence: (torch.stack if fresh else torch.cat)(sequence, axis)


@operator("SplitToSequence", host=(1,))
def _split(node: Node) -> Run:
    axis, keep = node.get("axis", 0), node.get("keepdims", 1)

    def run(x: Tensor, split: Tensor | None = None) -> list[Tensor]:
        if split is None:
            parts = list(torch.split(x, 1, axis))
            return parts if keep else [part.squeeze(axis) for part in parts]
        return list(torch.split(x, int(split) if split.dim() == 0 else ints(split), axis))

    return run


@operator("SequenceMap", frame=True)
def _map(node: Node) -> Run:
    body = node.compile(node.get("body"))

    def run(frame: Any, sequence: list[Any], *others: Any) -> tuple[list[Any], ...]:
        rows = []
        for position, value in enumerate(sequence):
            rows.append(body(frame, value, *(each[position] if isinstance(each, list) else each for each in others)))
        return tuple([list(column) for column in zip(*rows, strict=True)]) if rows else tuple([] for _ in body.outputs)

    return run

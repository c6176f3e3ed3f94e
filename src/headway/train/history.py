"""What a training went through: one record an epoch, and the report while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headway.records import Record


class OutputScore(Record, frozen=True, kw_only=True):
    """One output on the selection rows.

    Attributes:
        output: its name.
        loss: towards labels, or towards the teachers where there are none.
        error: share of wrong answers, or the share of variance left unexplained; without labels the loss again.
        attacked_error: the error on attacked inputs; none without an attack.
    """

    output: str
    loss: float
    error: float
    attacked_error: float | None = None


class Epoch(Record, frozen=True, kw_only=True):
    """One pass over the rows; number 0 is the model as it came.

    Attributes:
        steps: optimiser steps so far.
        loss: mean training loss of the pass; none for number 0.
        scores: of each output on the selection rows; empty without them.
        value: the one number that decides, smaller is better; none without selection rows.
        kept: whether the weights of this moment are the ones given back.
    """

    number: int
    steps: int
    loss: float | None = None
    scores: tuple[OutputScore, ...] = ()
    value: float | None = None
    kept: bool = False


@dataclass(frozen=True)
class Progress:
    """After a step: how far it is, and the loss of this step."""

    step: int
    steps: int
    epoch: int
    loss: float


Report = Callable[[Progress], None]

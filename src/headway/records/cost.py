"""What a graph costs and what a machine can do: the two halves of a roofline."""

from __future__ import annotations

from headway.records.base import Record
from headway.records.candidate import TensorSpec


class OperatorCost(Record, frozen=True, kw_only=True):
    """One node's work for one request: FLOP (a multiply-add is two), bytes of weights and of activations."""

    node: str
    op_type: str
    flop: int
    weight_bytes: int
    activation_bytes: int


class Cost(Record, frozen=True, kw_only=True):
    """A model's cost for one request (batch of one).

    Attributes:
        flop: w, work [FLOP]; a multiply-add counts two.
        weight_bytes: q_w, moved once a batch [B].
        activation_bytes: q_a, inputs and outputs of every node, for one request [B].
        uncounted: operator types with no rule, so that nobody takes the sum for complete.
    """

    parameters: int
    flop: int
    weight_bytes: int
    activation_bytes: int
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: tuple[OperatorCost, ...]
    uncounted: tuple[str, ...] = ()

    @property
    def intensity(self) -> float:
        """Arithmetic intensity at batch one [FLOP/B]."""
        return self.flop / max(1, self.weight_bytes + self.activation_bytes)


class Ceilings(Record, frozen=True, kw_only=True):
    """Attainable rates of this machine, measured, for one thread and for all cores.

    Attributes:
        flop_per_s: attainable FLOP/s by precision (``float32``, ``int8``; ``bfloat16`` where a runtime has it), all cores.
        flop_per_s_one_thread: the same for one thread.
        bytes_per_s: attainable memory bandwidth, all cores [B/s].
        overhead_s: t0, one call of a runtime on a trivial graph [s].
    """

    flop_per_s: dict[str, float]
    flop_per_s_one_thread: dict[str, float]
    bytes_per_s: float
    bytes_per_s_one_thread: float
    overhead_s: float

"""The roofline of a model on this machine: lower bounds of its time, for the whole and for each operator, and what bounds them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from headway.predict.queueing import crossover_batch, service_bound_s
from headway.records import Ceilings, Cost, OperatorCost


@dataclass(frozen=True, slots=True)
class Rates:
    """Attainable rates: FLOP/s by precision, memory bandwidth [B/s], time of an empty call [s]."""

    flop_per_s: Mapping[str, float]
    bytes_per_s: float
    overhead_s: float


@dataclass(frozen=True, slots=True)
class OperatorBound:
    """Lower bound of one operator's time at a batch size [s], and the two sides it is the larger of."""

    node: str
    op_type: str
    compute_s: float
    memory_s: float

    @property
    def bound_s(self) -> float:
        """The larger side [s]."""
        return max(self.compute_s, self.memory_s)

    @property
    def compute_bound(self) -> bool:
        """Whether arithmetic, not memory, is the larger side."""
        return self.compute_s >= self.memory_s


@dataclass(frozen=True, slots=True)
class Roofline:
    """Bounds of one model at one batch size and precision.

    Attributes:
        bound_s: t0 + max(b w / P, (q_w + b q_a) / B) [s].
        compute_s, memory_s: its two sides [s].
        crossover: batch from which the model is compute-bound; infinite if never.
        operators: the same for every operator, in graph order. Their sum is larger: it takes every operator's inputs and outputs to
            memory and back, as a runtime does that fuses nothing and a machine that keeps nothing in cache.
    """

    batch: int
    bound_s: float
    compute_s: float
    memory_s: float
    crossover: float
    operators: tuple[OperatorBound, ...]

    @property
    def compute_bound(self) -> bool:
        """Whether arithmetic, not memory, bounds this batch."""
        return self.compute_s >= self.memory_s

    @property
    def unfused_s(self) -> float:
        """Sum over the operators, with the call's overhead [s]."""
        return self.bound_s - max(self.compute_s, self.memory_s) + math.fsum(operator.bound_s for operator in self.operators)


def rates(ceilings: Ceilings, *, all_cores: bool = False) -> Rates:
    """The rates of one thread, or of all cores."""
    if all_cores:
        return Rates(ceilings.flop_per_s, ceilings.bytes_per_s, ceilings.overhead_s)
    return Rates(ceilings.flop_per_s_one_thread, ceilings.bytes_per_s_one_thread, ceilings.overhead_s)


def roofline(cost: Cost, ceilings: Ceilings, *, batch: int = 1, all_cores: bool = False, precision: str = "float32") -> Roofline:
    """The Roofline of a model from its cost and the machine's measured rates.

    Weights and activations are counted as the graph holds them: the precision changes the rate of arithmetic, not the bytes.

    Raises:
        ValueError: no rate was measured for this precision, or batch is below 1.
    """
    attained = rates(ceilings, all_cores=all_cores)
    if batch < 1 or precision not in attained.flop_per_s:
        known = ", ".join(sorted(attained.flop_per_s))
        raise ValueError(f"batch must be at least 1 and the precision one of {known}, got {batch=}, {precision=}")
    flop_per_s, bytes_per_s = attained.flop_per_s[precision], attained.bytes_per_s
    bound_s = service_bound_s(
        batch,
        flop=cost.flop,
        weight_bytes=cost.weight_bytes,
        activation_bytes=cost.activation_bytes,
        flop_per_s=flop_per_s,
        bytes_per_s=bytes_per_s,
        overhead_s=attained.overhead_s,
    )
    crossover = crossover_batch(
        flop=cost.flop,
        weight_bytes=cost.weight_bytes,
        activation_bytes=cost.activation_bytes,
        flop_per_s=flop_per_s,
        bytes_per_s=bytes_per_s,
    )
    return Roofline(
        batch=batch,
        bound_s=bound_s,
        compute_s=batch * cost.flop / flop_per_s,
        memory_s=(cost.weight_bytes + batch * cost.activation_bytes) / bytes_per_s,
        crossover=crossover,
        operators=tuple(operator_bound(operator, batch, flop_per_s, bytes_per_s) for operator in cost.operators),
    )


def operator_bound(operator: OperatorCost, batch: int, flop_per_s: float, bytes_per_s: float) -> OperatorBound:
    """The bound of one operator at a batch size; its weights are moved once, its activations for every request."""
    return OperatorBound(
        node=operator.node,
        op_type=operator.op_type,
        compute_s=batch * operator.flop / flop_per_s,
        memory_s=(operator.weight_bytes + batch * operator.activation_bytes) / bytes_per_s,
    )

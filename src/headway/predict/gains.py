"""What each technique can at best bring to a model on this machine, and why some cannot pay; from the roofline, before any is tried."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

from headway.predict.roofline import Roofline, rates, roofline
from headway.records import Ceilings, Cost, OperatorCost

INT8_SETS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})
BF16_SETS = frozenset({"avx512_bf16", "amx_bf16", "arm_bf16"})
HEAVY = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm", "LSTM", "GRU", "Attention"})
"""Operators that 16-bit kernels exist for, and that fusion leaves standing."""
INT8_STATIC = frozenset({"Conv", "MatMul", "Gemm"})
INT8_DYNAMIC = frozenset({"MatMul", "Gemm"})
CACHE_BYTES = 32_000_000
"""Weights below this may stay in cache, where the memory bound does not hold [B]; a typical last-level share."""
NOTHING = 1.005
"""A gain below this is none."""


@dataclass(frozen=True, slots=True)
class Gain:
    """The largest speed-up that a technique could bring at a batch size; 1 when it cannot pay, and a sentence that says why."""

    technique: str
    at_best: float
    sentence: str


@dataclass(frozen=True, slots=True)
class _Change:
    """What a technique does to the operators it touches: another rate of arithmetic, fewer bytes, or less work."""

    precision: str = "float32"
    weight_bytes: float = 1.0
    activation_bytes: float = 1.0
    work: float = 1.0


def gains(cost: Cost, ceilings: Ceilings, instruction_sets: Collection[str], *, batch: int = 1) -> tuple[Gain, ...]:
    """What each technique can at best bring on one thread, operator by operator: what it does not touch keeps its time (Amdahl).

    Each is the better of two extremes, all data from memory and all from cache, so that it is a ceiling and no forecast.
    """
    best = _Ceiling(cost, ceilings, batch)
    narrow = _Change(precision="int8", weight_bytes=0.25, activation_bytes=0.25)
    dynamic = _Change(precision="int8", weight_bytes=0.25)
    half = _Change(precision="bfloat16", weight_bytes=0.5, activation_bytes=0.5)
    found = [
        best.gain(
            "fold", _heavy, None, "removing and fusing all operators but convolutions and matrix products", "nothing but those is there"
        ),
        _needs(INT8_SETS, instruction_sets, _NO_INT8, best.gain("quantize_static", _static, narrow, "int8 arithmetic", _SLOW)),
        _needs(
            INT8_SETS, instruction_sets, _NO_INT8, best.gain("quantize_dynamic", _dynamic, dynamic, "int8 in matrix products alone", _SLOW)
        ),
        _needs(BF16_SETS, instruction_sets, _NO_BF16, best.gain("precision", _heavy, half, "bfloat16", _SLOW)),
        _weight_only(cost, ceilings, best, batch),
        Gain("unstructured", 1.0, "unstructured zeros will not help speed: dense kernels multiply them like any other number"),
        best.gain(
            "structured",
            _heavy,
            _Change(work=0.5, weight_bytes=0.5, activation_bytes=0.5),
            "removing half of the channels",
            "no such work is there",
        ),
    ]
    return tuple(found)


_NO_INT8 = "int8 arithmetic will not help here: this processor has no 8-bit dot product (VNNI, AMX, or Arm's dotprod)"
_NO_BF16 = "bfloat16 will not help here: this processor has no bfloat16 arithmetic"
_SLOW = "its measured rate here is no better than float32's, or nothing of the model can use it"


def _heavy(operator: OperatorCost) -> bool:
    return operator.op_type in HEAVY


def _static(operator: OperatorCost) -> bool:
    return operator.op_type in INT8_STATIC


def _dynamic(operator: OperatorCost) -> bool:
    return operator.op_type in INT8_DYNAMIC and operator.weight_bytes > 0


def _weighty(operator: OperatorCost) -> bool:
    return operator.weight_bytes > 0


class _Ceiling:
    """Speed-ups over the float32 time of a model's operators."""

    def __init__(self, cost: Cost, ceilings: Ceilings, batch: int) -> None:
        whole = OperatorCost(
            node="", op_type="MatMul", flop=cost.flop, weight_bytes=cost.weight_bytes, activation_bytes=cost.activation_bytes
        )
        self._operators = cost.operators or (whole,)
        self._rates, self._batch = rates(ceilings), batch

    def gain(self, technique: str, touches: Callable[[OperatorCost], bool], change: _Change | None, what: str, otherwise: str) -> Gain:
        """The Gain when ``change`` befalls the operators that it touches; without a change, when only those remain."""
        if change is not None and change.precision not in self._rates.flop_per_s:
            return Gain(technique, 1.0, f"{what} could not be measured on this machine: no runtime here computes in {change.precision}")
        at_best = max(self.speed_up(touches, change, cached=cached) for cached in (False, True))
        size = f"batch {self._batch}"
        if at_best < NOTHING:
            return Gain(technique, 1.0, f"{what} will not help here at {size}: {otherwise}")
        return Gain(technique, at_best, f"{what} can bring at most {at_best:.1f}x at {size} here")

    def speed_up(self, touches: Callable[[OperatorCost], bool], change: _Change | None, *, cached: bool) -> float:
        """Time before over time after, with all data from memory or all from cache."""
        before = after = self._rates.overhead_s
        for operator in self._operators:
            old_s = self._time_s(operator, _Change(), cached)
            before += old_s
            if change is None:
                after += old_s if touches(operator) else 0.0
            else:
                after += self._time_s(operator, change, cached) if touches(operator) else old_s
        return before / after if after > 0 else 1.0

    def _time_s(self, operator: OperatorCost, change: _Change, cached: bool) -> float:
        compute_s = self._batch * change.work * operator.flop / self._rates.flop_per_s[change.precision]
        moved = change.weight_bytes * operator.weight_bytes + self._batch * change.activation_bytes * operator.activation_bytes
        return compute_s if cached else max(compute_s, moved / self._rates.bytes_per_s)


def _needs(wanted: frozenset[str], present: Collection[str], missing: str, gain: Gain) -> Gain:
    return gain if wanted & set(present) else Gain(gain.technique, 1.0, missing)


def _weight_only(cost: Cost, ceilings: Ceilings, best: _Ceiling, batch: int) -> Gain:
    """Weights stored in int8, arithmetic in float32: it shortens the moving of weights and nothing else."""
    line = roofline(cost, ceilings, batch=batch)
    if cost.weight_bytes < CACHE_BYTES:
        return Gain("weight_only", 1.0, "weight-only quantization will not help speed: the weights are small enough to stay in cache")
    if line.compute_bound:
        above = f"batch {batch} is already compute-bound (from {line.crossover:.3g} on)"
        return Gain("weight_only", 1.0, f"weight-only quantization will not help speed: {above}")
    at_best = best.speed_up(_weighty, _Change(weight_bytes=0.25), cached=False)
    until = "at any batch" if math.isinf(line.crossover) else f"up to batch {line.crossover:.0f}"
    return Gain(
        "weight_only",
        at_best,
        f"weight-only quantization can bring at most {at_best:.1f}x at batch {batch}, and something {until}, while weights are what is moved",
    )


def explain(cost: Cost, ceilings: Ceilings, instruction_sets: Collection[str]) -> tuple[str, ...]:
    """What the roofline says, in sentences: the bound, where it lies, what can pay here, and what cannot and why."""
    line = roofline(cost, ceilings)
    side = "compute" if line.compute_bound else "memory"
    said = [
        f"one request takes at least {line.bound_s * 1e3:.3g} ms on one thread in float32: {side}-bound "
        f"({line.compute_s * 1e3:.3g} ms of arithmetic, {line.memory_s * 1e3:.3g} ms of memory traffic if nothing stays in cache)",
        f"on all cores, at least {roofline(cost, ceilings, all_cores=True).bound_s * 1e3:.3g} ms",
        *_overhead(line),
        _batching(line),
        *_where(line),
        *(gain.sentence for gain in gains(cost, ceilings, instruction_sets)),
    ]
    if cost.uncounted:
        said.append(f"not counted: {', '.join(cost.uncounted)}; the true work is larger")
    return tuple(dict.fromkeys(said))


def _overhead(line: Roofline) -> list[str]:
    """A word when the call itself is most of the time."""
    overhead_s = line.bound_s - max(line.compute_s, line.memory_s)
    if overhead_s <= line.bound_s / 2:
        return []
    return [f"{overhead_s / line.bound_s:.0%} of that is the call itself: a batch shares it, and no compression shortens it"]


def _batching(line: Roofline) -> str:
    if math.isinf(line.crossover):
        return "memory-bound at every batch size: batching shares the weights, and the activations set the limit"
    if line.crossover > 1:
        return f"compute-bound from batch {line.crossover:.0f} on: up to there extra requests in a batch are nearly free"
    return "compute-bound from batch 1 on: batching saves call overhead and little else"


def _where(line: Roofline) -> list[str]:
    """The operators that half of the time lies in, when there are enough of them to ask."""
    total_s = math.fsum(operator.bound_s for operator in line.operators)
    if len(line.operators) < 4 or total_s <= 0:
        return []
    ordered = sorted(line.operators, key=lambda operator: -operator.bound_s)
    share, count = 0.0, 0
    while share < 0.5:
        share += ordered[count].bound_s / total_s
        count += 1
    memory_s = math.fsum(operator.bound_s for operator in line.operators if not operator.compute_bound)
    first = ", ".join(f"{operator.op_type} {operator.node!r}".replace(" ''", "") for operator in ordered[: min(3, count)])
    return [
        f"half of the operators' time lies in {count} of {len(line.operators)} (first {first}); "
        f"{memory_s / total_s:.0%} of it lies in operators that memory bounds, if nothing is fused or stays in cache"
    ]

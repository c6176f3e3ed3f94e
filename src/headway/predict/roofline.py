"""The roofline of a model on this machine: what bounds it, from which batch on, and what each technique can at best bring."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from headway.predict.queueing import crossover_batch, service_bound_s
from headway.records import Ceilings, Cost

INT8_SETS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}
BF16_SETS = {"avx512_bf16", "amx_bf16", "arm_bf16"}
CACHE_BYTES = 32_000_000
"""Weights below this may stay in cache, where the memory bound does not hold [B]; a typical last-level share."""


@dataclass(frozen=True, slots=True)
class Roofline:
    """Bounds of one model on one thread, in float32.

    Attributes:
        bound_s: lower bound of the service time at batch 1 [s].
        compute_s, memory_s: its two sides [s].
        crossover: batch from which it is compute-bound; infinite if never.
        int8_gain, bfloat16_gain: largest speed-up at batch 1 if all work ran in that type; 1 where the machine gains nothing.
    """

    bound_s: float
    compute_s: float
    memory_s: float
    crossover: float
    int8_gain: float
    bfloat16_gain: float

    @property
    def compute_bound(self) -> bool:
        """Whether arithmetic, not memory, bounds batch 1."""
        return self.compute_s >= self.memory_s


def roofline(cost: Cost, ceilings: Ceilings) -> Roofline:
    """The Roofline of a model from its cost and the machine's attainable rates for one thread."""
    flops, bandwidth = ceilings.flop_per_s_one_thread, ceilings.bytes_per_s_one_thread

    def bound(precision: str, bytes_factor: float) -> float:
        return service_bound_s(
            1, flop=cost.flop, weight_bytes=bytes_factor * cost.weight_bytes, activation_bytes=bytes_factor * cost.activation_bytes,
            flop_per_s=flops.get(precision, flops["float32"]), bytes_per_s=bandwidth, overhead_s=ceilings.overhead_s,
        )  # fmt: skip

    base = bound("float32", 1.0)
    return Roofline(
        bound_s=base, compute_s=cost.flop / flops["float32"], memory_s=(cost.weight_bytes + cost.activation_bytes) / bandwidth,
        crossover=crossover_batch(
            flop=cost.flop, weight_bytes=cost.weight_bytes, activation_bytes=cost.activation_bytes, flop_per_s=flops["float32"], bytes_per_s=bandwidth
        ),
        int8_gain=max(1.0, base / bound("int8", 0.25)), bfloat16_gain=max(1.0, base / bound("bfloat16", 0.5)) if "bfloat16" in flops else 1.0,
    )  # fmt: skip


def explain(cost: Cost, ceilings: Ceilings, instruction_sets: Collection[str]) -> tuple[str, ...]:
    """What the roofline says, in sentences: the bound, what can pay here, and what cannot and why."""
    line = roofline(cost, ceilings)
    side = "compute" if line.compute_bound else "memory"
    said = [
        f"one request takes at least {line.bound_s * 1e3:.3g} ms on one thread in float32: {side}-bound "
        f"({line.compute_s * 1e3:.3g} ms of arithmetic, {line.memory_s * 1e3:.3g} ms of memory traffic if nothing stays in cache)"
    ]
    if line.crossover == float("inf"):
        said.append("memory-bound at every batch size: batching shares the weights, and the activations set the limit")
    elif line.crossover > 1:
        said.append(f"compute-bound from batch {line.crossover:.0f} on: up to there extra requests in a batch are nearly free")
    else:
        said.append("compute-bound from batch 1 on: batching saves call overhead and little else")
    if INT8_SETS & set(instruction_sets):
        said.append(f"int8 arithmetic can bring at most {line.int8_gain:.1f}x at batch 1 here")
    else:
        said.append("int8 arithmetic will not help here: this processor has no 8-bit dot product (VNNI, AMX, or Arm's dotprod)")
    if BF16_SETS & set(instruction_sets):
        said.append(f"bfloat16 can bring at most {line.bfloat16_gain:.1f}x at batch 1 here")
    else:
        said.append("bfloat16 will not help here: this processor has no bfloat16 arithmetic")
    if cost.weight_bytes < CACHE_BYTES:
        said.append("weight-only quantization will not help speed: the weights are small enough to stay in cache")
    elif line.compute_bound:
        said.append("weight-only quantization will not help speed: one request is already compute-bound")
    else:
        said.append(f"weight-only quantization can help up to batch {min(line.crossover, 1e6):.0f}, while weights are what is moved")
    said.append("unstructured zeros will not help speed: dense kernels multiply them like any other number")
    if cost.uncounted:
        said.append(f"not counted: {', '.join(cost.uncounted)}; the true work is larger")
    return tuple(said)

"""Which narrow arithmetic a CPU is good at, read from its instruction sets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_ARM = frozenset({"asimd", "neon", "asimddp", "asimdhp", "fphp", "i8mm", "sve", "aarch64"})
_DOT_PRODUCT = frozenset({"avx512vnni", "avxvnni", "amxint8", "avxvnniint8"})
_BFLOAT16 = frozenset({"avx512bf16", "amxbf16", "bf16"})
_FLOAT16 = frozenset({"avx512fp16", "amxfp16", "asimdhp", "fphp"})


@dataclass(frozen=True)
class IntegerArithmetic:
    """The 8-bit types that run fast and do not saturate.

    Attributes:
        activation: ``uint8`` or ``int8``.
        reduce_range: weights in 7 bits: without VNNI the x86 multiply-add saturates at 16 bits (onnxruntime#5849, #14642).
        reason: one sentence.
    """

    activation: str
    reduce_range: bool
    reason: str


def _plain(instruction_sets: Iterable[str]) -> frozenset[str]:
    return frozenset(name.lower().replace("_", "").replace(".", "") for name in instruction_sets)


def integer_arithmetic(instruction_sets: Iterable[str]) -> IntegerArithmetic:
    """The 8-bit types for a CPU; weights are always int8. An unknown CPU is taken for x86 without VNNI, which is safe everywhere.

    ONNX Runtime fuses unsigned activations with signed weights on x86; with signed activations most convolutions fall back to
    float there (6 of 14 fused instead of 14 of 14 in our trial), and on ARM the signed kernels are the fast ones.
    """
    plain = _plain(instruction_sets)
    if plain & _ARM:
        return IntegerArithmetic("int8", False, "ARM: signed activations and weights")
    if plain & _DOT_PRODUCT:
        return IntegerArithmetic("uint8", False, "x86 with VNNI or AMX: unsigned activations, signed 8-bit weights")
    return IntegerArithmetic("uint8", True, "x86 without VNNI: unsigned activations, weights in 7 bits so that sums do not saturate")


def narrow_floats(instruction_sets: Iterable[str]) -> tuple[str, ...]:
    """The 16-bit float types this CPU computes in, mild to harsh: ``float16`` (11 bits of fraction) before ``bfloat16`` (8 bits)."""
    plain = _plain(instruction_sets)
    found = ["float16"] if plain & _FLOAT16 else []
    return tuple(found + (["bfloat16"] if plain & _BFLOAT16 else []))

"""Whether a census leaves any hope that a variant is faster: the cheapest rejection there is."""

from __future__ import annotations

from headway.records import Census

LEAST_NARROW_SHARE = 0.3
_NARROW = ("integer", "bfloat16", "float16")


def narrow_weights(count: int) -> str:
    """What a census says of products with narrow weights and float arithmetic; empty when there are none. They are no fallback."""
    return f"{count} products have narrow weights and compute in float: that saves memory traffic, not arithmetic" if count else ""


def hopeless(census: Census) -> str | None:
    """A reason to reject a quantized variant before it is timed; none when it is worth timing.

    A graph that carries quantization is hopeless when less than 30% of its work runs in narrow kernels (what is left over is float
    work plus conversions), or when convolutions run as ``ConvInteger``, which ONNX Runtime's CPU does many times slower than float.
    """
    slow = census.kernels.get("ConvInteger", 0)
    if slow:
        return f"{slow} convolutions run as ConvInteger on {census.runtime}, which is many times slower than float: quantize convolutions statically"
    quantized = any("Quantize" in name or "Integer" in name or name.startswith("QLinear") for name in {**census.kernels, **census.inserted})
    quantized = quantized or bool(census.fallbacks)
    narrow = sum(census.shares.get(kind, 0.0) for kind in _NARROW)
    if quantized and narrow < LEAST_NARROW_SHARE:
        why = f": {census.fallbacks[0]}" if census.fallbacks else ""
        return f"only {narrow:.0%} of the work runs in narrow kernels on {census.runtime}{why}"
    return None

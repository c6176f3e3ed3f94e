"""How far a session's answers lie from those recorded in a golden set. Arrays and a session; no files, no sockets.

The difference of a floating-point output is the relative L2 distance ``|a - b| / |b|`` over all its elements: rounding spreads
over many elements and stays small, while a kernel that saturates (8-bit products on a processor without VNNI summed in 16 bits) or
another graph moves it by tens of percent. The same graph rounds differently on another processor: float32 by the order of sums
(about 1e-6), bfloat16 and float16 by their short mantissas (2^-8 and 2^-11 a step), int8 by single quantization steps where a
float scale rounds the other way. ``TOLERANCE`` allows that much and no more. Integer and boolean outputs (class ids) are
compared element by element; a near tie may turn, so a quarter of them may differ.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from headway.records import Bundle
from headway.runtime import Session

TOLERANCE = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 5e-2, "int8": 5e-2}
"""Largest relative difference that rounding explains, by the narrowest arithmetic of a variant."""

INTEGER_TOLERANCE = 0.25
"""Largest share of integer or boolean outputs that may differ."""


def tolerance(bundle: Bundle, index: int) -> float:
    """The bound for one variant: the manifest's, or its precision's where that is narrower."""
    return min(bundle.tolerance, TOLERANCE.get(bundle.variants[index].variant.precision, bundle.tolerance))


def difference(got: np.ndarray, expected: np.ndarray) -> float:
    """Relative L2 distance of two arrays; share of unequal elements for integers; infinite when they cannot be compared.

    NaN and infinity must stand at the same places in both.
    """
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return float("inf")
    if expected.size == 0:
        return 0.0
    if expected.dtype.kind != "f":
        return float(np.mean(got != expected))
    finite = np.isfinite(expected)
    if not np.array_equal(got[~finite], expected[~finite], equal_nan=True) or not np.isfinite(got[finite]).all():
        return float("inf")
    a, b = got[finite].astype(np.float64), expected[finite].astype(np.float64)
    floor = 1e-6 * np.sqrt(max(1, b.size))
    return float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), floor))


def replay(session: Session, inputs: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], allowed: float) -> str | None:
    """None when the session's answers are those expected; otherwise one sentence with the output that differs and by how much."""
    got = session.run(inputs)
    for name, reference in expected.items():
        if name not in got:
            return f"output {name!r} is missing"
        distance = difference(np.asarray(got[name]), reference)
        bound = allowed if reference.dtype.kind == "f" else INTEGER_TOLERANCE
        if not distance <= bound:
            return f"output {name!r} differs from the golden set by {distance:.3g}, more than {bound:g}"
    return None

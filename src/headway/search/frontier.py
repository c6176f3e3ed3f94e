"""The candidates that no other beats in latency, rate and quality at once."""

from __future__ import annotations

from collections.abc import Sequence

from headway.records import Frontier, FrontierPoint
from headway.search.evidence import Evidence


def frontier(evidence: Sequence[Evidence]) -> Frontier:
    """The non-dominated candidates, highest rate first; candidates without load or quality figures have no place on it."""
    points = [point for e in evidence if (point := _point(e)) is not None]
    kept = [point for point in points if not any(_dominates(other, point) for other in points)]
    return Frontier(points=tuple(sorted(kept, key=lambda point: -point.rate_per_s)))


def _point(e: Evidence) -> FrontierPoint | None:
    quality = e.confirmed or e.quality
    if e.rate_per_s is None or e.latency_s is None or quality is None:
        return None
    return FrontierPoint(
        candidate=e.candidate, latency_s=e.latency_s, rate_per_s=e.rate_per_s, drop=quality.drop.value, cores=e.cores,
        memory_bytes=e.memory_bytes, measured=True,
    )  # fmt: skip


def _dominates(a: FrontierPoint, b: FrontierPoint) -> bool:
    """Whether ``a`` is nowhere worse than ``b`` and somewhere better."""
    no_worse = a.latency_s <= b.latency_s and a.rate_per_s >= b.rate_per_s and a.drop <= b.drop
    return no_worse and (a.latency_s < b.latency_s or a.rate_per_s > b.rate_per_s or a.drop < b.drop)

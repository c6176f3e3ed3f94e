"""Measured time of single layers by width, rank and precision: made by ``measure``, spent by ``compress``."""

from __future__ import annotations

from headway.records.base import Record


class LayerTime(Record, frozen=True, kw_only=True):
    """One layer at one size.

    Attributes:
        layer: name of the node in the cleaned graph.
        inside: input channels (features) it was given.
        outside: output channels (features) it made.
        rank: inner rank when it was factored; 0 when whole.
        precision: ``float32``, ``int8``...
        time_s: median time of one run at ``LatencyTable.batch`` [s].
    """

    layer: str
    inside: int
    outside: int
    rank: int = 0
    precision: str = "float32"
    time_s: float


class LatencyTable(Record, frozen=True, kw_only=True):
    """Times of the layers of one model on one runtime.

    Attributes:
        digest: digest of the model whose layers these are.
        overhead_s: time of a graph that does nothing, already taken off every entry [s].
    """

    digest: str
    runtime: str
    threads: int
    batch: int
    overhead_s: float
    times: tuple[LayerTime, ...]

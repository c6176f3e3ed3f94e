"""What a server did, as plain tuples: one a batch, one a refusal. The hot path appends them to lists; others count them later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Batch(NamedTuple):
    """One batch that was run; moments are on the clock of ``time.perf_counter`` [s].

    Attributes:
        variant: the variant of the bundle that computed it.
        rows: of all its requests together.
        arrived_s: when the last byte of each request was read.
        started_s, finished_s: when an instance took it, and when its answers were encoded.
        delivered_s: when its answers were handed to the sockets.
        failed: how many of its requests the model could not run.
    """

    model: str
    version: str
    variant: str
    rows: int
    arrived_s: tuple[float, ...]
    started_s: float
    finished_s: float
    delivered_s: float
    failed: int


class Refused(NamedTuple):
    """One request that got no inference; ``model`` and ``version`` are empty where it never came so far."""

    model: str
    version: str
    reason: str
    status: int
    at_s: float


class Folds(Protocol):
    """Whoever counts what was seen: metrics, the live page, traces."""

    def fold(self, batches: Sequence[Batch], refused: Sequence[Refused]) -> None:
        """Count these; called from one thread at a time, not the event loop's."""

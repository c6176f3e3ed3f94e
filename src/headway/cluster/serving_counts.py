"""What a replica did, as Ray's own metrics: every node exports them with the tags deployment, replica and application (extra ``ray``).

Names and bounds are those of Headway's own server. Ray writes ``ray_`` before each name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ray.serve import metrics

from headway.serve.metrics import ROWS, SECONDS
from headway.serve.seen import Batch, Refused

VERSION = ("model", "version")
VARIANT = (*VERSION, "variant")


class Counts:
    """Folds batches and refusals into Ray's metrics; on the folding thread."""

    def __init__(self) -> None:
        bounds = list(SECONDS)
        self._requests = metrics.Counter("headway_requests", "Inference requests answered, by status.", (*VARIANT, "status"))
        self._refusals = metrics.Counter("headway_refusals", "Requests that got no inference, by reason.", (*VERSION, "reason"))
        self._total = metrics.Histogram(
            "headway_request_seconds", "From the last byte of a request in the replica to its answer.", bounds, tag_keys=VERSION
        )
        self._queue = metrics.Histogram("headway_queue_seconds", "Time of a request in the queue.", bounds, tag_keys=VERSION)
        self._service = metrics.Histogram(
            "headway_service_seconds", "Time of one batch: joining, running, encoding.", bounds, tag_keys=VARIANT
        )
        self._rows = metrics.Histogram("headway_batch_rows", "Rows of a batch.", list(ROWS), tag_keys=VARIANT)

    def fold(self, batches: Sequence[Batch], refused: Sequence[Refused]) -> None:
        """Count these."""
        for batch in batches:
            version = {"model": batch.model, "version": batch.version}
            variant = version | {"variant": batch.variant}
            self._service.observe(batch.finished_s - batch.started_s, variant)
            self._rows.observe(batch.rows, variant)
            for arrived_s in batch.arrived_s:
                self._total.observe(batch.delivered_s - arrived_s, version)
                self._queue.observe(max(0.0, batch.started_s - arrived_s), version)
            for status, count in (("200", len(batch.arrived_s) - batch.failed), ("500", batch.failed)):
                if count:
                    self._requests.inc(count, variant | {"status": status})
        for (model, name, reason), count in Counter((one.model, one.version, one.reason) for one in refused).items():
            self._refusals.inc(count, {"model": model, "version": name, "reason": reason})

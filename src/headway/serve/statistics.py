"""Triton's statistics extension, counted from batches: ``docs/protocol/extension_statistics.md`` of triton-inference-server/server.

What is counted where. The batch is timed as one: joining its inputs, running the model and encoding its answers together, all of it
``compute_infer``; ``compute_input`` and ``compute_output`` have the same counts and no time. As in Triton, each request of a batch
counts the whole batch's time as its own. ``queue`` runs from a request's last byte to the start of its batch, ``success`` and ``fail``
to its answer being written. A refused request counts as failed, with no time. Nothing is cached.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from headway.serve.seen import Batch, Refused

NS = 1_000_000_000


class _Duration:
    """How often something happened, and how long it took in all [s]."""

    def __init__(self) -> None:
        self.count, self.total_s = 0, 0.0

    def add(self, count: int, total_s: float) -> None:
        self.count += count
        self.total_s += total_s

    def told(self, *, timed: bool = True) -> dict[str, int]:
        return {"count": self.count, "ns": round(self.total_s * NS) if timed else 0}


class _Version:
    """One version's numbers."""

    def __init__(self) -> None:
        self.last_s = 0.0
        self.inferences = self.executions = 0
        self.success, self.fail, self.queue, self.compute = _Duration(), _Duration(), _Duration(), _Duration()
        self.batches: dict[int, _Duration] = {}

    def add(self, batch: Batch) -> None:
        requests, failed = len(batch.arrived_s), batch.failed
        arrived_s, service_s = sum(batch.arrived_s), batch.finished_s - batch.started_s
        served, each_s = requests - failed, batch.delivered_s - arrived_s / requests
        self.last_s = max(self.last_s, *batch.arrived_s)
        self.inferences += batch.rows * served // requests
        self.executions += 1
        self.success.add(served, each_s * served)
        self.fail.add(failed, each_s * failed)
        self.queue.add(requests, batch.started_s * requests - arrived_s)
        self.compute.add(requests, service_s * requests)
        self.batches.setdefault(batch.rows, _Duration()).add(1, service_s)

    def told(self, name: str, version: str, epoch_s: float) -> dict[str, Any]:
        untimed = self.compute.told(timed=False)
        return {
            "name": name,
            "version": version,
            "last_inference": round((epoch_s + self.last_s) * 1e3) if self.executions else 0,
            "inference_count": self.inferences,
            "execution_count": self.executions,
            "inference_stats": {
                "success": self.success.told(), "fail": self.fail.told(), "queue": self.queue.told(),
                "compute_input": untimed, "compute_infer": self.compute.told(), "compute_output": untimed,
                "cache_hit": _Duration().told(), "cache_miss": _Duration().told(),
            },
            "batch_stats": [
                {
                    "batch_size": rows, "compute_input": duration.told(timed=False), "compute_infer": duration.told(),
                    "compute_output": duration.told(timed=False),
                }
                for rows, duration in sorted(self.batches.items())
            ],
        }  # fmt: skip


class Statistics:
    """Numbers of every version that has answered, for clients that ask in Triton's way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._versions: dict[tuple[str, str], _Version] = {}

    def fold(self, batches: Sequence[Batch], refused: Sequence[Refused]) -> None:
        """Count these. Of a batch in which some requests failed, rows and times are shared out evenly between its requests."""
        with self._lock:
            for batch in batches:
                self._of(batch.model, batch.version).add(batch)
            for refusal in refused:
                if refusal.version and refusal.status != 404:
                    self._of(refusal.model, refusal.version).fail.add(1, 0.0)

    def _of(self, model: str, version: str) -> _Version:
        return self._versions.setdefault((model, version), _Version())

    def of(self, model: str, version: str) -> dict[str, Any]:
        """One element of ``model_stats``: all zero for a version that has answered nothing. Fold first for the newest numbers."""
        epoch_s = time.time() - time.perf_counter()
        with self._lock:
            return self._versions.get((model, version), _Version()).told(model, version, epoch_s)

"""Single layers timed at several sizes on the runtime that will serve, side by side, within a given time."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from headway.records import HeadwayError, LatencyTable, LayerTime, MeasurementError, Plan
from headway.runtime import Session, open_session

WARM_RUNS, LEAST_RUNS, MOST_RUNS = 3, 5, 200


class Query(Protocol):
    """One layer at one size; an empty name is the graph that does nothing. Equal keys cost the same."""

    @property
    def layer(self) -> str:
        """Name of the node."""

    @property
    def inside(self) -> int:
        """Input channels."""

    @property
    def outside(self) -> int:
        """Output channels."""

    @property
    def rank(self) -> int:
        """Inner rank; 0 when whole."""

    @property
    def precision(self) -> str:
        """``float32``..."""

    @property
    def key(self) -> Hashable:
        """What the cost depends on."""

    def build(self) -> bytes:
        """The ONNX model."""

    def feeds(self, batch: int) -> Mapping[str, np.ndarray]:
        """Its input."""


def latency_table(
    queries: Sequence[Query],
    plan: Plan,
    *,
    digest: str,
    batch: int = 1,
    seconds: float = 30.0,
    progress: Callable[[float], None] = lambda share: None,
    clock: Callable[[], float] = time.perf_counter,
) -> LatencyTable:
    """Median times of the queries, the empty graph's taken off.

    The sizes of one layer are timed in turns, so that a slow moment meets all of them. A layer that the runtime refuses is left out.

    Args:
        digest: of the model whose layers these are.
        batch: samples in one run.
        seconds: time for all timed runs together [s]; opening sessions and at least five runs each come on top.
        progress: is told the share that is done, 0 to 1.

    Raises:
        MeasurementError: the empty graph is not among the queries, or does not run.
    """
    distinct: dict[Hashable, Query] = {query.key: query for query in reversed(queries)}
    empty = next((query for query in queries if not query.layer), None)
    if empty is None:
        raise MeasurementError("the queries must hold the empty graph (layer ''), got none; take them from compress.layer_queries")
    layers: dict[str, list[Query]] = {}
    for query in queries:
        if query.layer and distinct[query.key] is query:
            layers.setdefault(query.layer, []).append(query)
    times: dict[Hashable, float] = {}
    overheads: list[float] = []
    for index, chunk in enumerate(layers.values()):
        found = _timed([empty, *chunk], plan, batch, seconds / len(layers), clock)
        overheads.append(found.pop(empty.key))
        times.update(found)
        progress((index + 1) / len(layers))
    overhead_s = statistics.median(overheads) if overheads else 0.0
    entries = tuple(
        LayerTime(
            layer=query.layer, inside=query.inside, outside=query.outside, rank=query.rank, precision=query.precision,
            time_s=max(times[query.key] - overhead_s, 0.0),
        )
        for query in queries
        if query.layer and query.key in times
    )  # fmt: skip
    return LatencyTable(digest=digest, runtime=plan.runtime, threads=plan.threads, batch=batch, overhead_s=overhead_s, times=entries)


def _timed(queries: Sequence[Query], plan: Plan, batch: int, seconds: float, clock: Callable[[], float]) -> dict[Hashable, float]:
    """Median time by key [s]; the first query must run, the others may be refused."""
    opened: list[tuple[Query, Session, Mapping[str, np.ndarray]]] = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            for number, query in enumerate(queries):
                path = Path(folder) / f"{number}.onnx"
                path.write_bytes(query.build())
                try:
                    session = open_session(plan, path)
                    opened.append((query, session, query.feeds(batch)))
                    for _ in range(WARM_RUNS):
                        session.run(opened[-1][2])
                except HeadwayError as error:
                    if not number:
                        raise MeasurementError(f"the empty graph must run on {plan.runtime}, got: {error}") from error
                    opened = [item for item in opened if item[0] is not query]
            return _turns(opened, seconds, clock)
    finally:
        for _, session, _ in opened:
            session.close()


def _turns(
    opened: Sequence[tuple[Query, Session, Mapping[str, np.ndarray]]], seconds: float, clock: Callable[[], float]
) -> dict[Hashable, float]:
    runs: dict[Hashable, list[float]] = {query.key: [] for query, _, _ in opened}
    began = clock()
    for turn in range(MOST_RUNS):
        if turn >= LEAST_RUNS and clock() - began > seconds:
            break
        for query, session, feeds in opened:
            at = clock()
            session.run(feeds)
            runs[query.key].append(clock() - at)
    return {key: statistics.median(values) for key, values in runs.items()}

"""``tune`` by one process, and on a Ray cluster of two nodes of which one is killed while it works; then both bundles side by side over HTTP."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from budgets import Line, side_by_side, tuned
from ray.cluster_utils import Cluster
from space import Say, cases

from headway.api.progress import Silent
from headway.records import Journal, Variant

TECHNIQUES = ("fold", "precision", "quantize_dynamic", "quantize_static")
"""Without a budget nothing is left out for lack of time, so that both runs make the same variants; few techniques, so that they end."""
MEMORY_BYTES = 200_000_000


def on_cluster(model: str, work: Path, rounds: int, say: Say) -> Iterator[Line]:
    """A line for the run by one process, one for that on the cluster, then one for the comparison."""
    bench = cases.prepare(model, say)
    folders = {word: work / f"cluster-{word}" for word in ("ray", "local")}
    lines: dict[str, Line] = {}
    with _two_nodes() as (running, second):
        killer = Killer(running, second, say)
        more = {"on": f"ray:{running.address}", "techniques": TECHNIQUES}
        lines["ray"] = {**tuned(bench, model, "", folders["ray"], say, killer, **more), "killed_s": killer.killed_s}
    lines["local"] = tuned(bench, model, "", folders["local"], say, None, techniques=TECHNIQUES)
    for word, line in lines.items():
        yield {"stage": "cluster", "on": word, **line, **_recorded(folders[word])}
    yield {
        "stage": "cluster-pair", "model": model, "same_choice": lines["ray"]["chosen"] == lines["local"]["chosen"],
        **_shared(folders["ray"], folders["local"]),
        **side_by_side(folders, bench.parts.selection.inputs, rounds, say),
    }  # fmt: skip


class Killer(Silent):
    """Progress of a run; kills a node when the other one has done a job and this one is still at its own."""

    def __init__(self, running: Cluster, node: Any, say: Say) -> None:
        self._running, self._node, self._say = running, node, say
        self._began_s, self.killed_s = time.monotonic(), 0.0

    def step(self, text: str) -> None:
        """Look at what was done where."""
        if not self.killed_s and f":{self._running.head_node.node_manager_port}: " in text and "(1 at work on 2 nodes" in text:
            self.killed_s = round(time.monotonic() - self._began_s, 1)
            self._running.remove_node(self._node, allow_graceful=False)
            self._say(f"the second node was killed after {self.killed_s} s, when the other one had done {text}")

    def note(self, text: str) -> None:
        """Say it."""
        self._say(text)


@contextlib.contextmanager
def _two_nodes() -> Iterator[tuple[Cluster, Any]]:
    """A cluster, and its second node."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": MEMORY_BYTES, "include_dashboard": False})
    try:
        yield running, running.add_node(num_cpus=1, object_store_memory=MEMORY_BYTES)
    finally:
        running.shutdown()


def _recorded(folder: Path) -> Line:
    """How many records of each kind a run has."""
    return {"records": dict(sorted(Counter(type(record).__name__ for record in Journal(folder)).items()))}


def _shared(one: Path, other: Path) -> Line:
    """Variants that both runs made, and how many of these have the same bytes. The study of settings follows measured rates, so it asks for others."""
    ours, theirs = ({variant.name: variant.digest for variant in Journal(folder).of(Variant)} for folder in (one, other))
    both = set(ours) & set(theirs)
    return {"variants": len(ours), "in_both": len(both), "same_bytes": sum(ours[name] == theirs[name] for name in both)}

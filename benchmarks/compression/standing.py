"""Where a peer's row stands against Headway's: ahead, level or behind, at no worse quality, written down with the row that proves it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from cases import BATCHES, WORK, Bench
from journal import FP32, Journal, Key, Line
from score import RUNTIMES, drop_between

from headway.records import HeadwayError

HEADWAY = "headway"
LEVEL = 0.03
"""Ratios within 3% count as level: two groups of one measurement differ by up to that."""
WORSE = 0.005
"""A Headway row is no worse than a peer's when it loses at most half a point against it on the same rows and that loss is not significant."""


def stand(bench: Bench, journal: Journal) -> None:
    """One line for every peer's row, runtime and axis (``faster``, ``smaller``)."""
    rows = {key: line for key, line in journal.rows(bench.name) if "file" in line and (key.tool, key.row) != FP32}
    for peer in [key for key in rows if key.tool != HEADWAY]:
        for runtime in RUNTIMES:
            if "drop" not in (journal.find("scored", peer, runtime) or {}):
                continue
            equals = [key for key in rows if key.tool == HEADWAY and no_worse(bench, journal, rows, key, peer, runtime)]
            batch = BATCHES[bench.name][-1]
            speeds = {key: timed["faster"]["value"] for key in [peer, *equals] if (timed := journal.find("timed", key, runtime, batch))}
            sizes = {key: 1 / rows[key]["bytes"] for key in [peer, *equals]}
            for axis, values in (("faster", speeds), ("smaller", sizes)):
                if peer in values:
                    journal.add({"stage": "stands", **asdict(peer), "runtime": f"{runtime} {axis}", **verdict(values, peer)})


def no_worse(bench: Bench, journal: Journal, rows: dict[Key, Line], mine: Key, peer: Key, runtime: str) -> bool:
    """Whether our row keeps the quality of the peer's, on the same rows through the same runtime."""
    if "drop" not in (journal.find("scored", mine, runtime) or {}):
        return False
    try:
        drop = drop_between(bench, WORK / rows[peer]["file"], WORK / rows[mine]["file"], runtime)
    except HeadwayError:
        return False
    return drop.value <= WORSE and drop.low <= 0


def verdict(values: dict[Key, float], peer: Key) -> dict[str, Any]:
    """The word, the best of our rows, and how many times better it is."""
    ours = {key: value for key, value in values.items() if key.tool == HEADWAY}
    if not ours:
        return {"word": "behind", "by": "", "times": None}
    best = max(ours, key=lambda key: ours[key])
    times = ours[best] / values[peer]
    word = "ahead" if times > 1 + LEVEL else "level" if times >= 1 - LEVEL else "behind"
    return {"word": word, "by": best.row, "times": round(times, 3)}

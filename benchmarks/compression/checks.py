"""The promises of the compression work, each looked up in the results: what was best, and whether it holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cases import BATCHES, TITLES
from journal import Journal, Key, Line

HEADWAY = "headway"
POINT = 0.01
LATENCY = Path(__file__).parent / "latency.jsonl"


@dataclass(frozen=True)
class Found:
    """A check's outcome, ready to print."""

    check: str
    wanted: str
    word: str
    best: str


@dataclass(frozen=True)
class Candidate:
    """One Headway row in one runtime with all that the checks ask about."""

    row: str
    runtime: str
    drop: dict[str, float]
    agreement: float
    faster: float
    smaller: float

    def __str__(self) -> str:
        drop = f"{100 * self.drop['value']:.1f} [{100 * self.drop['low']:.1f}, {100 * self.drop['high']:.1f}] points"
        speed = f"{self.faster:.1f}x faster" if self.faster else "not timed"
        return f"{self.row} ({self.runtime}): {speed}, {self.smaller:.1f}x smaller, drop {drop}, agreement {self.agreement:.1%}"


def candidates(journal: Journal, model: str, batch: int) -> list[Candidate]:
    """Headway's rows of a model that answer and were timed."""
    parent = journal.find("made", Key(model, "none", "float32"))
    found = []
    for key, made in journal.rows(model):
        for runtime in ("onnx_runtime", "openvino") if key.tool == HEADWAY and "bytes" in made else ():
            scored, timed = journal.find("scored", key, runtime), journal.find("timed", key, runtime, batch)
            if scored and parent and "drop" in scored:
                faster = timed["faster"]["value"] if timed and timed["digest"] == made["digest"] else 0.0
                smaller = parent["bytes"] / made["bytes"]
                found.append(Candidate(key.row, runtime, scored["drop"], scored["agreement"], faster, smaller))
    return found


def best(found: list[Candidate], keep: Callable[[Candidate], bool], rank: Callable[[Candidate], float]) -> Candidate | None:
    """The highest by ``rank`` of those to keep."""
    return max((one for one in found if keep(one)), key=rank, default=None)


def judged(
    check: str, wanted: str, journal: Journal, model: str, keep: Callable[[Candidate], bool], rank: Callable[[Candidate], float]
) -> list[Found]:
    """One check at every batch size that was timed: whether the best row reaches 1 on ``rank``."""
    lines = []
    for batch in BATCHES[model]:
        known = candidates(journal, model, batch)
        found = best(known, lambda one: keep(one) and proved(one) and rank(one) >= 1, rank) or best(known, keep, rank)
        timed = any(one.faster for one in known)
        word = "not measured" if found is None or (rank(found) < 1 and not timed) else "holds" if rank(found) >= 1 else "does not hold"
        if found is not None and word == "holds" and model != "vision" and not proved(found):
            word = "holds, the drop not proved"
        lines.append(Found(f"{check}, batch {batch}", wanted, word, str(found or "no row keeps the quality")))
    return lines


def within(one: Candidate) -> bool:
    """At most one point lost."""
    return one.drop["value"] <= POINT


def proved(one: Candidate) -> bool:
    """At most one point lost, by the whole interval."""
    return one.drop["high"] <= POINT


def small_and_fast(one: Candidate) -> float:
    """The worse of size over 3 and speed over 2."""
    return min(one.smaller / 3, one.faster / 2)


def checks(journal: Journal) -> list[Found]:
    """All checks that are looked up in the rows."""
    found = judged("digits CNN", "at least 5x faster at a drop of at most 1 point", journal, "digits", within, lambda one: one.faster / 5)
    for model, title in (("text", "MiniLM classifier"), ("speech", "speech LSTM")):
        wanted = "at least 3x smaller and 2x faster at a drop of at most 1 point"
        found += judged(title, wanted, journal, model, within, small_and_fast)
    found += judged(
        "NeuMF", "at least 3.5x smaller at a drop of at most 1 point", journal, "recommend", within, lambda one: one.smaller / 3.5
    )
    wanted = "at least 2x faster with the same answer on 95% of views of other photos"
    found += judged("EfficientNet-Lite0", wanted, journal, "vision", lambda one: one.agreement >= 0.95, lambda one: one.faster / 2)
    return [*found, *four_bits(journal), *latency_aware(Journal(LATENCY)), *standings(journal)]


def latency_aware(journal: Journal) -> list[Found]:
    """Pruning by measured time against pruning by multiply-adds at equal measured latency, on the report rows (``latency_check.py``)."""
    found = []
    for model in TITLES:
        line = journal.find("compared", Key(model, "latency against mac", "right report"))
        if line is not None:
            word = "holds" if line["low"] > 0 else "does not hold" if line["high"] < 0 else "not proved: level"
            gain, low, high = (100 * line[name] for name in ("mean", "low", "high"))
            best = f"{gain:.1f} [{low:.1f}, {high:.1f}] points more right, {line['rows']} rows, no training"
            found.append(Found(f"{TITLES[model]}, pruned by time", "better than by multiply-adds at equal latency", word, best))
    return found


def four_bits(journal: Journal) -> list[Found]:
    """Training on 4-bit weights: the share of the loss it closes, in the models that lose more than a point by rounding alone."""
    lines = [line for (stage, *_), line in journal.facts.items() if stage == "four_bits"]
    found = []
    for model in dict.fromkeys(line["model"] for line in lines):
        runs = [line for line in lines if line["model"] == model]
        lost = [line["rounded"]["drop"]["value"] for line in runs]
        left = [line["trained"]["drop"]["value"] for line in runs]
        closed = 1 - sum(left) / sum(lost) if sum(lost) > 0 else 0.0
        word = "nothing to win back" if max(lost) <= POINT else "holds" if closed >= 0.5 else "does not hold"
        drops = f"drop {mean_points(lost)} by rounding, {mean_points(left)} trained, points, means of {len(runs)} runs"
        found.append(Found(f"{TITLES[model]}, 4-bit weights, one scale a tensor", "training closes half of the loss", word, drops))
    return found


def mean_points(values: list[float]) -> str:
    """The mean in points."""
    return f"{100 * sum(values) / len(values):.1f}"


def standings(journal: Journal) -> list[Found]:
    """How many of the peers' rows Headway is ahead of, level with, or behind."""
    lines: list[Line] = [line for (stage, *_), line in journal.facts.items() if stage == "stands"]
    found = []
    for axis in sorted({line["runtime"] for line in lines}):
        words = [line["word"] for line in lines if line["runtime"] == axis]
        count = {word: words.count(word) for word in ("ahead", "level", "behind")}
        word = "holds" if not count["behind"] else "does not hold"
        counted = ", ".join(f"{word} {number}" for word, number in count.items())
        found.append(Found(f"against peers: {axis.replace('_', ' ')}", "ahead or level in every row", word, counted))
    return found

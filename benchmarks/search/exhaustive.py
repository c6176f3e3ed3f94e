"""Every plan of the space load-tested; the staged search on the same variants in the same hour; and the two winners once more, side by side.

The highest of sixty noisy figures is partly luck, so the exhaustive test's best is flattered by its own figure (the winner's curse). What is claimed comes
from the rematch alone: chosen and best in interleaved rounds, neither rated by what picked it.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from space import Say, Space, opened

from headway.api.curves import measure_curves, predictions
from headway.api.loads import load_shortlist
from headway.api.tune import SHORTLIST
from headway.load import OPEN_STEP, Bracket, find_capacity, trial_s
from headway.measure.in_process import InProcess, in_process
from headway.records import Candidate, Capacity, HeadwayError, LoadPoint, LoadRun, Noise, Prediction, Quality, Variant
from headway.search import shortlist
from headway.stats import ratio_interval

START_SHARE = 0.85
LONGEST_S, OPENING_S, AGAIN = 560.0, 1.0, 1.15
"""The exhaustive test takes no longer; seconds to open a plan; trials that are made once more, as a factor."""
REMATCH_TRIALS, REMATCH_STEP = 4, 1.15
Line = dict[str, Any]


def affordable(space: Space) -> int:
    """Trials a plan: as many as the size says, fewer when the whole test would take longer than ``LONGEST_S``, but two at least."""
    size = space.size
    seconds = sum(min(size.longest_s, trial_s(max(1.0, prediction.capacity_per_s), size.shortest_s)) for prediction in space.plans)
    return max(2, min(size.trials, int((LONGEST_S - OPENING_S * len(space.plans)) / (AGAIN * seconds))))


def every_plan(space: Space, trials: int, seed: int, say: Say) -> Iterator[Line]:
    """A line a plan, in random order: its bracket, and every trial."""
    order = list(space.plans)
    random.Random(seed).shuffle(order)
    for number, prediction in enumerate(order, start=1):
        candidate = prediction.candidate
        began_s = time.monotonic()
        try:
            with in_process(space.path(candidate.variant), candidate.plan, space.prepared.parts.selection.inputs) as held:
                found = searched(space, held, START_SHARE * prediction.capacity_per_s, trials, seed + number)
        except HeadwayError as error:
            yield {"stage": "plan", **named(candidate), "reason": str(error)[:300]}
            continue
        line = {"stage": "plan", **named(candidate), "predicted_per_s": prediction.capacity_per_s, **bracket(found)}
        say(f"{number} of {len(order)}: {line['capacity_per_s']:.4g}/s, predicted {prediction.capacity_per_s:.4g}/s: {candidate}")
        yield {**line, "wall_s": round(time.monotonic() - began_s, 2)}


def searched(space: Space, held: InProcess, start_per_s: float, trials: int, seed: int, step: float = OPEN_STEP) -> Bracket:
    """The capacity of a plan that is held ready."""
    count = 0

    def trial(rate_per_s: float) -> LoadPoint:
        nonlocal count
        count += 1
        return held.load(
            rate_per_s, min(trial_s(rate_per_s, space.size.shortest_s), space.size.longest_s), space.run.objective, 1000 * seed + count
        )

    return find_capacity(trial, start_per_s=start_per_s, trials=trials, percentile=space.run.objective.percentile, step=step)


def bracket(found: Bracket) -> Line:
    """What a search found, with what it cost."""
    points = [[round(p.offered_rate_per_s, 3), round(p.miss_fraction, 5), round(p.duration_s, 3)] for p in found.points]
    return {
        "low_per_s": found.low_per_s, "high_per_s": found.high_per_s, "open_above": found.open_above, "capacity_per_s": middle(found),
        "runs": len(points), "load_s": round(sum(p.duration_s for p in found.points), 2), "points": points,
    }  # fmt: skip


def middle(found: Bracket) -> float:
    """The geometric middle of a bracket; what held, where nothing failed; 0 when nothing held [1/s]."""
    return found.low_per_s if found.open_above else math.sqrt(found.low_per_s * found.high_per_s)


def staged(space: Space, folder: Path, say: Say) -> tuple[Line, Candidate]:
    """Curves, predictions, shortlist and load by successive halving as ``tune`` does them, in a run of its own that knows only the variants."""
    began_s = time.monotonic()
    with opened(folder, space.run.config) as run:
        for line in (*space.run.journal.of(Variant), *space.run.journal.of(Quality)):
            run.add(line)
        (folder / "variants").rmdir()
        (folder / "variants").symlink_to(space.run.folder.resolve() / "variants")
        curves = measure_curves(run, space.prepared, space.alive)
        curved_s = time.monotonic()
        expected = [p for p in predictions(run, space.prepared, curves) if p.candidate.plan.max_batch in space.size.batches]
        short = shortlist(
            expected, run.objective, size=SHORTLIST, uncompressed=space.plain, kinds={name: v.kind for name, v in space.variants.items()},
            noise=run.journal.of(Noise),
        )  # fmt: skip
        predicted_s = time.monotonic()
        say(f"staged: {len(curves)} curves in {curved_s - began_s:.0f} s; shortlist: {'; '.join(str(p.candidate) for p in short)}")
        search = load_shortlist(run, space.prepared, short, {name: space.path(name) for name in space.variants}, space.plain)
        loads = run.journal.of(LoadRun)
        line = {
            "stage": "staged", "chosen": named(search.ranking[0]), "runs": len(loads), "load_s": round(sum(r.point.duration_s for r in loads), 2),
            "curves": len(curves), "curves_s": round(curved_s - began_s, 2), "predict_s": round(predicted_s - curved_s, 2),
            "wall_s": round(time.monotonic() - began_s, 2), "predictions": len(expected),
            "shortlist": [{**named(p.candidate), "predicted_per_s": p.capacity_per_s, **_known(run.journal.of(Capacity), p)} for p in short],
        }  # fmt: skip
        say(f"staged: {line['runs']} load runs, {line['load_s']} s: {search.ranking[0]}")
        return line, search.ranking[0]


def _known(capacities: Sequence[Capacity], prediction: Prediction) -> Line:
    mine = next((c for c in capacities if c.candidate == prediction.candidate), None)
    return {} if mine is None else {"low_per_s": mine.low_per_s, "high_per_s": mine.high_per_s, "open_above": mine.open_above}


def rematch(space: Space, guesses: dict[Candidate, float], say: Say) -> Iterator[Line]:
    """Rounds over the rivals, a line a round and rival; the order turns from round to round."""
    rivals = list(guesses)
    with contextlib.ExitStack() as stack:
        inputs = space.prepared.parts.selection.inputs
        held = {rival: stack.enter_context(in_process(space.path(rival.variant), rival.plan, inputs)) for rival in rivals}
        for number in range(1, space.size.rounds + 1):
            start = (number - 1) % len(rivals)
            for rival in rivals[start:] + rivals[:start]:
                found = searched(space, held[rival], guesses[rival], REMATCH_TRIALS, 100_000 + number, REMATCH_STEP)
                say(f"rematch, round {number}: {middle(found):.4g}/s: {rival}")
                yield {"stage": "rematch", **named(rival), "round": number, **bracket(found)}
                guesses[rival] = middle(found) or guesses[rival]


def ratios(lines: Sequence[Line], chosen: Line, best: Line) -> Line:
    """The chosen plan's capacity over the exhaustive test's best, over the rounds in which both held something."""
    by = {
        key: {line["round"]: line["capacity_per_s"] for line in lines if who(line) == who(key_line)}
        for key, key_line in (("a", chosen), ("b", best))
    }
    rounds = [number for number, rate in by["a"].items() if rate > 0 and by["b"].get(number, 0) > 0]
    if who(chosen) == who(best):
        return {"value": 1.0, "low": 1.0, "high": 1.0, "rounds": len(rounds), "same": True}
    if not rounds:
        return {"value": math.nan, "low": math.nan, "high": math.nan, "rounds": 0, "same": False}
    found = ratio_interval([by["a"][n] for n in rounds], [by["b"][n] for n in rounds])
    return {"value": found.value, "low": found.low, "high": found.high, "rounds": len(rounds), "same": False}


def named(candidate: Candidate) -> Line:
    """A candidate as plain values."""
    plan = candidate.plan
    return {
        "variant": candidate.variant, "runtime": plan.runtime, "instances": plan.instances, "threads": plan.threads, "max_batch": plan.max_batch,
    }  # fmt: skip


def who(line: Line) -> tuple[Any, ...]:
    """Which candidate a line is about."""
    return tuple(line[key] for key in ("variant", "runtime", "instances", "threads", "max_batch"))

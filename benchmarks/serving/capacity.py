"""SLO capacity: the highest Poisson rate of which 99% is answered within a bound, by a geometric ladder and bisection, in interleaved rounds.

Every server sits on one core and the generator on the other. The **limit** stands in the rounds like a server: Headway's batcher and policy
on the bare runtime, its instance thread on the servers' core and the generator's thread on the other, as a server with no transport would be.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from job import Job
from limit import Bare, simulated
from lines import Line, Lines
from offered import MEASURED_S, Target, Trial, over_http, trial
from running import running
from servers import BOUNDS_S, SERVERS, versions

from headway.load import find_capacity
from headway.records import HeadwayError, LoadPoint

LIMIT = "limit"
STEP, NEAR_STEP, TRIALS = 1.3, 1.1, 9
"""Factor between rates while nothing is known, and when an earlier round has told where to begin."""
LIMIT_GUESS = {"mlp": 2200.0, "tiny": 30000.0}


def names() -> tuple[str, ...]:
    """Everything that takes part."""
    return (LIMIT, *SERVERS)


def measure(lines: Lines, job: Job) -> None:
    """Rounds over all servers, each round in an order of its own; one line a server, bound and round."""
    before = [line for line in lines.read() if line["stage"] == "capacity" and line["model"] == job.model]
    told = {line["server"]: line["low_per_s"] for line in before if line["bound_s"] == BOUNDS_S[0] and line.get("low_per_s")}
    first = 1 + max((line["round"] for line in before), default=-1)
    for turn in range(first, first + job.rounds):
        order = job.servers(names())
        random.Random(turn).shuffle(order)
        for name in order:
            if job.over:
                return
            for line in one(name, job.model, turn, told, job.quick):
                lines.add({"stage": "capacity", "model": job.model, "round": turn, **line, "environment": job.environment})
                job.say(f"round {turn} {job.model} {name}: {line.get('reason') or summary(line)}")


def summary(line: Line) -> str:
    """One search in words."""
    return f"p99 <= {line['bound_s'] * 1e3:g} ms: {line['low_per_s']:.0f}/s held, {line['high_per_s']:.0f}/s did not"


def one(name: str, model: str, turn: int, told: dict[str, float], quick: bool) -> list[Line]:
    """A server's turn: both bounds; ``told`` holds where the search begins, and is told where the next one shall."""
    guess = told.get(name, LIMIT_GUESS[model] if name == LIMIT else SERVERS[name].guess[model])
    step = NEAR_STEP if name in told else STEP
    separate = name == LIMIT or SERVERS[name].takes_bound
    found: list[Line] = []
    for bounds in [(bound,) for bound in BOUNDS_S] if separate else [BOUNDS_S]:
        search = Search(guess, step if bounds[0] == BOUNDS_S[0] else STEP, turn, quick)
        try:
            found += bare(model, bounds[0], search) if name == LIMIT else served(name, model, bounds, search)
        except (RuntimeError, OSError, HeadwayError) as error:
            found += [{"bound_s": bound, "reason": str(error)[-300:]} for bound in bounds]
        guess = found[-1].get("low_per_s") or guess
    told[name] = found[0].get("low_per_s") or guess / STEP
    return [{"server": name, **line} for line in found]


@dataclass(frozen=True)
class Search:
    """How to search: from where, by which first step, with which seed."""

    guess: float
    step: float
    turn: int
    quick: bool

    def all(self, target: Target, bounds: tuple[float, ...]) -> list[Line]:
        """One search a bound; a later bound begins where the earlier one ended, and takes over its trial of that rate."""
        seen: dict[float, Trial] = {}
        found, guess, step = [], self.guess, self.step
        for bound in bounds:
            line, seen = self._one(target, bound, guess, step, seen)
            found.append(line)
            guess, step = line["low_per_s"] or line["high_per_s"], STEP
        return found

    def _one(self, target: Target, bound: float, guess: float, step: float, seen: dict[float, Trial]) -> tuple[Line, dict[float, Trial]]:
        fresh: list[Trial] = []

        def offer(rate_per_s: float) -> LoadPoint:
            fresh.append(seen.pop(rate_per_s, None) or self._tried(target, rate_per_s, bound))
            return fresh[-1].point(bound)

        bracket = find_capacity(offer, start_per_s=guess, trials=3 if self.quick else TRIALS, step=step)
        ends = {"low_per_s": bracket.low_per_s, "high_per_s": bracket.high_per_s, "open_above": bracket.open_above}
        told = {"generator_bound": bracket.generator_bound, "trials": [done.line(bound) for done in fresh]}
        return {"bound_s": bound, **ends, **told}, {done.rate_per_s: done for done in fresh}

    def _tried(self, target: Target, rate_per_s: float, bound_s: float) -> Trial:
        """One rate; offered once more when it failed while the machine was not quiet."""
        for attempt in range(2):
            if not target.settled():
                raise RuntimeError(f"it did not come to rest before {rate_per_s:.0f}/s")
            done = trial(target, rate_per_s, 1.0 if self.quick else MEASURED_S, seed=1000 * self.turn + int(rate_per_s) + attempt)
            if done.quiet or done.point(bound_s).miss_fraction <= 0.01:
                break
        return done


def bare(model: str, bound_s: float, search: Search) -> list[Line]:
    """The limit's search, with what the simulator says beside it."""
    with Bare(model, bound_s) as held:
        found = search.all(held.target(), (bound_s,))
    return [{**line, "simulated_per_s": simulated(model, bound_s, search.quick)} for line in found]


def served(name: str, model: str, bounds: tuple[float, ...], search: Search) -> list[Line]:
    """A server's searches."""
    with running(name, model, bounds[0]) as held:
        found = search.all(over_http(held), bounds)
        told = {"resident_bytes": held.resident_bytes(), "ready_s": round(held.ready_s, 2)}
    return [{**line, **told, "wire": held.server.wire.name, "versions": versions(held.server)} for line in found]

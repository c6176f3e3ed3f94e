"""The last measurements: finalists, the best uncompressed plan and the naive deployment, over HTTP, in interleaved rounds of one run."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from headway.api.compared import capacities, latencies, unstable
from headway.api.loads import COMFORTABLE, FINALISTS
from headway.api.prepare import Prepared
from headway.api.run import Run
from headway.api.trials import Subject, capacity_of, load_run
from headway.deploy import Entry, package
from headway.load import OPEN_STEP
from headway.measure.over_http import OverHttp, served
from headway.records import Candidate, Capacity, Failure, HeadwayError, LoadRun, MeasurementError, Plan, Prediction, Variant
from headway.search import NAIVE, Evidence, Halving, gather, shortfall
from headway.search.choose import HEAVY

ROUNDS = 3
MOST_ROUNDS = 5
"""Rounds are added, up to this many, while a ratio between finalist and rival still varies too much."""
TRIAL_S = 2.0
AT_RATE_S = 3.0
FIRST_TRIALS = 5
LATER_TRIALS = 4
FEWEST = 20
"""Requests that a run at the common rate offers at least: one that holds next to nothing must not set a rate at which nothing arrives."""
START_S = 4.0
START_SHARE = 0.85
"""The first search begins at this share of the guess, so that its first trial mostly holds."""
LATER_STEP = 1.2
"""Later searches begin in the middle of the brackets found before and take small steps either way. Beginning below and ending at the first
large step that fails would find the same share of the round before, round after round."""
MODEL = "model"
THROUGH_PER_S = 20_000.0
"""First guess of what a front end lets through where none was measured: about what one core of ours does [1/s]."""
NAIVE_SHARE = 0.4
"""First guess of the naive deployment's capacity, as a share of the best uncompressed plan's."""
Pass = Callable[[Sequence[Candidate], int], Iterator[Candidate]]
"""``passed(candidates, most)``: the first ``most`` that keep their quality on the report part and break no guard."""
WORTH = 1.1
"""A further candidate is taken in where its predicted rate is so many times that of the best that was not refused."""


@dataclass(frozen=True, slots=True)
class Entrant:
    """One deployment in the contest: its role, what it runs, and a first guess of its capacity [1/s]."""

    role: str
    candidate: Candidate
    guess_per_s: float


def naive_candidate(parent: Variant, cores: int) -> Candidate:
    """What people deploy first: the model as it came, ONNX Runtime's defaults, one request at a time."""
    return Candidate(variant=parent.name, plan=Plan(runtime="onnx_runtime", instances=1, threads=cores, max_batch=1))


def choose_entrants(
    run: Run,
    search: Halving,
    parent: Variant,
    cores: int,
    variants: Mapping[str, Variant],
    passed: Pass,
    further: Sequence[Prediction] = (),
) -> list[Entrant]:
    """Who goes on to real sockets, and through every round there: the best; the runner-up, of another kind if there is one, so that the report part does
    not refuse both; the best uncompressed plan, which it cannot refuse; and the naive deployment. Without ``compare`` the last one stays out, and the one
    before it where a finalist is uncompressed.

    Of the rivals of another kind, those that hold the objective come first, and of those the one closest to the parent's answers.

    Args:
        search: the search in-process, at its end.
        further: compressed candidates that were not loaded in-process, best first: the first of them that passes enters when everything compressed that
            was loaded is refused.
    """
    evidence = {e.candidate: e for e in gather(run.journal, run.objective.percentile, "in-process")}
    missing = {e.candidate: shortfall(e, run.objective) for e in evidence.values()}
    able = {candidate for candidate, short in missing.items() if short is None}
    heavy = {candidate for candidate, short in missing.items() if short is not None and short[0] in HEAVY}
    known = [*(c for c in search.ranking if c in evidence), *(c for c in evidence if c not in search.ranking)]
    candidates = sorted(known, key=lambda candidate: (candidate not in able, candidate in heavy))
    plain = [candidate for candidate in candidates if not variants[candidate.variant].compressed]
    if not candidates:
        raise MeasurementError("at least one candidate must be loaded in-process to go on, got none; the records say why for each")
    served = {told.candidate: told.served_per_s for told in run.journal.of(Prediction) if told.served_per_s is not None}
    unloaded = {told.candidate: told.capacity_per_s for told in further}

    def guess_per_s(candidate: Candidate) -> float:
        """Over HTTP: what was found in-process, or predicted, as far as the front end lets it through."""
        within_per_s = unloaded[candidate] if candidate in unloaded else search.guess_per_s(candidate)
        return min(within_per_s, served.get(candidate, THROUGH_PER_S))

    first = next(iter(passed(candidates, 1)), candidates[0])
    others = [c for c in candidates if variants[c.variant].kind != variants[first.variant].kind and c not in plain]
    others.sort(key=lambda candidate: (candidate not in able, -_agreement(evidence[candidate])))
    rest = list(dict.fromkeys([*others, *(c for c in candidates if c != first)]))
    finalists = [first, *passed(rest, FINALISTS - 1)]
    if first != candidates[0] and not variants[first.variant].compressed:
        worth = [c for c in unloaded if run.objective.rate_per_s or guess_per_s(c) > WORTH * guess_per_s(first)]
        finalists = [*passed(worth, 1), *finalists][:FINALISTS]
    entrants = [Entrant("finalist", candidate, guess_per_s(candidate)) for candidate in finalists]
    best = next(iter(plain), None)
    unsafe = all(variants[candidate.variant].compressed for candidate in finalists)
    if best is not None and best not in finalists and (run.config.compare or unsafe):
        entrants.append(Entrant("uncompressed", best, guess_per_s(best)))
    if run.config.compare:
        entrants.append(Entrant(NAIVE, naive_candidate(parent, cores), NAIVE_SHARE * guess_per_s(best or first)))
    return entrants


def _agreement(evidence: Evidence) -> float:
    return evidence.quality.agreement if evidence.quality else 0.0


def hold_contest(run: Run, prepared: Prepared, entrants: Sequence[Entrant], variants: dict[str, Variant]) -> None:
    """Rounds over all entrants: SLO capacity, then latency at the common rate; recorded, nothing measured twice."""
    effort = _affordable(run, len(entrants))
    for number in range(effort.rounds + 1, ROUNDS + 1):
        run.leave_out("rounds over HTTP", f"round {number}")
    most = MOST_ROUNDS if effort.rounds == ROUNDS else effort.rounds
    with contextlib.ExitStack() as stack:
        running = _start(run, prepared, entrants, variants, stack)
        for number in range(1, most + 1):
            if number > effort.rounds and (_steady(run, list(running)) or not _room(run, len(running))):
                break
            for entrant, load in running.items():
                run.progress.step(f"round {number}: {entrant.role} {entrant.candidate}")
                known = _middle(run, entrant)
                capacity_of(
                    run, _subject(entrant, number), load.load, start_per_s=known or START_SHARE * entrant.guess_per_s,
                    trials=LATER_TRIALS if known else effort.trials, shortest_s=effort.trial_s, step=LATER_STEP if known else OPEN_STEP,
                    memory_bytes=lambda load=load: load.server.resident_bytes,
                )  # fmt: skip
            rate_per_s = common_rate(run)
            for entrant, load in running.items():
                if rate_per_s > 0:
                    load_run(run, _subject(entrant, number), load.load, rate_per_s, effort.at_rate_s, run.config.seed + number, "at-rate")


def _room(run: Run, entrants: int) -> bool:
    """Whether the budget has room for one more round."""
    needed = entrants * (LATER_TRIALS * TRIAL_S + AT_RATE_S)
    return run.left_s("contest", needed) >= needed


def _steady(run: Run, entrants: Sequence[Entrant]) -> bool:
    """Whether the rounds so far tell every finalist from every rival: no ratio of capacities or of latencies is unstable."""
    figures = [(e.role, capacities(run, e.candidate, e.role == NAIVE), latencies(run, e.candidate, e.role == NAIVE)) for e in entrants]
    finalists = [pair for role, *pair in figures if role == "finalist"]
    rivals = [pair for role, *pair in figures if role != "finalist"]
    return not any(unstable(mine, theirs) for ours in finalists for other in rivals for mine, theirs in zip(ours, other, strict=True))


def _subject(entrant: Entrant, number: int) -> Subject:
    return Subject(entrant.candidate, entrant.role, "http", number)


def common_rate(run: Run) -> float:
    """The rate at which latencies are compared: the stated one, else a comfortable share of the weakest capacity that is not zero [1/s]."""
    if run.objective.rate_per_s is not None:
        return run.objective.rate_per_s
    at_rate = [line for line in run.journal.of(LoadRun) if line.purpose == "at-rate" and line.point.target == "http"]
    if at_rate:
        return at_rate[0].point.offered_rate_per_s
    mine = [c.rate_per_s for c in run.journal.of(Capacity) if c.target == "http" and c.rate_per_s > 0]
    return max(COMFORTABLE * min(mine), FEWEST / AT_RATE_S) if mine else 0.0


@dataclass(frozen=True, slots=True)
class _Effort:
    """How much the contest may cost: rounds, trials of the first search, and how long runs last [s]."""

    rounds: int
    trials: int
    trial_s: float
    at_rate_s: float


def _affordable(run: Run, entrants: int) -> _Effort:
    """The standard effort; within a tight budget fewer rounds, then fewer and shorter runs in the one that is left."""
    first = entrants * (FIRST_TRIALS * TRIAL_S + AT_RATE_S)
    later = entrants * (LATER_TRIALS * TRIAL_S + AT_RATE_S)
    left = run.left_s("contest", first + later * ROUNDS + START_S * entrants) - START_S * entrants
    if left >= first:
        return _Effort(min(ROUNDS, 1 + int((left - first) // later)), FIRST_TRIALS, TRIAL_S, AT_RATE_S)
    share = max(0.3, left / first)
    return _Effort(1, max(3, round(FIRST_TRIALS * share)), max(1.0, TRIAL_S * share), max(1.5, AT_RATE_S * share))


def _start(
    run: Run, prepared: Prepared, entrants: Sequence[Entrant], variants: dict[str, Variant], stack: contextlib.ExitStack
) -> dict[Entrant, OverHttp]:
    """Every entrant as a server of its own; one that does not start is recorded and left out."""
    running: dict[Entrant, OverHttp] = {}
    for number, entrant in enumerate(entrants):
        run.progress.step(f"start {entrant.role} {entrant.candidate}")
        try:
            arguments = list(_arguments(run, prepared, entrant, variants, number))
            server = stack.enter_context(served(arguments))
            load = OverHttp.to(server, MODEL, prepared.parts.selection.inputs)
            load.load(20.0, 0.5, run.objective, 0)
            running[entrant] = load
        except HeadwayError as error:
            run.add(
                Failure(stage="contest", variant=entrant.candidate.variant, plan=entrant.candidate.plan, reason=f"{entrant.role}: {error}")
            )
    return running


def _arguments(run: Run, prepared: Prepared, entrant: Entrant, variants: dict[str, Variant], number: int) -> Iterator[str]:
    variant = variants[entrant.candidate.variant]
    if entrant.role == NAIVE:
        yield from ("headway.measure.naive_app", str(run.folder / variant.path), "--port", "0")
        return
    folder = run.folder / "finalists" / str(number)
    package(
        folder, name=MODEL, entries=[Entry(variant, run.folder / variant.path, entrant.candidate.plan, {})], objective=run.objective,
        environment=prepared.environment, labels=prepared.dataset.class_names, seed=run.config.seed,
    )  # fmt: skip
    yield from ("headway", "serve", "--json", str(folder), "--http", "127.0.0.1:0")


def _middle(run: Run, entrant: Entrant) -> float | None:
    """The middle of the brackets that earlier rounds found for an entrant, the median over rounds in which something held [1/s]."""
    mine = [c for c in run.journal.of(Capacity) if c.target == "http" and c.candidate == entrant.candidate and c.role == entrant.role]
    middles = [math.sqrt(c.low_per_s * c.high_per_s) for c in mine if c.low_per_s > 0]
    return statistics.median(middles) if middles else None

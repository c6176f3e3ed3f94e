"""The last measurements: finalists, the best uncompressed plan and the naive deployment, over HTTP, in interleaved rounds of one run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from headway.api.loads import COMFORTABLE, trial_s
from headway.api.prepare import Prepared
from headway.api.run import Run
from headway.deploy import Entry, package
from headway.load import find_capacity
from headway.measure.over_http import OverHttp, served
from headway.records import Candidate, Capacity, Failure, HeadwayError, LoadPoint, LoadRun, Plan, Variant
from headway.search import NAIVE

ROUNDS = 3
TRIAL_S = 2.0
AT_RATE_S = 3.0
FIRST_TRIALS = 7
LATER_TRIALS = 4
START_S = 4.0
MODEL = "model"


@dataclass(frozen=True, slots=True)
class Entrant:
    """One deployment in the contest: its role, what it runs, and a first guess of its capacity [1/s]."""

    role: str
    candidate: Candidate
    guess_per_s: float


def naive_candidate(parent: Variant, cores: int) -> Candidate:
    """What people deploy first: the model as it came, ONNX Runtime's defaults, one request at a time."""
    return Candidate(variant=parent.name, plan=Plan(runtime="onnx_runtime", instances=1, threads=cores, max_batch=1))


def hold_contest(run: Run, prepared: Prepared, entrants: Sequence[Entrant], variants: dict[str, Variant]) -> None:
    """Rounds over all entrants: SLO capacity, then latency at the common rate; recorded, nothing measured twice."""
    rounds = _affordable(run, len(entrants))
    if rounds < ROUNDS:
        run.left_out.append(f"{ROUNDS - rounds} of {ROUNDS} rounds over HTTP")
    with contextlib.ExitStack() as stack:
        running = _start(run, prepared, entrants, variants, stack)
        for number in range(1, rounds + 1):
            for entrant, load in running.items():
                run.progress.step(f"round {number}: {entrant.role} {entrant.candidate}")
                if not _searched(run, entrant, number):
                    _search(run, entrant, load, number)
            rate_per_s = common_rate(run, list(running))
            for entrant, load in running.items():
                if rate_per_s > 0 and not _at_rate(run, entrant, number):
                    point = load.load(rate_per_s, AT_RATE_S, run.objective, run.config.seed + number)
                    run.add(LoadRun(candidate=entrant.candidate, role=entrant.role, round=number, point=point, purpose="at-rate"))


def common_rate(run: Run, entrants: Sequence[Entrant]) -> float:
    """The rate at which latencies are compared: the stated one, else a comfortable share of the weakest capacity that is not zero [1/s]."""
    if run.objective.rate_per_s is not None:
        return run.objective.rate_per_s
    at_rate = [line for line in run.journal.of(LoadRun) if line.purpose == "at-rate" and line.point.target == "http"]
    if at_rate:
        return at_rate[0].point.offered_rate_per_s
    mine = [c.rate_per_s for c in run.journal.of(Capacity) if c.target == "http" and c.rate_per_s > 0]
    return COMFORTABLE * min(mine, default=0.0)


def _affordable(run: Run, entrants: int) -> int:
    one = entrants * (FIRST_TRIALS * TRIAL_S + AT_RATE_S)
    later = entrants * (LATER_TRIALS * TRIAL_S + AT_RATE_S)
    left = run.left_s("contest", one + later * ROUNDS) - START_S * entrants
    return max(1, min(ROUNDS, 1 + int((left - one) // later)))


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
    yield from ("headway.serve", str(folder), "--http", "127.0.0.1:0")


def _searched(run: Run, entrant: Entrant, number: int) -> bool:
    return any(
        c.target == "http" and c.round == number and c.candidate == entrant.candidate and c.role == entrant.role
        for c in run.journal.of(Capacity)
    )


def _at_rate(run: Run, entrant: Entrant, number: int) -> bool:
    return any(
        r.purpose == "at-rate" and r.round == number and r.candidate == entrant.candidate and r.role == entrant.role
        for r in run.journal.of(LoadRun)
    )


def _search(run: Run, entrant: Entrant, load: OverHttp, number: int) -> None:
    before = [
        c.rate_per_s for c in run.journal.of(Capacity) if c.target == "http" and c.candidate == entrant.candidate and c.role == entrant.role
    ]
    seeds = iter(range(1000 * number, 1000 * number + 100))

    def trial(rate_per_s: float) -> LoadPoint:
        point = load.load(rate_per_s, trial_s(rate_per_s, TRIAL_S), run.objective, next(seeds))
        run.add(LoadRun(candidate=entrant.candidate, role=entrant.role, round=number, point=point))
        return point

    start = before[-1] if before and before[-1] > 0 else entrant.guess_per_s
    found = find_capacity(trial, start_per_s=start, trials=LATER_TRIALS if before else FIRST_TRIALS, percentile=run.objective.percentile)
    run.add(
        Capacity(
            candidate=entrant.candidate,
            role=entrant.role,
            target="http",
            rate_per_s=found.low_per_s,
            low_per_s=found.low_per_s,
            high_per_s=found.high_per_s,
            open_above=found.open_above,
            round=number,
            memory_bytes=load.server.resident_bytes,
        )
    )

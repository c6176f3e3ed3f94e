"""The load stage: the shortlist under open-loop load inside this process, by successive halving; the best go on to real sockets."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from headway.api.prepare import Prepared
from headway.api.run import Run
from headway.api.trials import Subject, known_capacity, known_run, load_run
from headway.measure.in_process import InProcess
from headway.records import Candidate, Capacity, Failure, HeadwayError, LoadPoint, Prediction, ServiceCurve
from headway.search import MOST_RUNS, SHORTEST_S, Halving, Offer

FINALISTS = 2
AT_RATE_S, HURRIED_S = 3.0, 1.2
"""How long latency is looked at; how long when the budget is tight [s]."""
AT_RATE_RUNS = 2
"""Runs kept back for that, without a stated rate; with one, the search itself begins there."""
LEAST_S, FEWEST_REQUESTS = 0.4, 12
"""The first rung is made even when time is over, in runs as short as this and with about so many requests [s]."""
COMFORTABLE = 0.7
"""Without a stated rate, latency is compared at this share of a candidate's own capacity."""


def load_shortlist(
    run: Run, prepared: Prepared, shortlisted: Sequence[Prediction], paths: Mapping[str, Path], plain: Collection[str] = ()
) -> Halving:
    """The search over the shortlist: at most ``MOST_RUNS`` load runs in all, recorded, none made twice, and a Capacity for everyone that was run.

    Without a stated rate, latency is looked at for the best, for the best of ``plain`` variants and for the runner-up, as far as runs are left.
    """
    stated = run.objective.rate_per_s is not None
    curves = {(c.variant, c.runtime, c.instances, c.threads): c.peak_bytes for c in run.journal.of(ServiceCurve)}
    halving = Halving(
        shortlisted, run.objective, most_runs=MOST_RUNS - (0 if stated else AT_RATE_RUNS),
        memory_bytes={p.candidate: curves.get(_split_of(p.candidate), 0) for p in shortlisted},
    )  # fmt: skip
    with contextlib.closing(_Bench(run, prepared, paths, closed=_concluded(run, shortlisted))) as bench:
        finished = _search(run, bench, halving, 0.0 if stated else AT_RATE_RUNS * HURRIED_S)
        if not stated:
            _latencies(run, bench, halving, _wanted(halving, plain))
    _conclude(run, halving)
    if not finished and len(halving.survivors) > 1:
        run.leave_out("load runs", f"between {' and '.join(map(str, halving.survivors))}")
    return halving


class _Bench:
    """Candidates held ready, opened when first needed, and their runs with records.

    Attributes:
        closed: whether the stage came to its end in an earlier start of the run; then only what the journal holds is given.
    """

    def __init__(self, run: Run, prepared: Prepared, paths: Mapping[str, Path], *, closed: bool) -> None:
        self.closed = closed
        self._run, self._paths, self._inputs = run, paths, prepared.parts.selection.inputs
        self._held: dict[Candidate, InProcess] = {}

    def known(self, offer: Offer, purpose: str) -> LoadPoint | None:
        """What the journal holds of a run."""
        return known_run(self._run, _subject(offer.candidate), offer.rate_per_s, self._run.config.seed + offer.draw, purpose)

    def failed(self, candidate: Candidate) -> bool:
        """Whether the journal says that the candidate cannot be run."""
        return any(f.stage == "load" and (f.variant, f.plan) == (candidate.variant, candidate.plan) for f in self._run.journal.of(Failure))

    def load(self, offer: Offer, share: float, purpose: str) -> LoadPoint | None:
        """One run, for a share of its length; none when the candidate cannot be run (recorded)."""
        candidate, rate_per_s, duration_s = offer.candidate, offer.rate_per_s, share * offer.duration_s
        if self.failed(candidate):
            return None
        self._run.progress.step(f"{rate_per_s:.4g}/s for {duration_s:.2g} s: {candidate}")
        try:
            if candidate not in self._held:
                self._held[candidate] = InProcess(self._paths[candidate.variant], candidate.plan, self._inputs)
            load = self._held[candidate].load
            return load_run(self._run, _subject(candidate), load, rate_per_s, duration_s, self._run.config.seed + offer.draw, purpose)
        except HeadwayError as error:
            self._run.add(Failure(stage="load", variant=candidate.variant, plan=candidate.plan, reason=str(error)))
            return None

    def keep(self, candidates: Collection[Candidate]) -> None:
        """Close the sessions of all others."""
        for candidate in [held for held in self._held if held not in candidates]:
            self._held.pop(candidate).close()

    def close(self) -> None:
        """Close all sessions."""
        self.keep(())


def _search(run: Run, bench: _Bench, halving: Halving, reserve_s: float) -> bool:
    """Rung after rung; whether it came to its own end."""
    while offers := halving.next_runs():
        bench.keep(halving.survivors)
        purpose = "at-rate" if offers[0].rate_per_s == run.objective.rate_per_s else "trial"
        missing = [offer for offer in offers if bench.known(offer, purpose) is None and not bench.failed(offer.candidate)]
        share = _share(run, missing, reserve_s) if missing else 1.0
        if share == 0 or (missing and bench.closed):
            return False
        for offer in offers:
            point = bench.known(offer, purpose) or bench.load(offer, share, purpose)
            if point is None:
                halving.lose(offer.candidate)
            else:
                halving.tell(offer.candidate, offer.rate_per_s, point)
    return True


def _share(run: Run, offers: Sequence[Offer], reserve_s: float) -> float:
    """The share of their length for which runs have time: a first rung always has some, a later one only with runs no shorter than the shortest."""
    needed_s = sum(offer.duration_s for offer in offers)
    share = round((run.left_s("load", needed_s + reserve_s) - reserve_s) / needed_s, 6)
    if offers[0].draw == 0:
        least_s = max(LEAST_S, min(offers[0].duration_s, FEWEST_REQUESTS / offers[0].rate_per_s))
        return max(share, least_s / offers[0].duration_s)
    return share if share * offers[0].duration_s > 0.99 * SHORTEST_S else 0.0


def _wanted(halving: Halving, plain: Collection[str]) -> list[Offer]:
    """At which comfortable rates latency is looked at, in the order of what is most wanted."""
    ranked = [candidate for candidate in halving.ranking if halving.ends(candidate) is not None]
    safe = [candidate for candidate in ranked if candidate.variant in plain]
    wanted = dict.fromkeys([*ranked[:1], *safe[:1], *ranked[1:FINALISTS]])
    held = {candidate: ends.low_per_s for candidate in wanted if (ends := halving.ends(candidate)) is not None}
    rates = {candidate: COMFORTABLE * (low or halving.guess_per_s(candidate)) for candidate, low in held.items()}
    return [Offer(candidate, rate_per_s, AT_RATE_S, 0) for candidate, rate_per_s in rates.items()][: MOST_RUNS - halving.runs]


def _latencies(run: Run, bench: _Bench, halving: Halving, offers: Sequence[Offer]) -> None:
    """Latency at comfortable rates; the first one even when time is over."""
    for number, offer in enumerate(offers):
        point = bench.known(offer, "at-rate")
        if point is None and not bench.closed:
            left_s = run.left_s("load", AT_RATE_S * (len(offers) - number)) / (len(offers) - number)
            if left_s < HURRIED_S and number > 0:
                run.leave_out("load runs", f"latency of {offer.candidate}")
                continue
            point = bench.load(offer, max(left_s, HURRIED_S) / AT_RATE_S, "at-rate")
        if point is not None:
            halving.tell(offer.candidate, offer.rate_per_s, point)


def _concluded(run: Run, shortlisted: Sequence[Prediction]) -> bool:
    """Whether every one of the shortlist has its Capacity, or the reason why not, from an earlier start of the run."""
    failed = [(f.variant, f.plan) for f in run.journal.of(Failure) if f.stage == "load"]
    candidates = [prediction.candidate for prediction in shortlisted]
    return all(known_capacity(run, _subject(c)) is not None or (c.variant, c.plan) in failed for c in candidates)


def _conclude(run: Run, halving: Halving) -> None:
    """A Capacity for everyone that was run."""
    for candidate in halving.ranking:
        ends = halving.ends(candidate)
        if ends is None or known_capacity(run, _subject(candidate)) is not None:
            continue
        run.add(
            Capacity(
                candidate=candidate, role="candidate", target="in-process", rate_per_s=ends.low_per_s, low_per_s=ends.low_per_s,
                high_per_s=ends.high_per_s, open_above=ends.open_above,
            )
        )  # fmt: skip


def _subject(candidate: Candidate) -> Subject:
    return Subject(candidate, "candidate", "in-process", 0)


def _split_of(candidate: Candidate) -> tuple[str, str, int, int]:
    plan = candidate.plan
    return candidate.variant, plan.runtime, plan.instances, plan.threads

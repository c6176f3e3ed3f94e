"""``load --audit``: MLPerf's compliance tests on a target: answers under load, no cache, no favourite seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headway.api.load_inputs import Feeds
from headway.api.load_session import LoadAsked, Loading, loading
from headway.api.progress import Progress, Silent
from headway.load import arrival_times
from headway.load.audit import Audited, Expected, Reference, Told, audit_answers, audit_cache, audit_seeds
from headway.load.generator import OK, REFUSED
from headway.load.streams import stream_latency_s
from headway.records import MeasurementError
from headway.runtime import open_session
from headway.serve import TOLERANCE, open_bundle

ANSWERS_S = 5.0
DRAIN_S = 60.0
CROWDED = "bursty:c2=16"
"""Arrivals while answers are checked: crowds make batches, in which rows can be mixed up."""
CROWDED_SHARE, QUIET_SHARE = 0.7, 0.3
"""Of the rate that answers one request after another."""
MOST_PER_S = 1000.0
OFFLINE_ROUNDS = 8
"""At most; more than one only where several variants answer."""
LEAST_ROUNDS, MOST_ROUNDS = 6, 24
ROUND_S = 0.25
LEAST_REPEATED, MOST_REPEATED = 20, 300
SEED_ROUND_S = 1.0
SEED_ROUND_REQUESTS = 100
LONGEST_S = 600.0
DIFFERENT_SHARE = 0.9


def audit(
    asked: LoadAsked,
    *,
    rate_per_s: float | None = None,
    seconds: float | None = None,
    reference: str = "",
    progress: Progress | None = None,
) -> tuple[Audited, ...]:
    """What TEST01, TEST04 and TEST05 find.

    Args:
        rate_per_s: of the runs that need one; none: by what the target answers one after another [1/s].
        seconds: how long answers are checked [s]; none: 5 s.
        reference: a bundle whose variants say what is right, computed here; none: the target's own answers to single requests.

    Raises:
        InputError: target, samples or reference are wrong.
        MeasurementError: the target does not answer.
    """
    with loading(asked) as opened:
        return audit_target(opened, rate_per_s=rate_per_s, seconds=seconds, reference=reference, progress=progress or Silent())


def audit_target(
    opened: Loading, *, rate_per_s: float | None = None, seconds: float | None = None, reference: str = "", progress: Progress
) -> tuple[Audited, ...]:
    """``audit`` of a target that is open already."""
    progress.stage("audit", 4)
    progress.step("answers to single requests")
    alone_s = max(opened.alone_s(), 1e-5)
    expected = _computed(reference, opened.requests) if reference else _at_rest(opened)
    progress.step("TEST01: answers under load")
    first = _answers(opened, expected, rate_per_s or min(MOST_PER_S, CROWDED_SHARE / alone_s), seconds or ANSWERS_S)
    progress.step("TEST04: the same sample again and again")
    second = _cache(opened, min(MOST_REPEATED, max(LEAST_REPEATED, round(ROUND_S / alone_s))))
    progress.step("TEST05: other seeds")
    third = _seeds(opened, rate_per_s or min(MOST_PER_S, QUIET_SHARE / alone_s))
    return first, second, third


def _at_rest(opened: Loading) -> Expected:
    """Answers to single requests, one at a time, by the variants that gave them."""
    answers: dict[str, dict[int, Told]] = {}
    for _ in range(OFFLINE_ROUNDS):
        due_s = np.zeros(len(opened.requests))
        for told in opened.target.run(opened.requests, due_s, most_in_flight=1, drain_s=LONGEST_S, keep_answers=True).answers:
            answers.setdefault(told.variant, {})[told.sample] = told
        if len(answers) < 2 or all(len(found) == len(opened.requests) for found in answers.values()):
            break  # one variant has answered all, or each of several has
    if not answers:
        raise MeasurementError("an audit needs answers to single requests, got none; send one by hand to see why")
    return {
        variant: Reference({sample: told.outputs for sample, told in found.items()}, opened.target.answers_tolerance)
        for variant, found in answers.items()
    }


def _computed(path: str, requests: list[Feeds]) -> Expected:
    """Answers of every variant of a bundle to single requests, by its own runtime."""
    bundle = open_bundle(Path(path))
    found: dict[str, Reference] = {}
    for index, bundled in enumerate(bundle.manifest.variants):
        session = open_session(bundled.plan, bundle.model_path(index))
        try:
            answers = {at: session.run(request) for at, request in enumerate(requests)}
        finally:
            session.close()
        tolerance = min(bundle.manifest.tolerance, TOLERANCE.get(bundled.variant.precision, bundle.manifest.tolerance))
        found[bundled.variant.name] = Reference(answers, tolerance)
    if len(found) == 1:
        found[""] = next(iter(found.values()))  # a server that does not name its variants has but one
    return found


def _answers(opened: Loading, expected: Expected, rate_per_s: float, seconds: float) -> Audited:
    due_s = arrival_times(CROWDED, rate_per_s, seconds, opened.asked.seed)
    picks = np.random.default_rng(opened.asked.seed).integers(0, len(opened.requests), max(1, len(due_s)))
    ran = opened.target.run(opened.requests, due_s, picks=picks, drain_s=DRAIN_S, keep_answers=True)
    return audit_answers(ran.answers, expected, sent=len(due_s), refused=int(np.count_nonzero(ran.raw.status == REFUSED)))


def _cache(opened: Loading, count: int) -> Audited:
    seen: set[bytes] = set()
    made = 0

    def latency_s(requests: list[Feeds]) -> NDArray[np.float64]:
        raw = opened.target.run(requests, np.zeros(count), most_in_flight=1, drain_s=LONGEST_S).raw
        return stream_latency_s(raw)

    def round_(number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        nonlocal made
        fresh = opened.samples.fresh(count + 1, opened.asked.seed + 7919 * (number + 1))
        seen.update(b"".join(array.tobytes() for array in request.values()) for request in fresh)
        made += len(fresh)
        different, repeated = fresh[:-1], fresh[-1:]
        if number % 2:
            again_s, new_s = latency_s(repeated), latency_s(different)
        else:
            new_s, again_s = latency_s(different), latency_s(repeated)
        return new_s, again_s

    found = _rounds(round_, audit_cache)
    if len(seen) >= DIFFERENT_SHARE * made:
        return found
    reason = f"only {len(seen):,} of {made:,} made-up samples differ from each other, so a cache could not be told from none; give --data"
    return Audited(test=found.test, title=found.title, verdict="unproven", reason=reason, figures=found.figures)


def _seeds(opened: Loading, rate_per_s: float) -> Audited:
    seconds = max(SEED_ROUND_S, SEED_ROUND_REQUESTS / rate_per_s)
    usual = opened.asked.seed

    def latency_s(seed: int) -> NDArray[np.float64]:
        due_s = arrival_times("poisson", rate_per_s, seconds, seed)
        picks = np.random.default_rng(seed).integers(0, len(opened.requests), max(1, len(due_s)))
        raw = opened.target.run(opened.requests, due_s, picks=picks).raw
        answered_s: NDArray[np.float64] = (raw.done_s - raw.due_s)[raw.status == OK]
        return answered_s

    def round_(number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        other = usual + 104_729 * (number + 1)
        if number % 2:
            other_s, usual_s = latency_s(other), latency_s(usual)
        else:
            usual_s, other_s = latency_s(usual), latency_s(other)
        return usual_s, other_s

    return _rounds(round_, audit_seeds)


Samples_s = list[NDArray[np.float64]]


def _rounds(
    round_: Callable[[int], tuple[NDArray[np.float64], NDArray[np.float64]]], judge: Callable[[Samples_s, Samples_s], Audited]
) -> Audited:
    """Rounds until the verdict is proven, ``MOST_ROUNDS`` at most."""
    one: Samples_s = []
    two: Samples_s = []
    for number in range(MOST_ROUNDS):
        first, second = round_(number)
        if not len(first) or not len(second):
            raise MeasurementError("a round of an audit must hold answered requests, got none; is the target refusing? Lower --rate")
        one.append(first)
        two.append(second)
        if len(one) >= LEAST_ROUNDS and judge(one, two).verdict != "unproven":
            break
    return judge(one, two)

"""The decisions of an audit in MLPerf's manner: are answers under load the right ones, is nothing cached, does a seed change nothing.

MLPerf's compliance tests are ``compliance/TEST01``, ``TEST04`` and (until v5.0) ``TEST05`` of mlcommons/inference. They compare one run with one
run; here every comparison is made of interleaved rounds and decided by an interval, so that a verdict is not luck: ``passed`` and ``failed`` both
need proof, and what is between is ``unproven``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from headway.records import Record
from headway.stats import Estimate, ratio_of_medians

LIMIT = 1.10
"""TEST04: the same sample again and again may be at most this much faster than samples never seen before. TEST05: another seed may change the
latency by at most this factor, either way."""
SHORT_LIMIT, SHORT_S = 1.20, 1e-3
"""MLPerf widens the limit where latencies are so short that the operating system moves them; over a socket that is below a millisecond."""
CONFIDENCE = 0.99
SHOWN = 3


class Audited(Record, frozen=True, kw_only=True):
    """What one test of an audit found.

    Attributes:
        test: MLPerf's name of it; ``title``: what it shows.
        verdict: ``passed``, ``failed``, or ``unproven`` when the figures allow neither.
        reason: one sentence with the numbers.
        figures: the numbers by name.
    """

    test: str
    title: str
    verdict: str
    reason: str
    figures: dict[str, float] = msgspec.field(default_factory=dict)


class Told(NamedTuple):
    """One answer under load: which sample was sent, the variant that answered (empty: not said), and its outputs by name."""

    sample: int
    variant: str
    outputs: Mapping[str, np.ndarray]


class Reference(NamedTuple):
    """Answers of one variant to single requests, by sample, and how far another answer to the same may lie.

    Attributes:
        tolerance: largest relative distance of floating-point outputs: batches of another size sum in another order.
    """

    answers: Mapping[int, Mapping[str, np.ndarray]]
    tolerance: float


Expected = Mapping[str, Reference]
"""What each variant answers offline."""


def audit_answers(told: Sequence[Told], expected: Expected, *, sent: int, refused: int = 0) -> Audited:
    """TEST01: every answer under load is the one to its own sample offline, by the variant that says it gave it.

    An answer is right when it lies within the tolerance of its own sample's and no other sample's lies closer. The test is unproven when an
    answer came from a variant that was not seen offline, or when most samples have neighbours so close that a mix-up could not be seen.

    Args:
        sent: requests that were sent; of these ``refused`` were refused on purpose and got no answer to compare. Any other without an answer
            failed, and so does the test.
    """
    known = [one for one in told if one.variant in expected and one.sample in expected[one.variant].answers]
    apart = {variant: _separations(reference) for variant, reference in expected.items()}
    wrong, off = [], 0.0
    for one in known:
        distance = difference(one.outputs, expected[one.variant].answers[one.sample])
        if distance > expected[one.variant].tolerance or _closer_to_another(one, expected[one.variant], distance, apart[one.variant]):
            wrong.append(one)
        else:
            off = max(off, distance)
    names = sorted({one.variant for one in told})
    separations = [distance for found in apart.values() for distance in found.values()]
    alike = sum(distance <= 2 * off for distance in separations)
    figures: dict[str, float] = {
        "refused": refused,
        "sent": sent, "answered": len(told), "wrong": len(wrong), "unchecked": len(told) - len(known), "variants": len(names),
        "samples": len(separations), "samples_alike": alike, "largest_difference": off,
    }  # fmt: skip
    verdict, reason = _answers_verdict(told, known, wrong, expected, figures)
    return _audited("TEST01", "answers under load equal the answers offline", verdict, reason, figures)


def _answers_verdict(
    told: Sequence[Told], known: Sequence[Told], wrong: Sequence[Told], expected: Expected, figures: Mapping[str, float]
) -> tuple[str, str]:
    if wrong:
        shown = "; ".join(_described(one, expected[one.variant]) for one in wrong[:SHOWN])
        return "failed", f"{len(wrong):,} of {len(told):,} answers are wrong: {shown}"
    unanswered = round(figures["sent"] - figures["refused"]) - len(told)
    if unanswered > 0:
        return "failed", f"{unanswered:,} of {figures['sent']:,.0f} requests got no answer and no refusal"
    if not told:
        return "unproven", "every request was refused: lower --rate"
    names = sorted({one.variant for one in told})
    if len(known) < len(told):
        strangers = ", ".join(repr(name) for name in names if name not in expected) or "a variant"
        return (
            "unproven",
            f"{len(told) - len(known):,} of {len(told):,} answers came from {strangers}, without an answer offline to compare with",
        )
    samples, alike = figures["samples"], figures["samples_alike"]
    right = f"all {len(told):,} answers{' by ' + ', '.join(filter(None, names)) if any(names) else ''} are right"
    if samples < 2 or 2 * alike > samples:
        return (
            "unproven",
            f"{right}, but {alike:.0f} of {samples:.0f} samples are answered like another, so a mix-up could not be seen; give --data",
        )
    return (
        "passed",
        f"{right} (largest difference {figures['largest_difference']:.1e}), of {figures['sent']:,.0f} requests sent, {figures['refused']:,.0f} refused",
    )


def audit_cache(different_s: Sequence[ArrayLike], repeated_s: Sequence[ArrayLike]) -> Audited:
    """TEST04: latencies of samples never sent before over those of one sample sent again and again, in interleaved rounds."""
    ratio, limit = ratio_of_medians(different_s, repeated_s, CONFIDENCE), _limit(different_s)
    verdict = "passed" if ratio.high <= limit else "failed" if ratio.low > limit else "unproven"
    words = f"a repeated sample is answered {_words(ratio)} times as fast as new ones; more than {limit:.2f} would mean a cache"
    return _audited(
        "TEST04", "nothing is cached", verdict, f"{words} ({len(different_s)} rounds)", _figures(ratio, limit, len(different_s))
    )


def audit_seeds(usual_s: Sequence[ArrayLike], other_s: Sequence[ArrayLike]) -> Audited:
    """TEST05: latencies with other seeds (arrivals and order of samples) over those with the usual one, in interleaved rounds."""
    ratio, limit = ratio_of_medians(other_s, usual_s, CONFIDENCE), _limit(usual_s)
    within = 1 / limit <= ratio.low and ratio.high <= limit
    beyond = ratio.low > limit or ratio.high < 1 / limit
    verdict = "passed" if within else "failed" if beyond else "unproven"
    words = (
        f"with other seeds the median latency is {_words(ratio)} times that with the usual one; {1 / limit:.2f} to {limit:.2f} is allowed"
    )
    title = "other seeds, the same performance"
    return _audited("TEST05", title, verdict, f"{words} ({len(usual_s)} rounds)", _figures(ratio, limit, len(usual_s)))


def _limit(latency_s: Sequence[ArrayLike]) -> float:
    return SHORT_LIMIT if float(np.median([np.median(np.asarray(one, dtype=np.float64)) for one in latency_s])) <= SHORT_S else LIMIT


def difference(got: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> float:
    """How far an answer lies from another: the largest relative L2 distance of its outputs; infinite where names, shapes, element types or
    anything but floating-point numbers differ."""
    if got.keys() != wanted.keys():
        return math.inf
    return max((_distance(got[name], wanted[name]) for name in wanted), default=0.0)


def _distance(got: np.ndarray, wanted: np.ndarray) -> float:
    if got.shape != wanted.shape or got.dtype.newbyteorder("=") != wanted.dtype.newbyteorder("="):
        return math.inf
    if np.array_equal(got, wanted):
        return 0.0
    if wanted.dtype.kind != "f":
        return math.inf
    a, b = got.astype(np.float64), wanted.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return math.inf
    floor = 1e-6 * math.sqrt(max(1, b.size))
    return float(np.linalg.norm(a[finite] - b[finite]) / max(float(np.linalg.norm(b[finite])), floor))


def _separations(reference: Reference) -> dict[int, float]:
    """How far the nearest other sample's answer lies, by sample."""
    answers = reference.answers
    return {
        sample: min((difference(other, wanted) for place, other in answers.items() if place != sample), default=math.inf)
        for sample, wanted in answers.items()
    }


def _closer_to_another(one: Told, reference: Reference, distance: float, apart: Mapping[int, float]) -> bool:
    if distance < apart[one.sample] / 2:
        return False
    return any(difference(one.outputs, wanted) < distance for sample, wanted in reference.answers.items() if sample != one.sample)


def _described(one: Told, reference: Reference) -> str:
    """What a wrong answer is: that to another sample, or none that was asked for."""
    distances = {sample: difference(one.outputs, wanted) for sample, wanted in reference.answers.items()}
    nearest = min(distances, key=distances.__getitem__)
    as_what = f"as sample {nearest}" if distances[nearest] <= reference.tolerance and nearest != one.sample else "as no sample"
    return f"sample {one.sample} was answered {as_what}"


def _audited(test: str, title: str, verdict: str, reason: str, figures: dict[str, float]) -> Audited:
    return Audited(test=test, title=title, verdict=verdict, reason=reason, figures=figures)


def _words(ratio: Estimate) -> str:
    return f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"


def _figures(ratio: Estimate, limit: float, rounds: int) -> dict[str, float]:
    return {"ratio": ratio.value, "low": ratio.low, "high": ratio.high, "confidence": ratio.confidence, "limit": limit, "rounds": rounds}

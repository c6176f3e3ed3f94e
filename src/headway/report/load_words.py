"""What a load run says, in sentences: the verdict and what it rests on, and why the figures can be believed or not."""

from __future__ import annotations

import math
from typing import Protocol

from headway.records import LoadPoint, Objective
from headway.report.wording import ms, number, percent, rate
from headway.stats import requests_to_prove

CONFIDENCE = 0.95
STEADY = 0.1
"""A Little ratio this far from 1 is worth a word."""
SAME = 0.02


class Going(Protocol):
    """How a run goes: ``headway.load.Seen``."""

    @property
    def left_s(self) -> float:
        """Until the last request is due [s]."""

    @property
    def answered_per_s(self) -> float:
        """Of the last seconds [1/s]."""

    @property
    def p50_s(self) -> float:
        """Of the last seconds [s]."""

    @property
    def p99_s(self) -> float:
        """Of the last seconds [s]."""

    @property
    def refused(self) -> int:
        """Since the start."""

    @property
    def lateness_s(self) -> float:
        """Of the sender, the most [s]."""


def live_words(seen: Going) -> str:
    """One line while a run goes on."""
    latency = "no answers" if math.isnan(seen.p50_s) else f"p50 {ms(seen.p50_s)}  p99 {ms(seen.p99_s)}"
    return f"{seen.left_s:.0f} s left  {rate(seen.answered_per_s)} answered  {latency}  {seen.refused:,} refused  sender late {ms(seen.lateness_s)}"


def verdict_words(point: LoadPoint, objective: Objective) -> str:
    """One sentence: what the verdict rests on, and what to do where it is none."""
    late = f"{round(point.miss_fraction * point.sent):,} of {point.sent:,} requests were late, lost or refused"
    if point.verdict == "held":
        return f"{late}: few enough to prove it, 95% sure."
    if point.verdict == "missed":
        return f"{late}, where {math.floor((1 - objective.percentile) * point.sent + 1e-9):,} may be: it is not kept, 95% sure."
    if point.verdict == "generator-bound":
        return (
            f"The generator itself was late by {ms(point.lateness_p99_s)} (p99): percentiles would be its own, so none are quoted. "
            "Lower the rate, give it --senders 2, or run it on another machine."
        )
    missing = requests_to_prove(objective.percentile, CONFIDENCE, round(point.miss_fraction * point.sent)) - point.sent
    longer = missing / point.offered_rate_per_s
    return f"{late}: too few requests to say; {max(missing, 1):,} more, all in time, would prove it ({number(longer, 2)} s longer)."


def trust_words(point: LoadPoint, objective: Objective) -> tuple[str, ...]:
    """Why the figures can be believed: the naive figure beside the true one, the generator's own lateness, Little's law, steal time."""
    told = [_lateness(point, objective), _little(point)]
    if point.percentiles and point.verdict != "generator-bound":
        told.insert(0, _naive(point))
    if point.steal_fraction >= 0.01:
        told.append(f"Other machines took {percent(point.steal_fraction)} of the CPU time meanwhile: run it again.")
    if point.mean_batch:
        told.append(f"Batches held {number(point.mean_batch)} rows on average.")
    return tuple(told)


def _naive(point: LoadPoint) -> str:
    true_s = point.percentile(0.99).latency_s
    text = f"Counted from the moment a request was really sent, as many tools do, p99 would read {ms(point.naive_p99_s)}"
    if true_s <= point.naive_p99_s * (1 + SAME):
        return f"{text}: the same, since no request had to wait to be sent."
    return f"{text}, {percent(1 - point.naive_p99_s / true_s)} less: it forgets the wait of requests that were due while the sender was held up."


def _lateness(point: LoadPoint, objective: Objective) -> str:
    share = f", {percent(point.lateness_p99_s / objective.latency_s)} of the bound" if objective.latency_s else ""
    return f"The generator was late by {ms(point.lateness_p99_s)} (p99){share}."


def _little(point: LoadPoint) -> str:
    text = f"Little's law: {number(point.in_flight_mean)} in flight on average, {number(point.little_ratio)} times rate times latency"
    if point.little_ratio > 1 + STEADY:
        return f"{text}: more came than went, the queue was growing."
    if point.little_ratio < 1 - STEADY:
        return f"{text}: the record does not add up, or the run was too short to tell."
    return f"{text}: the run was steady and its record adds up."

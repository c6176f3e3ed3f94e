"""``load``: one open-loop run at one rate, on a server by its URL or on a bundle inside this process."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from headway.api.load_files import check_writable, write_distribution, write_raw
from headway.api.load_session import LoadAsked, Loading, loading
from headway.api.load_target import Ran
from headway.api.progress import Progress, Silent
from headway.load.arriving import parse_arrivals
from headway.records import ConfigError, LoadPoint, Objective

WARM_SHARE = 0.1
LONGEST_WARM_S = 2.0
USUAL_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFound:
    """One run: its point, the objective it was judged by, and what a reader should know besides."""

    point: LoadPoint
    objective: Objective
    notes: tuple[str, ...] = ()


def load(
    asked: LoadAsked,
    *,
    rate_per_s: float | None = None,
    duration_s: float | None = None,
    raw: Path | None = None,
    hdr: Path | None = None,
    progress: Progress | None = None,
) -> LoadFound:
    """One run; a short warm-up goes before it and is left out.

    Args:
        rate_per_s: offered rate [1/s]; none: the recording's own, for arrivals that replay one.
        duration_s: how long [s]; none: 30 s, or the recording once.
        raw: file for the record of every request.
        hdr: file for the distribution of latency, in HdrHistogram's text form.

    Raises:
        InputError: the target, the samples, the arrivals or the objective is wrong, or nothing answers there.
    """
    progress = progress or Silent()
    rate, seconds = _planned(asked, rate_per_s, duration_s)
    for file in filter(None, (raw, hdr)):
        check_writable(file)
    with loading(asked) as opened:
        progress.stage(f"load at {rate:g}/s for {seconds:g} s", 2)
        progress.step("warm up")
        warm_up(opened, rate, seconds)
        progress.step("measure")
        ran, point, senders_note = _measured(opened, rate, seconds, progress)
        files_note = _write(ran, point, raw, hdr)
        return LoadFound(point=point, objective=opened.objective, notes=(*senders_note, *files_note, *_notes(opened)))


def _measured(opened: Loading, rate_per_s: float, seconds: float, progress: Progress) -> tuple[Ran, LoadPoint, tuple[str, ...]]:
    """The run; once more with a second sender when one was the bottleneck and nobody said how many there must be."""
    seed = opened.asked.seed
    ran = opened.ran(rate_per_s, seconds, seed)
    point = opened.point(ran, rate_per_s, seed)
    if opened.asked.senders is not None or opened.asked.sending.spin or opened.target.kind != "http" or point.verdict != "generator-bound":
        return ran, point, ()
    progress.note("the sender was the bottleneck; once more with two")
    opened.target.senders = 2
    ran = opened.ran(rate_per_s, seconds, seed)
    return ran, opened.point(ran, rate_per_s, seed), ("one sender was the bottleneck: this is a second run, with two",)


def _write(ran: Ran, point: LoadPoint, raw: Path | None, hdr: Path | None) -> tuple[str, ...]:
    if raw is not None:
        write_raw(raw, ran.raw)
    if hdr is not None and point.verdict == "generator-bound":
        return (f"{hdr} was not written: the distribution would be the generator's own",)
    if hdr is not None:
        write_distribution(hdr, ran.raw)
    return ()


def warm_up(opened: Loading, rate_per_s: float, seconds: float) -> None:
    """A short run that is left out."""
    opened.ran(rate_per_s, min(LONGEST_WARM_S, WARM_SHARE * seconds + 0.2), opened.asked.seed + 1)


def _planned(asked: LoadAsked, rate_per_s: float | None, duration_s: float | None) -> tuple[float, float]:
    recorded = parse_arrivals(asked.arrivals).recorded
    if rate_per_s is None and recorded is None:
        raise ConfigError("a load needs the offered rate, got none; add --rate R, or --find to search for the highest that holds")
    rate = rate_per_s if rate_per_s is not None else recorded[0] if recorded else math.nan
    seconds = recorded[0] * recorded[1] / rate if duration_s is None and recorded else duration_s
    return rate, seconds or USUAL_S


def _notes(opened: Loading) -> tuple[str, ...]:
    told = []
    if opened.asked.sending.spin:
        told.append(
            "the sender spun, with a core of its own: clients that sleep cost the server their wake-ups, and it looks slower to them"
        )
    if opened.samples.made_up:
        told.append("requests are made up: their values rarely change the time, but can; --data FILE sends real ones")
    return tuple(told)

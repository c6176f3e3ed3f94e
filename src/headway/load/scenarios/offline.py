"""All samples at the start; the result is samples a second until the last one is done."""

from __future__ import annotations

import math

import numpy as np

from headway.load.generator import OK, RawLoad
from headway.load.scenarios.contract import Asked, Drive, Rules, ScenarioResult, shortfalls

RULES = Rules(seconds=600.0, queries=1, samples=24_576)
QUICK = Rules(seconds=10.0, queries=1, samples=1_024)
PILOT = 64
PILOT_S = 0.5
MARGIN = 1.1
"""A run is planned this much longer than the pilot says that it needs to be."""
MOST_SAMPLES = 5_000_000
TRIES = 4


def run(drive: Drive, rules: Rules, asked: Asked) -> ScenarioResult:
    """Samples a second: as many samples as the shortest duration takes, guessed by a pilot and tried again with more when that was too few."""
    rate_per_s = _pilot(drive)
    for _ in range(TRIES):
        samples = min(MOST_SAMPLES, max(rules.samples, math.ceil(MARGIN * rate_per_s * rules.seconds)))
        drive.say(f"{samples:,} samples at once")
        raw = drive.at_once(samples)
        ended_s = _ended_s(raw)
        failed = int(np.count_nonzero(raw.status != OK))
        if ended_s >= rules.seconds or failed or samples == MOST_SAMPLES:
            break
        rate_per_s = samples / ended_s
    reasons = [f"{failed:,} of {samples:,} samples failed or were refused"] if failed else []
    short = shortfalls(RULES, queries=1, samples=samples, seconds=ended_s)
    return ScenarioResult(
        scenario="offline",
        metric="samples a second",
        value=(samples - failed) / ended_s,
        unit="1/s",
        valid=not reasons,
        conforming=not reasons and not short,
        queries=1,
        samples=samples,
        duration_s=ended_s,
        failed=failed,
        reasons=(*reasons, *short),
    )


def _pilot(drive: Drive) -> float:
    """Samples a second of a short run [1/s]."""
    samples = PILOT
    while True:
        ended_s = _ended_s(drive.at_once(samples))
        if ended_s >= PILOT_S or samples >= MOST_SAMPLES:
            return samples / ended_s
        samples *= 4


def _ended_s(raw: RawLoad) -> float:
    return max(raw.end_s, 1e-9)

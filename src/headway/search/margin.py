"""How far predictions and measurements may be off on this machine, and what can therefore not be told apart.

The rule: whoever's upper end reaches the rival's lower end may be the better one, after the simulator's own error. The ends are those of the
prediction, moved apart by what other work took from the machine while curves were measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from headway.records import Noise, Prediction, Record
from headway.search.evidence import Evidence
from headway.stats import ratio_interval

MARGIN = 0.75
"""The margin on a quiet machine, with samples that agree: it is never narrower."""
SIMULATOR_ERROR = 0.1
MOST_DOUBT = 0.5
QUIET_RATIO = 1.3
"""Repeated work that varies by no more than this is taken for quiet."""
BUSY = 0.1
"""Doubt from which the user is told."""
RESOLUTION = 1.06
"""A search for a capacity ends when its bracket is this narrow: figures nearer to each other are equal."""
ONE_ROUND = 1.5
"""From one round nothing is known of how rounds differ: only a factor like this tells two apart."""


def doubt(noise: Iterable[Noise]) -> float:
    """Share by which measured times may be off because of other work, from 0 to ``MOST_DOUBT``: by the worst of what was recorded.

    Work that takes a share of the CPU time makes times longer by up to 1 / (1 - share), and may be there or gone when the load comes. Where
    repeated work varies by more than ``QUIET_RATIO``, something disturbs that the counters do not show.
    """
    return min(MOST_DOUBT, max((1 - _left(line) for line in noise), default=0.0))


def _left(line: Noise) -> float:
    """The share of its time that work could count on."""
    taken = min(1.0, line.steal_fraction + line.others_fraction)
    return (1 - taken) * min(1.0, QUIET_RATIO / max(1.0, line.noise_ratio))


def shares(prediction: Prediction, noise: Iterable[Noise] = ()) -> tuple[float, float]:
    """The lower and the upper end of a prediction as shares of it, at most and at least 1."""
    told, left = prediction.capacity_per_s, 1 - doubt(noise)
    low = prediction.low_per_s if prediction.low_per_s is not None else told
    high = prediction.high_per_s if prediction.high_per_s is not None else told
    if told <= 0:
        return left, 1 / left
    return left * min(1.0, low / told), max(1.0, high / told) / left


def margin(prediction: Prediction, noise: Iterable[Noise] = (), rival: Prediction | None = None) -> float:
    """Share of the rival's prediction, or of a stated rate, below which a candidate is not load-tested: at most ``MARGIN``.

    From there on its upper end reaches the rival's lower end, less ``SIMULATOR_ERROR``. A stated rate has no ends.
    """
    known = tuple(noise)
    lower = shares(rival, known)[0] if rival is not None else 1.0
    upper = shares(prediction, known)[1]
    return min(MARGIN, (1 - SIMULATOR_ERROR) * lower / upper)


def noise_warning(records: Iterable[Record]) -> tuple[str, ...]:
    """What must be said of a run on a busy machine; nothing of one on a quiet machine."""
    lines = list(records)
    noise = [line for line in lines if isinstance(line, Noise)]
    if doubt(noise) < BUSY:
        return ()
    worst = max(noise, key=lambda line: 1 - _left(line))
    said = [f"{worst.others_fraction:.0%} of its CPU time went to other processes"] if worst.others_fraction >= 0.01 else []
    said += [f"{worst.steal_fraction:.0%} to other machines"] if worst.steal_fraction >= 0.01 else []
    said += [f"repeated work varied by a factor of {worst.noise_ratio:.2g}"]
    factor = statistics.median([_factor(line, noise) for line in lines if isinstance(line, Prediction)] or [1 / (1 - doubt(noise))])
    return (
        f"this machine was busy with other work while curves were measured ({', '.join(said)}): predictions are uncertain by a factor of {factor:.2g}, "
        "for which the margins were widened; figures may be off; run again on a quiet machine",
    )


def _factor(prediction: Prediction, noise: Sequence[Noise]) -> float:
    """The larger of the factors by which a prediction may be too low or too high."""
    low, high = shares(prediction, noise)
    return max(high, 1 / low if low > 0 else high)


def indistinct(one: Evidence, other: Evidence) -> bool:
    """Whether the measured capacities of two candidates cannot be told apart.

    By the ratio over the rounds that both took part in: its 95% interval, and the resolution of the search on either side of it, holds 1. What
    disturbs both in a round cancels. One round alone tells them apart only by a factor of ``ONE_ROUND``.
    """
    theirs = dict(other.rounds)
    pairs = [(mine, theirs[number]) for number, mine in one.rounds if number in theirs]
    if not pairs:
        return True
    silent = {(mine > 0, its > 0) for mine, its in pairs}
    if (True, True) not in silent or len(silent) > 1:
        return silent not in ({(True, False)}, {(False, True)})
    ratio = ratio_interval([mine for mine, _ in pairs], [its for _, its in pairs])
    slack = RESOLUTION if len(pairs) > 1 else ONE_ROUND
    return ratio.low / slack <= 1 <= ratio.high * slack

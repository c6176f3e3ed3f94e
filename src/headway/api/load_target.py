"""What can be loaded: requests in, moments out, and answers when they are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from headway.api.load_inputs import Feeds
from headway.load import SYSTEM, Live, RawLoad, Trust
from headway.load.audit import Told
from headway.records import TensorSpec

DRAIN_S = 5.0
MOST_IN_FLIGHT = 256
Picks = NDArray[np.intp]
"""Which of the requests are sent, one after the other, and over again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """How requests go to a server.

    Attributes:
        spin: the sender never sleeps.
        trust: which servers are believed over TLS.
        live: is told how each run goes; silent while several processes send.
    """

    spin: bool = False
    trust: Trust = SYSTEM
    live: Live | None = None


USUAL = Sending()


class Ran(NamedTuple):
    """One run.

    Attributes:
        answers: those that came, in the order they came; ``sample`` is the place of the request. Empty when they were not kept.
        mean_batch: mean rows of a batch; NaN where the target does not tell.
        steal_fraction: share of CPU time that other machines took during the run.
    """

    raw: RawLoad
    answers: tuple[Told, ...]
    mean_batch: float
    steal_fraction: float


class Target(Protocol):
    """Something that answers requests.

    Attributes:
        kind: ``http``, ``grpc`` or ``in-process``: where latency is taken.
        inputs: what the model takes.
        own_slo: the objective that the target itself states; empty when it states none.
        answers_tolerance: largest relative distance between two answers of one variant to one request.
        senders: processes that share the load; always 1 where the target is in this one.
    """

    kind: str
    inputs: tuple[TensorSpec, ...]
    own_slo: str
    answers_tolerance: float
    senders: int

    def run(
        self,
        requests: Sequence[Feeds],
        due_s: NDArray[np.float64],
        *,
        picks: Picks | None = None,
        most_in_flight: int = MOST_IN_FLIGHT,
        drain_s: float = DRAIN_S,
        keep_answers: bool = False,
    ) -> Ran:
        """Send a request at each due time: those that ``picks`` names in turn, or all in turn.

        Args:
            most_in_flight: requests beyond this many wait on this side, and the wait counts into their latency.
        """


def sent_in_turn(requests: Sequence[Feeds], count: int, picks: Picks | None) -> Picks:
    """Which request is sent at each of ``count`` due times."""
    turns = np.arange(len(requests)) if picks is None else picks
    return np.resize(turns, count)

"""A target of arithmetic on a clock of its own, for the tests of the load tool: known service times, and faults to order."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headway.api.load_inputs import Feeds
from headway.api.load_target import DRAIN_S, MOST_IN_FLIGHT, Picks, Ran, sent_in_turn
from headway.load import RawLoad
from headway.load.audit import Told
from headway.load.generator import OK, REFUSED
from headway.records import TensorSpec

SERVICE_S = 0.004


class PaperTarget:
    """``y = 2 x + 1`` on rows of four, one request after another, each in 4 ms with a little spread; nothing takes real time.

    Args:
        mixes: under load, a request that arrives while another runs is answered with that one's row.
        caches: a request seen before is answered in a tenth of the time.
        favours: the seed's arrivals that are served in half of the time, by their due times.
        variants: names that answer in turn; another than the first adds its place to the answer.
        refuses: every request.
    """

    kind = "paper"
    own_slo = ""
    answers_tolerance = 1e-2
    inputs: tuple[TensorSpec, ...] = (TensorSpec(name="x", dtype="float32", shape=("n", 4)),)

    def __init__(
        self, *, mixes: bool = False, caches: bool = False, favours: NDArray[np.float64] | None = None, variants: Sequence[str] = ("a",),
        refuses: bool = False, service_s: float = SERVICE_S,
    ) -> None:  # fmt: skip
        self._mixes, self._caches, self._favours, self._variants, self._refuses = mixes, caches, favours, tuple(variants), refuses
        self._service_s = service_s
        self._seen: set[bytes] = set()
        self._rng = np.random.default_rng(0)
        self._turn = 0
        self.runs = 0
        self.senders = 1

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
        self.runs += 1
        order = sent_in_turn(requests, len(due_s), picks)
        favoured = self._favours is not None and len(self._favours) == len(due_s) and np.allclose(self._favours, due_s)
        done_s, free_s, before = np.empty(len(due_s)), 0.0, -1
        answers: list[Told] = []
        for number, at_s in enumerate(due_s.tolist()):
            request = requests[order[number]]
            crowded = most_in_flight > 1 and at_s < free_s and before >= 0
            free_s = max(at_s, free_s) + self._takes_s(request) * (0.5 if favoured else 1.0)
            done_s[number] = free_s
            row = requests[before]["x"] if self._mixes and crowded else request["x"]
            variant = self._variants[self._turn % len(self._variants)]
            self._turn += 1
            if keep_answers and not self._refuses:
                answers.append(Told(int(order[number]), variant, {"y": 2 * row + 1 + self._variants.index(variant)}))
            before = int(order[number])
        status = np.full(len(due_s), REFUSED if self._refuses else OK, dtype=np.int8)
        end_s = float(done_s.max()) if len(done_s) else 0.0
        return Ran(RawLoad(due_s, due_s, done_s, status, end_s), tuple(answers), math.nan, 0.0)

    def _takes_s(self, request: Feeds) -> float:
        text = request["x"].tobytes()
        known = text in self._seen
        self._seen.add(text)
        return self._service_s * float(self._rng.lognormal(0, 0.03)) * len(request["x"]) * (0.1 if known and self._caches else 1.0)

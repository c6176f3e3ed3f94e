"""Which version of a model answers: the primary, a canary that gets a share, a shadow that only listens. No sockets, no sessions."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from headway.serve.call import Call, Form, Wanted
from headway.serve.refusal import Refusal, invalid

LAST_PRIORITY = 2**63
"""Of a shadow's requests: whatever a client asks for comes first."""


class Canary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version that gets a share of the requests, from 0 to 1."""

    version: str
    share: float


class Shadow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version that computes every request too, and whose answers are compared and thrown away."""

    version: str


class Traffic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How requests that name no version are shared out; without a primary, the highest version number is it."""

    primary: str | None = None
    canary: Canary | None = None
    shadow: Shadow | None = None


def read_traffic(body: bytes) -> Traffic:
    """A Traffic from JSON.

    Raises:
        Refusal: it is not one, or the canary's share is not from 0 to 1.
    """
    try:
        traffic = msgspec.json.decode(body, type=Traffic)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid(f"traffic must be an object such as {{'canary': {{'version': '2', 'share': 0.1}}}}, got: {error}") from None
    if traffic.canary is not None and not 0 <= traffic.canary.share <= 1:
        raise invalid(f"the canary's share must lie between 0 and 1, got {traffic.canary.share:g}")
    return traffic


class Shares:
    """Picks the canary for exactly its share of the requests, evenly spread: of any n requests in a row, n times the share, give or take one."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._owed = 0.0

    def next(self) -> bool:
        """Whether the next request is the canary's."""
        self._owed += self._share
        if self._owed < 1.0 - 1e-9:
            return False
        self._owed -= 1.0
        return True


class Comparison:
    """What a shadow's answers were like, beside those that clients got. Counted on the instances' threads.

    Attributes:
        rows: compared.
        flips: rows for which some output differs in kind: another largest class, another integer, or, for an output of one number a row, more than
            ``FAR`` of relative distance.
        skipped: requests that the shadow could not take or that failed in one of the two.
    """

    FAR = 0.05

    def __init__(self) -> None:
        self.rows = self.flips = self.skipped = 0
        self._lock = threading.Lock()

    def pair(self, call: Call) -> Call:
        """The shadow's copy of a request; ``call`` itself is changed so that its answer is remembered."""
        meeting = _Meeting(self)
        copy = Call(call.feeds, call.rows, call.shapes, tuple(Wanted(w.name) for w in call.wanted), "", None, LAST_PRIORITY)
        copy.form, copy.owner = _Listens(meeting), _Nobody(call.owner.arrived_s)
        call.form = _Remembers(call.form, meeting)
        return copy

    def skip(self) -> None:
        """Count a request that cannot be compared."""
        with self._lock:
            self.skipped += 1

    def compare(self, ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], rows: int) -> None:
        """Count one request's rows."""
        flipped = np.zeros(rows, dtype=bool)
        for one, other in zip(ours, theirs, strict=True):
            flipped |= (
                _differs(one.reshape(rows, -1), other.reshape(rows, -1))
                if one.size and one.shape == other.shape
                else one.shape != other.shape
            )
        with self._lock:
            self.rows += rows
            self.flips += int(flipped.sum())


def _differs(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """For each row, whether two outputs differ in kind."""
    if one.dtype.kind != "f":
        return (one != other).any(axis=1)
    if one.shape[1] == 1:
        distance = np.abs(one - other) > Comparison.FAR * np.maximum(np.abs(one), np.abs(other))
        return distance[:, 0]
    return one.argmax(axis=1) != other.argmax(axis=1)


class _Meeting:
    """Where the answers of a request and of its copy meet, in whichever order they come."""

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison
        self._lock = threading.Lock()
        self._first: Sequence[np.ndarray] | None = None
        self._over = False

    def bring(self, arrays: Sequence[np.ndarray] | None, rows: int) -> None:
        """One side's outputs; none: it has none."""
        with self._lock:
            first, over = self._first, self._over
            self._first = arrays
            self._over = arrays is None or over
        if over:
            return
        if arrays is None:
            self._comparison.skip()
        elif first is not None:
            self._comparison.compare(first, arrays, rows)


class _Remembers:
    """A client's form that also brings the outputs to the meeting."""

    def __init__(self, form: Form, meeting: _Meeting) -> None:
        self._form, self._meeting = form, meeting

    def answer(self, call: Call, outputs: Sequence[tuple[Wanted, np.ndarray]], variant: str) -> Any:
        self._meeting.bring([array for _, array in outputs], call.rows)
        return self._form.answer(call, outputs, variant)

    def refuse(self, refusal: Refusal) -> Any:
        self._meeting.bring(None, 0)
        return self._form.refuse(refusal)


class _Listens:
    """The shadow's form: nothing is written."""

    def __init__(self, meeting: _Meeting) -> None:
        self._meeting = meeting

    def answer(self, call: Call, outputs: Sequence[tuple[Wanted, np.ndarray]], variant: str) -> None:
        self._meeting.bring([array for _, array in outputs], call.rows)

    def refuse(self, refusal: Refusal) -> None:
        self._meeting.bring(None, 0)


class _Nobody:
    """Waits for a shadow's answer."""

    def __init__(self, arrived_s: float) -> None:
        self.arrived_s = arrived_s
        self.coding = None

    def finish(self, answer: Any) -> None:
        """Nothing: nobody gets it."""

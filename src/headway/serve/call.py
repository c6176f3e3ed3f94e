"""One checked request on its way through the server, and what it needs from whoever asked. No sockets, no bytes of a protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from headway.serve.refusal import Refusal

DEFAULT_PRIORITY = 2
"""Of requests that ask for none: a client may stand before them (1) or behind (3 and more)."""


class Wanted(NamedTuple):
    """One output that an answer must hold: whether as raw bytes, and as how many of its largest classes (0: as it is)."""

    name: str
    binary: bool = False
    classes: int = 0


class Form(Protocol):
    """How answers of one model are written for one kind of client; all methods may be called from any thread."""

    def answer(self, call: Call, outputs: Sequence[tuple[Wanted, np.ndarray]], variant: str) -> Any:
        """The finished answer, ready for the socket.

        Raises:
            Refusal: what was asked of the outputs cannot be given.
        """

    def refuse(self, refusal: Refusal) -> Any:
        """The finished answer that says no."""


class Waiter(Protocol):
    """Whoever waits for an answer.

    Attributes:
        arrived_s: when the last byte of the request was read, on the clock of ``time.perf_counter`` [s].
    """

    arrived_s: float

    def finish(self, answer: Any) -> None:
        """Take the answer; called once, on the event loop."""


@dataclass(slots=True, eq=False)
class Call:
    """One checked request: arrays by input name, and what the answer must hold.

    Attributes:
        rows: what it counts for in a batch.
        shapes: the inputs' shapes beyond the rows, or none when the model leaves no choice; only calls with equal ``shapes`` share a run.
        wanted: the outputs, in the order of the answer.
        timeout_s: how long after its arrival the answer is of use; none: as the server says [s].
        priority: 1 is served first.
        form, owner: how the answer is written, and who gets it; set by the front that read the request.
    """

    feeds: dict[str, np.ndarray]
    rows: int
    shapes: tuple[tuple[int, ...], ...] | None
    wanted: tuple[Wanted, ...]
    id: str
    timeout_s: float | None = None
    priority: int = DEFAULT_PRIORITY
    form: Form = None  # type: ignore[assignment]
    owner: Waiter = None  # type: ignore[assignment]

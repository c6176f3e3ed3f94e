"""Structured logs of a server: events with fields, as lines for people or as JSON lines. Built on the standard ``logging``.

Events are records of the logger ``headway.serve`` with the event's name as message and its fields in ``record.fields``. Whoever
embeds a server handles them as any other records; ``writing`` writes them to a stream from a thread of its own, so that a slow
terminal or a full pipe never holds up the event loop: what does not fit into its queue is dropped, and the number is said.

Nobody can forge a line: control characters and line ends in names and values are escaped in both forms.
"""

from __future__ import annotations

import json
import logging
import math
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from headway.serve.seen import Batch, Refused

logger = logging.getLogger("headway.serve")

Form = Literal["text", "json"]
Tell = Callable[..., None]
"""``tell(event, **fields)``."""

WARNINGS = frozenset(("load_failed", "refusals", "slow_client", "dropped", "folding_failed"))
"""Events that ask for somebody's attention."""

MOST_WAITING = 1000
SUMMARY_S = 10.0
"""Refusals of one reason are summed up at most once in so long [s]."""

MOST_CHARACTERS = 2000
"""Longer texts in fields are cut."""

END_S = 2.0
"""A stream that nobody reads is given up after so long at the end [s]."""


class _Words:
    """Fields as ``name=value``, put together when somebody reads them."""

    def __init__(self, fields: Mapping[str, object]) -> None:
        self._fields = fields

    def __str__(self) -> str:
        return "".join(f" {_plain(str(name))}={_plain(_shown(value))}" for name, value in self._fields.items() if value is not None)


def tell(event: str, /, **fields: object) -> None:
    """Log an event: started, ready, load, unload, swap, traffic, step, drain, stopped, ...; from any thread."""
    level = logging.WARNING if event in WARNINGS else logging.INFO
    logger.log(level, "%s%s", event, _Words(fields), extra={"event": event, "fields": fields})


# --- forms


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, event, then the fields; the event of another logger's record is "log"."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        event, content = _content(record)
        head = {"time": _time(record), "level": record.levelname.lower(), "event": event}
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        line = head | {f"{name}_" if name in head else name: value for name, value in content.items()}
        try:
            return json.dumps(line, default=str, allow_nan=False)
        except (TypeError, ValueError):
            return json.dumps(head | {"message": ascii(content)})


class TextLines(logging.Formatter):
    """One line for people: time, level, event, ``name=value`` for each field; a traceback follows, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        event, content = _content(record)
        line = f"{_time(record)} {record.levelname.lower():7} {_plain(event)}{_Words(content)}"
        traceback = self.formatException(record.exc_info).splitlines() if record.exc_info else []
        return "\n    ".join((line, *map(_escaped, traceback)))


def _content(record: logging.LogRecord) -> tuple[str, dict[str, Any]]:
    """The event and the fields of a record; of one that is no event, who says what."""
    event, fields = getattr(record, "event", None), getattr(record, "fields", None)
    if not isinstance(event, str) or not isinstance(fields, Mapping):
        event, fields = "log", {"logger": record.name, "message": record.getMessage()}
    return event, {str(name): _bounded(value) for name, value in fields.items()}


def _bounded(value: object) -> object:
    """A value that a line can hold: texts not too long, numbers that JSON knows."""
    if isinstance(value, str):
        return value[:MOST_CHARACTERS]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _plain(text: str) -> str:
    """The text itself when it is one printable word, else quoted and escaped."""
    if text and text.isprintable() and not any(char in ' "=' for char in text):
        return text
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_escaped(quoted)}"'


def _escaped(text: str) -> str:
    """The text with everything that a terminal might obey, and every end of a line, as an escape sequence."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


# --- writing


class _Entry(logging.Handler):
    """Puts records into a queue; what finds no place is counted."""

    def __init__(self, most_waiting: int) -> None:
        super().__init__()
        self.waiting: queue.Queue[logging.LogRecord | None] = queue.Queue(most_waiting)
        self._lost = 0
        self._counting = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        """Put a record into the queue."""
        try:
            self.waiting.put_nowait(record)
        except queue.Full:
            with self._counting:
                self._lost += 1

    def lost(self) -> int:
        """How many records found no place since this was last asked."""
        with self._counting:
            lost, self._lost = self._lost, 0
        return lost


def _write(entry: _Entry, lines: logging.Handler) -> None:
    """Write what is queued until a none comes; whenever all is written, say how many lines were lost."""
    more = True
    while more:
        record = entry.waiting.get()
        more = record is not None
        if record is not None:
            lines.handle(record)
        lost = entry.lost() if entry.waiting.empty() else 0
        if lost:
            fields = {"lines": lost}
            said = {
                "name": logger.name,
                "levelno": logging.WARNING,
                "levelname": "WARNING",
                "msg": "dropped",
                "event": "dropped",
                "fields": fields,
            }
            lines.handle(logging.makeLogRecord(said))


@contextmanager
def writing(
    form: Form = "text", stream: TextIO | None = None, *, level: int = logging.INFO, most_waiting: int = MOST_WAITING
) -> Iterator[None]:
    """Write all records of the loggers ``headway`` and ``asyncio`` to ``stream`` (standard error) while the context lasts.

    Args:
        form: lines for people, or JSON lines.
        most_waiting: records that may wait to be written; more are dropped and counted.
    """
    lines = logging.StreamHandler(stream or sys.stderr)
    lines.setFormatter(JsonLines() if form == "json" else TextLines())
    entry = _Entry(most_waiting)
    writer = threading.Thread(target=_write, args=(entry, lines), name="headway-logs", daemon=True)
    loggers = [logging.getLogger(name) for name in ("headway", "asyncio")]
    before = [(one.level, one.propagate) for one in loggers]
    writer.start()
    for one in loggers:
        one.addHandler(entry)
        one.setLevel(level)
        one.propagate = False
    try:
        yield
    finally:
        for one, (old_level, old_propagate) in zip(loggers, before, strict=True):
            one.removeHandler(entry)
            one.setLevel(old_level)
            one.propagate = old_propagate
        with suppress(queue.Full):
            entry.waiting.put(None, timeout=END_S)
        writer.join(END_S)


# --- what is logged of requests


class Refusals:
    """Sums refusals up: for each reason one line at once, and then at most one in ``SUMMARY_S``, never one for each request."""

    def __init__(self, tell: Tell = tell, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell, self._clock = tell, clock
        self._waiting: dict[str, Counter[str]] = {}
        self._told_s: dict[str, float] = {}

    def fold(self, batches: Sequence[Batch], refused: Sequence[Refused]) -> None:
        """Sum these up, and tell what is due; called with nothing, it only tells."""
        for refusal in refused:
            self._waiting.setdefault(refusal.reason, Counter())["" if refusal.status == 404 else refusal.model] += 1
        now_s = self._clock()
        for reason in [reason for reason in self._waiting if now_s - self._told_s.get(reason, -SUMMARY_S) >= SUMMARY_S]:
            self._tell_of(reason, now_s)

    def close(self) -> None:
        """Tell what was not told yet."""
        for reason in list(self._waiting):
            self._tell_of(reason, self._clock())

    def _tell_of(self, reason: str, now_s: float) -> None:
        counts = self._waiting.pop(reason)
        self._told_s[reason] = now_s
        self._tell(
            "refusals", reason=reason, count=counts.total(), models={model: count for model, count in counts.items() if model} or None
        )


class Access:
    """Logs every n-th request that was answered by a model; of a batch's failures it does not know whose they are."""

    def __init__(self, every: int, tell: Tell = tell) -> None:
        self._every, self._tell = every, tell
        self._seen = 0

    def fold(self, batches: Sequence[Batch], refused: Sequence[Refused]) -> None:
        """Log those whose turn it is."""
        for batch in batches:
            first = self._every - 1 - self._seen % self._every
            self._seen += len(batch.arrived_s)
            for arrived_s in batch.arrived_s[first :: self._every]:
                self._tell_of(batch, arrived_s)

    def _tell_of(self, batch: Batch, arrived_s: float) -> None:
        self._tell(
            "request", model=batch.model, version=batch.version, variant=batch.variant,
            queue_s=batch.started_s - arrived_s, service_s=batch.finished_s - batch.started_s, total_s=batch.delivered_s - arrived_s,
            batch_rows=batch.rows, batch_requests=len(batch.arrived_s), batch_failed=batch.failed,
        )  # fmt: skip

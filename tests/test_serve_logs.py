"""Logs: one line an event whatever stands in it, summaries for refusals, and a full pipe that holds nobody up."""

from __future__ import annotations

import ast
import io
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.serve.folding import Folding
from headway.serve.logs import SUMMARY_S, Access, Form, JsonLines, Refusals, TextLines, tell, writing
from headway.serve.seen import Batch, Refused
from serving import Wire, affine_model, bundle, entry, json_body, request, running


def lines(write: Callable[[], object], form: Form = "json", **options: Any) -> list[str]:
    """What ``write`` makes appear on the stream."""
    stream = io.StringIO()
    with writing(form, stream, **options):
        write()
    return stream.getvalue().splitlines()


class Told:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, /, **fields: Any) -> None:
        self.events.append((event, fields))


def no(reason: str, status: int = 429, model: str = "m") -> Refused:
    return Refused(model, "1", reason, status, 0.0)


# --- lines


def test_an_event_is_one_json_object() -> None:
    (line,) = lines(lambda: tell("load", model="tiny", version="1", seconds=0.25))
    told = json.loads(line)
    assert abs(datetime.fromisoformat(told["time"]).timestamp() - time.time()) < 60
    assert {name: value for name, value in told.items() if name != "time"} == {
        "level": "info", "event": "load", "model": "tiny", "version": "1", "seconds": 0.25,
    }  # fmt: skip
    assert list(told)[:3] == ["time", "level", "event"]


def test_an_event_is_a_line_for_people() -> None:
    (line,) = lines(lambda: tell("refusals", reason="queue full", count=3, share=1 / 3, models=None), "text")
    assert line.endswith('Z warning refusals reason="queue full" count=3 share=0.333333')


def test_fields_cannot_pass_for_the_head_of_a_line() -> None:
    (line,) = lines(lambda: tell("load", level="debug", time="never"))
    told = json.loads(line)
    assert (told["level"], told["level_"], told["time_"]) == ("info", "debug", "never")
    assert told["time"] != "never"


def made(fields: dict[str, Any], message: str = "load") -> logging.LogRecord:
    return logging.makeLogRecord(
        {"name": "headway.serve", "levelno": 20, "levelname": "INFO", "msg": message, "event": message, "fields": fields}
    )


ANYTHING = st.text(st.characters(), max_size=30) | st.sampled_from(
    ["\n", "\r\nx", "\x1b[31m", "\u2028", "\u202e", "\x85", "\ud800", 'a"b', "a\\", "\0"]
)


@given(
    st.dictionaries(ANYTHING, ANYTHING | st.integers() | st.floats() | st.binary(max_size=5) | st.lists(ANYTHING, max_size=2), max_size=4),
    ANYTHING,
)
def test_nobody_can_forge_a_line(fields: dict[str, Any], message: str) -> None:
    record = made(fields, message)
    text = TextLines().format(record)
    assert text.isprintable()
    plain = JsonLines().format(record)
    assert plain.isascii()
    assert not any(char < " " for char in plain)
    assert {"time", "level", "event"} <= set(json.loads(plain))


@given(st.text(st.characters(codec="ascii"), max_size=30))
def test_a_value_reads_back(value: str) -> None:
    shown = TextLines().format(made({"name": value})).split(" name=", 1)[1]
    assert (ast.literal_eval(shown) if shown.startswith('"') else shown) == value


def test_long_texts_are_cut() -> None:
    (line,) = lines(lambda: tell("load", reason="x" * 100_000))
    assert len(line) < 3000


def test_records_of_others_keep_their_traceback() -> None:
    def fail() -> None:
        try:
            raise ValueError("bad\nforged line")
        except ValueError:
            logging.getLogger("asyncio").exception("a task\nfailed")

    (line,) = lines(fail)
    told = json.loads(line)
    assert (told["event"], told["logger"], told["message"], told["level"]) == ("log", "asyncio", "a task\nfailed", "error")
    assert "ValueError: bad\nforged line" in told["exception"]
    head, *rest = lines(fail, "text")
    assert 'message="a task\\nfailed"' in head
    assert rest
    assert all(line.startswith("    ") for line in rest)


def test_without_a_writer_an_event_is_an_ordinary_record(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        tell("ready", url="http://h", port=1)
    assert caplog.messages == ["ready url=http://h port=1"]


def test_a_writer_leaves_no_trace() -> None:
    before = [(one.level, one.propagate, one.handlers[:]) for one in map(logging.getLogger, ("headway", "asyncio", "headway.serve"))]
    assert lines(lambda: tell("ready"), level=logging.ERROR) == []
    assert [(one.level, one.propagate, one.handlers) for one in map(logging.getLogger, ("headway", "asyncio", "headway.serve"))] == before
    assert not any(thread.name == "headway-logs" for thread in threading.enumerate())


def test_a_full_pipe_holds_nobody_up_and_the_loss_is_said() -> None:
    reading, writing_end = os.pipe()
    filler, count, got = "x" * 1500, 400, bytearray()

    def read() -> None:
        with os.fdopen(reading, "rb") as pipe:
            got.extend(pipe.read())

    reader = threading.Thread(target=read)
    with os.fdopen(writing_end, "w") as stream, writing("json", stream, most_waiting=20):
        for _ in range(count):
            tell("load", filler=filler)
        reader.start()
    reader.join()
    told = [json.loads(line) for line in got.splitlines()]
    dropped = sum(line["lines"] for line in told if line["event"] == "dropped")
    assert dropped > 0
    assert dropped + sum(line["event"] == "load" for line in told) == count


# --- requests


def test_refusals_are_summed_up() -> None:
    told, now_s = Told(), 0.0
    refusals = Refusals(told, lambda: now_s)
    refusals.fold([], [no("queue_full"), no("queue_full"), no("late", model="n")])
    assert told.events == [
        ("refusals", {"reason": "queue_full", "count": 2, "models": {"m": 2}}),
        ("refusals", {"reason": "late", "count": 1, "models": {"n": 1}}),
    ]
    told.events.clear()
    for now_s in (1.0, SUMMARY_S - 1):  # noqa: B007
        refusals.fold([], [no("queue_full")] * 1000)
    assert told.events == []
    now_s = SUMMARY_S
    refusals.fold([], [])
    assert told.events == [("refusals", {"reason": "queue_full", "count": 2000, "models": {"m": 2000}})]
    told.events.clear()
    now_s = SUMMARY_S + 1
    refusals.fold([], [no("queue_full"), no("unknown", 404, "made up")])
    assert told.events == [("refusals", {"reason": "unknown", "count": 1, "models": None})]
    refusals.close()
    assert told.events[1:] == [("refusals", {"reason": "queue_full", "count": 1, "models": {"m": 1}})]


@given(st.lists(st.lists(st.sampled_from("ab"), max_size=5), max_size=30), st.lists(st.floats(0, 7), min_size=30, max_size=30))
def test_no_refusal_is_lost_and_no_reason_is_told_too_often(folds: list[list[str]], pauses_s: list[float]) -> None:
    now_s, moments = 0.0, []
    told = Told()

    def tell_at(event: str, /, **fields: Any) -> None:
        told(event, **fields)
        moments.append((fields["reason"], now_s))

    refusals = Refusals(tell_at, lambda: now_s)
    for reasons, pause_s in zip(folds, pauses_s, strict=False):
        now_s += pause_s
        refusals.fold([], [no(reason) for reason in reasons])
    for reason in "ab":
        at = [moment_s for name, moment_s in moments if name == reason]
        assert all(later - earlier >= SUMMARY_S for earlier, later in pairwise(at))
    refusals.close()
    for reason in "ab":
        assert sum(fields["count"] for _, fields in told.events if fields["reason"] == reason) == sum(
            names.count(reason) for names in folds
        )


@given(st.lists(st.integers(1, 7), max_size=20), st.integers(1, 9), st.integers(1, 5))
def test_every_nth_request_is_logged(sizes: list[int], every: int, portion: int) -> None:
    told, numbers = Told(), iter(range(1000))
    batches = [Batch("m", "1", "v", 9, tuple(-float(next(numbers)) for _ in range(size)), 0.0, 1.0, 2.0, 0) for size in sizes]
    access = Access(every, told)
    for first in range(0, len(batches), portion):
        access.fold(batches[first : first + portion], [])
    assert [fields["queue_s"] for _, fields in told.events] == list(range(sum(sizes)))[every - 1 :: every]


def test_an_access_line_says_what_happened() -> None:
    def serve() -> None:
        with Folding([Access(1), Refusals()]) as folding:
            folding.seen(Batch("m", "1", "v", 3, (1.0,), 1.5, 1.75, 2.0, 0))
            folding.refused(no("late"))

    request, refusal = map(json.loads, lines(serve))
    del request["time"]
    assert request == {
        "level": "info", "event": "request", "model": "m", "version": "1", "variant": "v", "queue_s": 0.5, "service_s": 0.25, "total_s": 1.0,
        "batch_rows": 3, "batch_requests": 1, "batch_failed": 0,
    }  # fmt: skip
    assert (refusal["event"], refusal["reason"], refusal["count"]) == ("refusals", "late", 1)


def test_a_server_says_what_happens_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    opened = bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx"), "quick"))
    with running(opened, log="json", access_log=2) as ready, Wire(ready.port) as wire:
        for body in (json_body([1, 2, 3, 4]), json_body([1, 2, 3, 4]), b"{", b"{"):
            wire.send(request("/v2/models/tiny/infer", body))
            wire.answer()
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    events = [line["event"] for line in told]
    assert events[:2] == ["load", "ready"]
    assert {"drain", "stopped"} <= set(events)
    assert [line["variant"] for line in told if line["event"] == "request"] == ["quick"]
    assert sum(line["count"] for line in told if line["event"] == "refusals" and line["reason"] == "invalid") == 2

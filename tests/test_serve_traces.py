"""Spans made after the fact: their times, parents and attributes, who is sampled, and that nothing is sent unasked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("opentelemetry.sdk")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from headway.discovery import discover
from headway.records import ConfigError
from headway.serve import traces
from headway.serve.folding import Folding
from headway.serve.seen import Batch, Refused
from headway.serve.traces.opentelemetry import MOST_A_FOLD, MOST_WAITING, STALE_S, Traces, open_traces
from serving import Wire, affine_model, bundle, entry, json_body, request, running

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def parent(flags: str = "01") -> bytes:
    return f"00-{TRACE}-{SPAN}-{flags}".encode()


def batch(*arrived_s: float, rows: int = 1, failed: int = 0) -> Batch:
    last_s = max(arrived_s)
    return Batch("m", "2", "small", rows, arrived_s, last_s + 0.25, last_s + 0.75, last_s + 1.0, failed)


class Recorder:
    """Traces that are kept in memory."""

    def __init__(self, share: float = 0.0) -> None:
        self.exporter = InMemorySpanExporter()
        self.traces = open_traces(exporter=self.exporter, share=share)

    def spans(self, name: str = "infer") -> list[ReadableSpan]:
        """The finished spans of one name, in the order of their ends."""
        self.traces._provider.force_flush()
        return [span for span in self.exporter.get_finished_spans() if span.name == name]


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    made = Recorder()
    yield made
    made.traces.close()


@pytest.fixture
def everything() -> Iterator[Recorder]:
    made = Recorder(1.0)
    yield made
    made.traces.close()


def test_a_request_has_its_times_and_attributes(everything: Recorder) -> None:
    now_s, now_ns = time.perf_counter(), time.time_ns()
    everything.traces.fold([batch(now_s, rows=3)], [])
    (infer,), (queue,), (service,) = (everything.spans(name) for name in ("infer", "queue", "service"))
    assert infer.start_time is not None
    assert abs(infer.start_time - now_ns) < 1e8
    at = infer.start_time
    ends = [moment - at for span in (infer, queue, service) for moment in (span.start_time, span.end_time)]  # type: ignore[operator]
    assert ends == pytest.approx([0, 1e9, 0, 0.25e9, 0.25e9, 0.75e9], abs=1000)
    assert infer.kind is SpanKind.SERVER
    assert infer.parent is None
    assert infer.attributes == {
        "headway.model": "m", "headway.version": "2", "headway.variant": "small",
        "headway.batch_rows": 3, "headway.batch_requests": 1, "headway.batch_failed": 0, "headway.rows": 3,
    }  # fmt: skip
    for child in (queue, service):
        assert child.parent is not None
        assert child.parent.span_id == infer.context.span_id
        assert child.context.trace_id == infer.context.trace_id
    assert infer.resource.attributes["service.name"] == "headway"


def test_the_senders_trace_goes_on(recorder: Recorder) -> None:
    recorder.traces.incoming(10.0, parent())
    recorder.traces.fold([batch(9.0, 10.0)], [])
    (infer,) = recorder.spans()
    assert f"{infer.context.trace_id:032x}" == TRACE
    assert infer.parent is not None
    assert f"{infer.parent.span_id:016x}" == SPAN
    assert infer.parent.is_remote
    assert infer.attributes is not None
    assert "headway.rows" not in infer.attributes


def test_a_sender_that_does_not_trace_is_followed(everything: Recorder) -> None:
    everything.traces.incoming(10.0, parent("00"))
    everything.traces.fold([batch(10.0)], [])
    assert everything.spans() == []


@pytest.mark.parametrize(
    "header", [b"", b"nonsense", b"00-" + b"0" * 32 + b"-" + SPAN.encode() + b"-01", b"\xff\xfe", b"00-" * 18, b"x" * 10_000]
)
def test_a_broken_header_is_as_none(recorder: Recorder, everything: Recorder, header: bytes) -> None:
    for one, count in ((recorder, 0), (everything, 1)):
        one.traces.incoming(10.0, header)
        one.traces.fold([batch(10.0)], [])
        assert len(one.spans()) == count


def test_a_share_is_exact_and_evenly_spread() -> None:
    made = Recorder(0.1)
    for number in range(100):
        made.traces.fold([batch(*(100.0 * number + place for place in range(10)))], [])
    starts = [span.start_time for span in made.spans()]
    assert len(starts) == 100
    made.traces.close()


def test_refusals_are_errors(recorder: Recorder) -> None:
    recorder.traces.incoming(10.0, parent())
    recorder.traces.fold([], [Refused("m", "2", "queue_full", 429, 10.0), Refused("m", "2", "late", 429, 11.0)])
    (infer,) = recorder.spans()
    assert infer.status.status_code is StatusCode.ERROR
    assert infer.attributes is not None
    assert (infer.attributes["headway.reason"], infer.attributes["http.response.status_code"]) == ("queue_full", 429)


def test_failures_of_a_whole_batch_are_errors(everything: Recorder) -> None:
    everything.traces.fold([batch(1.0, failed=1), batch(2.0, 3.0, failed=1)], [])
    assert [span.status.status_code for span in everything.spans()] == [StatusCode.ERROR, StatusCode.UNSET, StatusCode.UNSET]


def test_too_many_are_skipped_and_counted(everything: Recorder) -> None:
    everything.traces.fold([batch(*map(float, range(MOST_A_FOLD + 5)))], [])
    assert len(everything.spans()) == MOST_A_FOLD
    assert everything.traces.skipped == 5


def test_what_waits_is_bounded_and_forgotten_in_time(recorder: Recorder) -> None:
    now_s = time.perf_counter()
    for number in range(MOST_WAITING + 3):
        recorder.traces.incoming(now_s - STALE_S - 1 - number, parent())
    assert recorder.traces.skipped == 3
    recorder.traces.fold([], [])
    recorder.traces.incoming(now_s, parent())
    recorder.traces.fold([batch(now_s)], [])
    assert len(recorder.spans()) == 1


def test_the_loop_and_the_folding_thread_meet(recorder: Recorder) -> None:
    count = 300
    with Folding([recorder.traces], period_s=0.001) as folding:
        for number in range(count):
            recorder.traces.incoming(float(number), parent())
            folding.seen(batch(float(number)))
    assert len(recorder.spans()) == count


def test_nothing_is_sent_without_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="collector's URL"):
        open_traces(share=1.0)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:4318", "grpc://h:1", "http://", ""])
def test_an_endpoint_must_be_a_url(endpoint: str) -> None:
    with pytest.raises(ConfigError):
        open_traces(endpoint=endpoint)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_from_0_to_1(share: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        open_traces(exporter=InMemorySpanExporter(), share=share)


@contextmanager
def collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """A collector's URL, and the paths and bodies posted to it."""
    posted: list[tuple[str, bytes]] = []

    class Collects(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Collects) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", posted
        finally:
            server.shutdown()
            serving.join()


@pytest.mark.parametrize("path", ["", "/", "/custom/traces"])
def test_spans_reach_a_collector(path: str) -> None:
    with collector() as (url, posted):
        made: Traces = open_traces(endpoint=f"{url}{path}", share=1.0)
        made.fold([batch(1.0)], [])
        made.close()
    ((where, body),) = posted
    assert where == ("/custom/traces" if path == "/custom/traces" else "/v1/traces")
    assert b"headway.variant" in body


def test_a_server_sends_the_spans_of_those_who_ask(tmp_path: Path) -> None:
    opened = bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx"), "quick"))
    asked = f"traceparent: {parent().decode()}\r\n"
    with collector() as (url, posted), running(opened, spans=url, spans_share=0.0) as ready, Wire(ready.port) as wire:
        for header in ("", asked, ""):
            wire.send(request("/v2/models/tiny/infer", json_body([1, 2, 3, 4]), header))
            assert wire.answer()[0] == 200
    body = b"".join(body for _, body in posted)
    assert body.count(bytes.fromhex(TRACE)) == 3
    assert b"quick" in body


def test_the_file_is_found_by_its_name() -> None:
    assert discover(traces).present["opentelemetry"].open_traces is open_traces

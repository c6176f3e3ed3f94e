"""What was seen, counted: nothing lost between threads, totals equal to brute force, pages that parsers and Triton's client read."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from tritonclient import http as triton

from headway.serve.folding import PORTION, Folding
from headway.serve.metrics import CONTENT_TYPE, MOST_VERSIONS, ROWS, SECONDS, Metrics, Now, ShadowNow, VersionNow
from headway.serve.seen import Batch, Refused
from headway.serve.statistics import Statistics


class Kept:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.refused: list[Refused] = []
        self.largest = 0

    def fold(self, batches: Sequence[Batch], refused: Sequence[Refused]) -> None:
        self.batches += batches
        self.refused += refused
        self.largest = max(self.largest, len(batches), len(refused))


def made(number: int = 0, *, model: str = "m", version: str = "1", variant: str = "v", failed: int = 0, rows: int = 1) -> Batch:
    return Batch(model, version, variant, rows, (float(number),), number + 0.5, number + 0.75, number + 1.0, failed)


def no(reason: str = "queue_full", status: int = 429, model: str = "m", version: str = "1") -> Refused:
    return Refused(model, version, reason, status, 0.0)


# --- folding


@contextmanager
def switching_often() -> Iterator[None]:
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before_s)


def test_nothing_is_lost_or_counted_twice_between_threads() -> None:
    kept, each, threads = Kept(), 4000, 4
    with switching_often(), Folding([kept], period_s=0.001, most=10**9) as folding:

        def append(first: int) -> None:
            for number in range(first, first + each):
                folding.seen(made(number))
                folding.refused(Refused("", "", "x", 400, number))

        def scrape() -> None:
            for _ in range(200):
                folding.fold_now()

        running = [threading.Thread(target=append, args=(i * each,)) for i in range(threads)] + [threading.Thread(target=scrape)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    everything = list(range(each * threads))
    assert sorted(int(batch.arrived_s[0]) for batch in kept.batches) == everything
    assert sorted(int(refusal.at_s) for refusal in kept.refused) == everything
    assert folding.dropped == 0


def test_what_is_appended_in_the_middle_of_a_fold_waits_for_the_next() -> None:
    class Raced(list[Batch]):
        def __getitem__(self, place: Any) -> Any:
            found = super().__getitem__(place)
            self.append(made(99))
            return found

    kept = Kept()
    folding = Folding([kept])
    folding._batches = Raced([made(1)])
    folding.fold_now()
    assert kept.batches == [made(1)]
    folding.fold_now()
    assert kept.batches == [made(1), made(99)]


def test_one_threads_order_is_kept_and_portions_are_small() -> None:
    kept = Kept()
    folding = Folding([kept])
    for number in range(3 * PORTION + 1):
        folding.seen(made(number))
    folding.refused(no())
    folding.fold_now()
    assert [batch.arrived_s[0] for batch in kept.batches] == list(range(3 * PORTION + 1))
    assert kept.refused == [no()]
    assert kept.largest == PORTION


def test_the_thread_folds_by_itself() -> None:
    kept = Kept()
    with Folding([kept], period_s=0.001) as folding:
        folding.seen(made())
        deadline_s = time.monotonic() + 10
        while not kept.batches and time.monotonic() < deadline_s:
            time.sleep(0.001)
        assert kept.batches == [made()]


def test_closing_folds_the_rest() -> None:
    kept = Kept()
    with Folding([kept], period_s=3600) as folding:
        folding.seen(made())
    assert kept.batches == [made()]
    assert not any(thread.name == "headway-folding" for thread in threading.enumerate())


def test_a_stalled_fold_keeps_memory_bounded_and_says_so() -> None:
    entered, release = threading.Event(), threading.Event()

    class Stalls(Kept):
        def fold(self, batches: Sequence[Batch], refused: Sequence[Refused]) -> None:
            super().fold(batches, refused)
            if batches:
                entered.set()
                release.wait(10)

    kept = Stalls()
    with Folding([kept], period_s=0.001, most=10) as folding:
        folding.seen(made(0))
        assert entered.wait(10)
        for number in range(1, 26):
            folding.seen(made(number))
            folding.refused(no())
        assert folding.dropped == 30
        release.set()
    assert [batch.arrived_s[0] for batch in kept.batches] == list(range(11))
    assert len(kept.refused) == 10


def test_a_consumers_failure_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Fails:
        def fold(self, batches: Sequence[Batch], refused: Sequence[Refused]) -> None:
            raise ValueError("no")

    kept = Kept()
    folding = Folding([Fails(), kept])
    with caplog.at_level(logging.ERROR):
        for number in range(3):
            folding.seen(made(number))
            folding.fold_now()
    assert len(kept.batches) == 3
    assert folding.failed == {"Fails": 3}
    assert len(caplog.records) == 1
    assert "Fails" in caplog.text


def test_consumers_are_closed_after_the_last_fold() -> None:
    class Closes(Kept):
        def close(self) -> None:
            self.left = len(self.batches)
            raise ValueError("no")

    first, second = Closes(), Closes()
    with Folding([first, second], period_s=3600) as folding:
        folding.seen(made())
    assert (first.left, second.left) == (1, 1)
    assert folding.failed == {"Closes": 2}


# --- metrics

MOMENTS = st.floats(0, 20, allow_nan=False)
NAMES = st.sampled_from(["a", 'b"\\\n', "ü"])
TIMES = st.lists(MOMENTS, min_size=4, max_size=4).map(sorted)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    arrived, started, finished, delivered = draw(TIMES)
    count = draw(st.integers(1, 5))
    moments = (arrived, *(draw(st.floats(0, started)) for _ in range(count - 1)))
    rows, failed = draw(st.integers(1, 400)), draw(st.integers(0, count))
    return Batch(draw(NAMES), draw(st.sampled_from("12")), draw(NAMES), rows, moments, started, finished, delivered, failed)


REFUSALS = st.builds(Refused, NAMES, st.sampled_from(["", "1"]), st.sampled_from(["late", "unknown"]), st.sampled_from([404, 429]), MOMENTS)


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {(s.name, frozenset(s.labels.items())): s.value for family in parse_text(metrics.text().decode()) for s in family.samples}


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


@settings(max_examples=40, deadline=None)
@given(st.lists(batches(), max_size=20), st.lists(REFUSALS, max_size=20), st.integers(1, 20))
def test_totals_equal_brute_force(seen: list[Batch], refused: list[Refused], portion: int) -> None:
    metrics = Metrics()
    for first in range(0, 20, portion):
        metrics.fold(seen[first : first + portion], refused[first : first + portion])
    got = samples(metrics)
    wanted: Counter[tuple[str, frozenset[tuple[str, str]]]] = Counter()

    def observe(name: str, value: float, bounds: Sequence[float], **labels: str) -> None:
        wanted[key(f"{name}_sum", **labels)] += value  # type: ignore[assignment]
        wanted[key(f"{name}_count", **labels)] += 1
        for bound in (*bounds, float("inf")):
            wanted[key(f"{name}_bucket", **labels, le="+Inf" if bound == float("inf") else f"{float(bound)}")] += value <= bound

    for b in seen:
        of_version = {"model": b.model, "version": b.version}
        of_variant = {**of_version, "variant": b.variant}
        wanted[key("headway_requests_total", **of_variant, status="200")] += len(b.arrived_s) - b.failed
        wanted[key("headway_requests_total", **of_variant, status="500")] += b.failed
        for arrived_s in b.arrived_s:
            observe("headway_queue_seconds", b.started_s - arrived_s, SECONDS, **of_version)
            observe("headway_request_seconds", b.delivered_s - arrived_s, SECONDS, **of_version)
        observe("headway_delivery_seconds", b.delivered_s - b.finished_s, SECONDS, **of_version)
        observe("headway_service_seconds", b.finished_s - b.started_s, SECONDS, **of_variant)
        observe("headway_batch_rows", b.rows, ROWS, **of_variant)
    for r in refused:
        of_version = {"model": r.model, "version": r.version} if r.status != 404 else {"model": "", "version": ""}
        wanted[key("headway_requests_total", **of_version, variant="", status=str(r.status))] += 1
        wanted[key("headway_refusals_total", **of_version, reason=r.reason)] += 1
    named = (
        "headway_requests",
        "headway_refusals",
        "headway_queue",
        "headway_request_s",
        "headway_delivery",
        "headway_service",
        "headway_batch",
    )
    got = {(name, _plain_le(labels)): value for (name, labels), value in got.items() if name.startswith(named)}
    assert {k: v for k, v in got.items() if v} == pytest.approx({k: v for k, v in wanted.items() if v})


def _plain_le(labels: frozenset[tuple[str, str]]) -> frozenset[tuple[str, str]]:
    return frozenset((name, value if name != "le" or value == "+Inf" else f"{float(value)}") for name, value in labels)


NOW = Now(
    ready=True,
    connections=7,
    versions=(VersionNow("m", "1", True, 5, 4, 1), VersionNow("m", "2", False)),
    shadows=(ShadowNow("m", "2", 100, 3, 2),),
    dropped=9,
)


def test_gauges_are_read_at_the_scrape() -> None:
    metrics = Metrics({"bundle": "b"})
    assert samples(metrics)[key("headway_ready")] == 0
    metrics.now = lambda: NOW
    got, one, two = samples(metrics), {"model": "m", "version": "1"}, {"model": "m", "version": "2"}
    assert got[key("headway_info", bundle="b")] == 1
    assert got[key("headway_ready")] == 1
    assert got[key("headway_connections")] == 7
    assert got[key("headway_uncounted_total")] == 9
    assert [got[key(f"headway_{name}", **one)] for name in ("in_flight", "waiting", "variant_level", "version_ready")] == [5, 4, 1, 1]
    assert got[key("headway_version_ready", **two)] == 0
    assert [got[key(f"headway_shadow_{name}_total", **two)] for name in ("compared", "flips", "failed")] == [100, 3, 2]
    assert got[key("process_cpu_seconds_total")] > 0


def test_both_formats_parse_and_say_the_same() -> None:
    metrics = Metrics({"bundle": "b"}, lambda: NOW)
    metrics.fold([made(), made(variant="w", failed=1)], [no(), no("malformed", 400, "", "")])
    body, content_type = metrics.page("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    ours = {(s.name, frozenset(s.labels.items())): s.value for family in parse_openmetrics(body.decode()) for s in family.samples}
    names = {name for name, _ in ours if name.startswith("headway")}
    assert names == {name for name, _ in samples(metrics) if name.startswith("headway")}
    assert ours[key("headway_requests_total", model="m", version="1", variant="w", status="500")] == 1
    plain, content_type = metrics.page("*/*")
    assert content_type == CONTENT_TYPE
    assert plain.startswith(b"# HELP headway_info")


def test_names_that_clients_make_up_take_no_memory() -> None:
    metrics = Metrics()
    for number in range(0, 3 * MOST_VERSIONS, 100):
        metrics.fold([], [no("unknown", 404, f"no{i}", "") for i in range(number, number + 100)])
        metrics.fold([], [no("late", 429, f"m{i}", "1") for i in range(number, number + 100)])
    got = samples(metrics)
    assert got[key("headway_refusals_total", model="", version="", reason="unknown")] == 3 * MOST_VERSIONS
    assert got[key("headway_refusals_total", model="", version="", reason="late")] == 2 * MOST_VERSIONS
    assert len([name for name, _ in got if name == "headway_refusals_total"]) == MOST_VERSIONS + 2


def test_a_scrape_and_a_fold_go_together() -> None:
    metrics, stop = Metrics(), threading.Event()
    pages: list[bytes] = []

    def scrape() -> None:
        while not stop.is_set():
            pages.append(metrics.text())

    scraper = threading.Thread(target=scrape)
    scraper.start()
    for number in range(300):
        metrics.fold([made(number, variant=f"v{number % 7}")], [no(f"r{number % 7}")])
    stop.set()
    scraper.join()
    assert sum(value for (name, _), value in samples(metrics).items() if name == "headway_batch_rows_count") == 300
    assert pages


# --- statistics


def test_statistics_are_tritons_and_add_up() -> None:
    statistics = Statistics()
    first = Batch("m", "1", "v", 6, (10.0, 11.0, 12.0), 13.0, 15.0, 16.0, 0)
    second = Batch("m", "1", "v", 2, (20.0, 20.0), 21.0, 22.0, 23.0, 1)
    statistics.fold([first, second, made(version="2")], [no(), no("unknown", 404), no("not_ready", 503, "m", "")])
    told = statistics.of("m", "1")
    ns = 10**9
    assert (told["name"], told["version"], told["inference_count"], told["execution_count"]) == ("m", "1", 7, 2)
    assert told["inference_stats"] == {
        "success": {"count": 4, "ns": (6 + 5 + 4 + 3) * ns},
        "fail": {"count": 2, "ns": 3 * ns},
        "queue": {"count": 5, "ns": (3 + 2 + 1 + 1 + 1) * ns},
        "compute_input": {"count": 5, "ns": 0},
        "compute_infer": {"count": 5, "ns": (2 * 3 + 1 * 2) * ns},
        "compute_output": {"count": 5, "ns": 0},
        "cache_hit": {"count": 0, "ns": 0},
        "cache_miss": {"count": 0, "ns": 0},
    }
    nothing, once = {"count": 1, "ns": 0}, [{"count": 1, "ns": 1 * ns}, {"count": 1, "ns": 2 * ns}]
    assert told["batch_stats"] == [
        {"batch_size": 2, "compute_input": nothing, "compute_infer": once[0], "compute_output": nothing},
        {"batch_size": 6, "compute_input": nothing, "compute_infer": once[1], "compute_output": nothing},
    ]


@given(st.lists(batches(), max_size=20))
def test_statistics_equal_brute_force(seen: list[Batch]) -> None:
    statistics = Statistics()
    statistics.fold(seen, [])
    for model, version in {(b.model, b.version) for b in seen}:
        mine = [b for b in seen if (b.model, b.version) == (model, version)]
        told = statistics.of(model, version)
        stats = told["inference_stats"]
        assert stats["success"]["count"] + stats["fail"]["count"] == stats["queue"]["count"] == sum(len(b.arrived_s) for b in mine)
        total_s = sum(b.delivered_s - arrived_s for b in mine for arrived_s in b.arrived_s)
        assert stats["success"]["ns"] + stats["fail"]["ns"] == pytest.approx(total_s * 1e9, abs=10)
        assert sum(one["compute_infer"]["count"] for one in told["batch_stats"]) == told["execution_count"] == len(mine)


def test_the_last_inference_is_a_time_of_day() -> None:
    statistics = Statistics()
    now_s = time.perf_counter()
    statistics.fold([Batch("m", "1", "v", 1, (now_s,), now_s, now_s, now_s, 0)], [])
    assert abs(statistics.of("m", "1")["last_inference"] / 1e3 - time.time()) < 60


def test_tritons_client_reads_them() -> None:
    statistics = Statistics()
    statistics.fold([made()], [])
    body = json.dumps({"model_stats": [statistics.of("m", "1"), statistics.of("m", "9")]}).encode()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/v2/models/m/stats" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        client = triton.InferenceServerClient(f"127.0.0.1:{server.server_port}")
        told = client.get_inference_statistics("m")
        client.close()
        server.shutdown()
        serving.join()
    assert [one["inference_count"] for one in told["model_stats"]] == [1, 0]
    assert told["model_stats"][1]["last_inference"] == 0


def test_statistics_have_the_fields_of_tritons_message() -> None:
    service = pytest.importorskip("tritonclient.grpc.service_pb2")
    json_format = pytest.importorskip("google.protobuf.json_format")
    statistics = Statistics()
    statistics.fold([made(rows=3), made(failed=1)], [])
    message = json_format.ParseDict(statistics.of("m", "1"), service.ModelStatistics())
    assert (message.inference_count, message.execution_count) == (3, 2)
    assert [batch.batch_size for batch in message.batch_stats] == [1, 3]
    assert message.inference_stats.fail.ns == 10**9

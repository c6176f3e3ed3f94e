"""The server over real sockets: the field's own client, raw bytes, limits, overload, shutdown."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from command_line import headway
from headway.records import BundleError, InputError, Plan, Trace, from_json
from headway.serve import Limits, OpenBundle, Options, Ready, Settings, TlsFiles, default_queue_limit, serve
from serving import (
    SOURCE,
    Wire,
    affine_model,
    binary_body,
    binary_outputs,
    bundle,
    entry,
    json_body,
    lookup_model,
    process,
    request,
    running,
    slow_model,
)  # fmt: skip

INFER = "/v2/models/tiny/infer"
ONE = [1.0, 2.0, 3.0, 4.0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("http")


@pytest.fixture(scope="module")
def affine(folder: Path) -> OpenBundle:
    plan = Plan(runtime="onnx_runtime", max_batch=8, instances=2)
    return bundle(folder / "affine", entry(affine_model(folder / "m.onnx"), "affine-v", plan), labels=["a", "b<", "c", "d"])


@pytest.fixture(scope="module")
def lookup(folder: Path) -> OpenBundle:
    return bundle(folder / "lookup", entry(lookup_model(folder / "l.onnx"), plan=Plan(runtime="onnx_runtime", max_batch=16)))


@pytest.fixture(scope="module")
def slow(folder: Path) -> OpenBundle:
    return bundle(folder / "slow", entry(slow_model(folder / "s.onnx", 20_000), plan=Plan(runtime="onnx_runtime", max_batch=1)))


@pytest.fixture(scope="module")
def server(affine: OpenBundle) -> Iterator[Ready]:
    with running(affine, limits=Limits(head_bytes=4096, body_bytes=2**20, pipelined=4)) as ready:
        yield ready


@pytest.fixture
def wire(server: Ready) -> Iterator[Wire]:
    with Wire(server.port) as opened:
        yield opened


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


# --- the field's own client


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("version", ["", "1"])
def test_tritonclient_infers(server: Ready, binary: bool, version: str) -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    with triton.InferenceServerClient(f"{server.host}:{server.port}") as client:
        given = triton.InferInput("x", [2, 4], "FP32")
        given.set_data_from_numpy(x, binary_data=binary)
        wanted = [triton.InferRequestedOutput("y", binary_data=binary), triton.InferRequestedOutput("top", binary_data=not binary)]
        result = client.infer("tiny", [given], outputs=wanted, request_id="q1", model_version=version)
        np.testing.assert_array_equal(result.as_numpy("y"), x * 2 + 1)
        np.testing.assert_array_equal(result.as_numpy("top"), [3, 3])
        assert result.get_response()["id"] == "q1"
        assert client.infer("tiny", [given]).as_numpy("y").shape == (2, 4)


def test_tritonclient_sees_health_and_metadata(server: Ready) -> None:
    with triton.InferenceServerClient(f"{server.host}:{server.port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiny")
        assert client.is_model_ready("tiny", "1")
        assert not client.is_model_ready("other")
        about = client.get_server_metadata()
        assert about["models"] == ["tiny"]
        assert {"binary_tensor_data", "classification", "statistics", "model_repository"} <= set(about["extensions"])
        model = client.get_model_metadata("tiny")
        assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
        assert [output["name"] for output in model["outputs"]] == ["y", "top"]


def test_tritonclient_gets_errors_as_errors(server: Ready) -> None:
    with triton.InferenceServerClient(f"{server.host}:{server.port}") as client:
        given = triton.InferInput("x", [1, 5], "FP32")
        given.set_data_from_numpy(np.zeros((1, 5), np.float32))
        with pytest.raises(triton.InferenceServerException, match="shape must be"):
            client.infer("tiny", [given])


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_compresses_both_ways(server: Ready, coding: str, binary: bool) -> None:
    x = np.tile(np.arange(4, dtype=np.float32), (8, 1))
    with triton.InferenceServerClient(f"{server.host}:{server.port}") as client:
        given = triton.InferInput("x", [8, 4], "FP32")
        given.set_data_from_numpy(x, binary_data=binary)
        result = client.infer("tiny", [given], request_compression_algorithm=coding, response_compression_algorithm=coding)
        np.testing.assert_array_equal(result.as_numpy("y"), x * 2 + 1)


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_classifies(server: Ready, binary: bool) -> None:
    x = np.array([[1, 9, 3, 4], [5, 2, 3, 4]], np.float32)
    with triton.InferenceServerClient(f"{server.host}:{server.port}") as client:
        given = triton.InferInput("x", [2, 4], "FP32")
        given.set_data_from_numpy(x)
        result = client.infer("tiny", [given], outputs=[triton.InferRequestedOutput("y", binary_data=binary, class_count=2)])
        told = [[item.decode() if binary else item for item in row] for row in result.as_numpy("y").tolist()]
        assert told == [["19.000000:1:b<", "9.000000:3:d"], ["11.000000:0:a", "9.000000:3:d"]]
        with pytest.raises(triton.InferenceServerException, match="classification must be"):
            client.infer("tiny", [given], outputs=[triton.InferRequestedOutput("y", class_count=9)])


def test_tritonclient_sees_statistics_and_configuration(server: Ready) -> None:
    with triton.InferenceServerClient(f"{server.host}:{server.port}") as client:
        given = triton.InferInput("x", [1, 4], "FP32")
        given.set_data_from_numpy(np.zeros((1, 4), np.float32))
        before = client.get_inference_statistics("tiny")["model_stats"][0]
        client.infer("tiny", [given])
        after = client.get_inference_statistics("tiny", "1")["model_stats"][0]
        assert after["inference_count"] == before["inference_count"] + 1
        assert after["inference_stats"]["success"]["count"] == before["inference_stats"]["success"]["count"] + 1
        assert len(client.get_inference_statistics()["model_stats"]) == 1
        assert client.get_model_config("tiny")["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}]


# --- routes


def test_an_answer_names_the_variant(wire: Wire) -> None:
    wire.send(request(INFER, json_body(ONE)))
    status, headers, body = wire.answer()
    assert status == 200
    assert headers["headway-variant"] == "affine-v"
    assert headers["content-type"] == "application/json"
    assert json.loads(body)["outputs"] == [
        {"name": "y", "datatype": "FP32", "shape": [1, 4], "data": [3.0, 5.0, 7.0, 9.0]},
        {"name": "top", "datatype": "INT64", "shape": [1], "data": [3]},
    ]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2", 200), ("GET", "/v2/health/live", 200), ("GET", "/v2/health/ready", 200), ("GET", "/v2/models/tiny", 200),
        ("GET", "/v2/models/tiny/versions/1", 200), ("GET", "/v2/models/tiny/versions/1/ready", 200), ("GET", "/v2/models/t%69ny?x=1", 200),
        ("HEAD", "/v2", 200), ("GET", "/", 200), ("GET", "/metrics", 200),
        ("GET", "/docs", 200), ("GET", "/openapi.json", 200), ("GET", "/v2/headway/live", 200), ("GET", "http://h:1/v2?x", 200),
        ("GET", "/nothing", 404), ("POST", "/v2/models/other/infer", 404), ("POST", "/v2/models/tiny/versions/2/infer", 404),
        ("GET", INFER, 405), ("DELETE", "/v2", 405), ("POST", "/metrics", 405),
    ],
)  # fmt: skip
def test_routes(wire: Wire, method: str, path: str, status: int) -> None:
    wire.send(f"{method} {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    if method == "HEAD":
        wire.send(b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n")
        head = wire.socket.recv(4096)
        assert head.startswith(b"HTTP/1.1 200")
        assert b"extensions" not in head
        return
    got, headers, body = wire.answer()
    assert got == status
    if status >= 400:
        assert set(json.loads(body)) == {"error"}
    if status == 405:
        assert "allow" in headers


def test_the_page_says_what_is_served(server: Ready) -> None:
    status, page = get(server.url + "/")
    assert status == 200
    assert "affine-v" in page
    assert "FP32 [batch, 4]" in page
    assert "b&lt;" in page


def test_metrics_parse_and_count(affine: OpenBundle) -> None:
    with running(affine) as ready, Wire(ready.port) as wire:
        for _ in range(3):
            wire.send(request(INFER, json_body(ONE, ONE)))
            wire.answer()
        wire.send(request(INFER, b"{"))
        wire.answer()
        _, text = get(ready.url + "/metrics")
    samples = {(s.name, *sorted(s.labels.items())): s.value for family in text_string_to_metric_families(text) for s in family.samples}

    def seen(metric: str, **labels: str) -> float:
        return samples[f"headway_{metric}", *sorted(labels.items())]

    version = {"model": "tiny", "version": "1"}
    variant = {**version, "variant": "affine-v"}
    assert seen("requests_total", **variant, status="200") == 3
    assert seen("requests_total", **version, variant="", status="400") == 1
    assert seen("refusals_total", **version, reason="invalid") == 1
    assert seen("batch_rows_bucket", **variant, le="2") == 3
    assert seen("batch_rows_bucket", **variant, le="1") == 0
    assert seen("batch_rows_sum", **variant) == 6
    for name, labels in (("queue", version), ("service", variant), ("request", version)):
        assert seen(f"{name}_seconds_count", **labels) == 3
        assert seen(f"{name}_seconds_bucket", **labels, le="+Inf") == 3
        assert 0 < seen(f"{name}_seconds_sum", **labels) < 30
    assert seen("ready") == 1
    assert seen("in_flight", **version) == 0


# --- what a client can do wrong


@pytest.mark.parametrize(
    ("given", "status", "text"),
    [
        (request(INFER, b"{"), 400, "valid JSON"),
        (request(INFER), 400, "valid JSON"),
        (request(INFER, json_body([1.0] * 5)), 400, "shape must be"),
        (request(INFER, json_body(*[ONE] * 9)), 400, "at most 8 rows"),
        (request(INFER, json_body(ONE), "Inference-Header-Content-Length: 9999999\r\n"), 400, "within the body"),
        (request(INFER, json_body(ONE), "Inference-Header-Content-Length: -5\r\n"), 400, "a number of bytes"),
        (request(INFER, json_body(ONE), "Content-Encoding: gzip\r\n"), 400, "gzip"),
        (request(INFER, json_body(ONE), "Content-Encoding: br\r\n"), 415, "gzip"),
    ],
)
def test_a_refusal_leaves_the_connection_usable(wire: Wire, given: bytes, status: int, text: str) -> None:
    wire.send(given)
    got, _, body = wire.answer()
    assert got == status
    assert text in json.loads(body)["error"]
    wire.send(request(INFER, json_body(ONE)))
    assert wire.answer()[0] == 200


@pytest.mark.parametrize(
    ("given", "status", "text"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "valid HTTP"),
        (b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", 405, "method must be"),
        (b"GET / HTTP/9.9\r\n\r\n", 400, "valid HTTP"),
        (b"POST /v2 HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400, "valid HTTP"),
        (b"POST /v2 HTTP/1.1\r\nContent-Length: -5\r\n\r\n", 400, "valid HTTP"),
        (b"POST /v2 HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "valid HTTP"),
        (b"POST " + INFER.encode() + b" HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "valid HTTP"),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 431, "at most 4096 bytes"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 5000 + b"\r\n\r\n", 431, "at most 4096 bytes"),
        (b"POST /v2 HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\n\r\n", 413, "at most 1048576 bytes"),
        (
            b"POST /v2 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"80000\r\n" + bytes(2**19) + b"\r\n") * 3,
            413,
            "at most",
        ),
    ],
)
def test_what_cannot_be_read_on_is_answered_and_closed(wire: Wire, given: bytes, status: int, text: str) -> None:
    wire.send(given)
    got, headers, body = wire.answer()
    assert got == status
    assert headers["connection"] == "close"
    assert text in json.loads(body)["error"]
    assert wire.ended()


def test_headers_that_never_end_are_refused(wire: Wire) -> None:
    wire.send(b"GET / HTTP/1.1\r\nX: ")
    with pytest.raises((ConnectionError, AssertionError)):
        for _ in range(200):
            wire.send(b"a" * 1000)
            time.sleep(0.001)
        assert wire.answer()[0] != 431


def test_other_clients_are_not_affected_by_bad_ones(server: Ready) -> None:
    with Wire(server.port) as bad, Wire(server.port) as good:
        bad.send(b"POST " + INFER.encode() + b" HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
        good.send(request(INFER, json_body(ONE)))
        assert good.answer()[0] == 200
        bad.socket.close()
        good.send(request(INFER, json_body(ONE)))
        assert good.answer()[0] == 200


def test_slow_clients_are_told_and_closed(affine: OpenBundle) -> None:
    limits = Limits(head_timeout_s=0.3, body_timeout_s=0.6, idle_timeout_s=0.9)
    with running(affine, limits=limits) as ready, Wire(ready.port) as head, Wire(ready.port) as body, Wire(ready.port) as idle:
        head.send(b"GET / HT")
        body.send(b"POST " + INFER.encode() + b" HTTP/1.1\r\nContent-Length: 10\r\n\r\n{")
        assert head.answer()[0] == 408
        status, _, text = body.answer()
        assert (status, "body must arrive" in text.decode()) == (408, True)
        assert idle.ended()


def test_answers_left_unread_end_the_connection(affine: OpenBundle) -> None:
    with running(affine, limits=Limits(write_timeout_s=0.5, pipelined=10_000)) as ready, Wire(ready.port) as wire:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.socket.settimeout(5)
        with pytest.raises((ConnectionError, TimeoutError)):
            for _ in range(300):
                wire.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 100)
                time.sleep(0.01)
        assert get(ready.url + "/v2")[0] == 200


def test_too_many_connections_are_turned_away(affine: OpenBundle) -> None:
    with running(affine, limits=Limits(connections=2)) as ready, Wire(ready.port) as first, Wire(ready.port), Wire(ready.port) as third:
        status, headers, _ = third.answer()
        assert (status, headers["retry-after"]) == (503, "1")
        first.send(request(INFER, json_body(ONE)))
        assert first.answer()[0] == 200


def test_bodies_have_a_common_bound(affine: OpenBundle) -> None:
    with running(affine, limits=Limits(buffered_bytes=1000)) as ready, Wire(ready.port) as first, Wire(ready.port) as second:
        first.send(b"POST " + INFER.encode() + b" HTTP/1.1\r\nContent-Length: 800\r\n\r\n{")
        time.sleep(0.1)
        second.send(b"POST " + INFER.encode() + b" HTTP/1.1\r\nContent-Length: 800\r\n\r\n{")
        assert second.answer()[0] == 503
        first.socket.close()
        time.sleep(0.1)
        with Wire(ready.port) as third:
            third.send(request(INFER, json_body(ONE)))
            assert third.answer()[0] == 200


# --- HTTP itself


def test_pipelined_requests_are_answered_in_order(wire: Wire) -> None:
    kinds = [(n, n % 3) for n in range(40)]
    for n, kind in kinds:
        wire.send(
            [request(INFER, json_body([float(n)] * 4)), request("/v2", method="GET"), request(INFER, b"{")][kind],
        )
    for n, kind in kinds:
        status, _, body = wire.answer()
        answer = json.loads(body)
        if kind == 0:
            assert answer["outputs"][0]["data"] == [2.0 * n + 1] * 4
        else:
            assert (status, "name" in answer) == ((200, True) if kind == 1 else (400, False))


def test_byte_by_byte_is_a_request_too(wire: Wire) -> None:
    for byte in request(INFER, json_body(ONE)):
        wire.send(bytes([byte]))
    assert wire.answer()[0] == 200


def test_chunked_bodies_are_read(wire: Wire) -> None:
    body = json_body(ONE)
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:])) + b"0\r\n\r\n"
    wire.send(b"POST " + INFER.encode() + b" HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
    assert wire.answer()[0] == 200


def test_expect_continue_is_answered(wire: Wire) -> None:
    body = json_body(ONE)
    head = request(INFER, body, "Expect: 100-continue\r\n")[: -len(body)]
    wire.send(head)
    assert wire.answer()[0] == 100
    wire.send(body)
    assert wire.answer()[0] == 200


@pytest.mark.parametrize("head", ["HTTP/1.0\r\n", "HTTP/1.1\r\nConnection: close\r\n"])
def test_a_last_request_is_answered_and_the_connection_closed(wire: Wire, head: str) -> None:
    body = json_body(ONE)
    wire.send(f"POST {INFER} {head}Host: h\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    status, headers, _ = wire.answer()
    assert (status, headers["connection"]) == (200, "close")
    assert wire.ended()


def test_another_protocol_is_not_spoken_but_the_request_is_answered(wire: Wire) -> None:
    upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    wire.send(request(INFER, json_body(ONE), upgrade))
    assert wire.answer()[0] == 200
    wire.send(f"GET /v2 HTTP/1.1\r\nHost: h\r\n{upgrade}\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".encode())
    assert wire.answer()[0] == 200
    assert wire.answer()[0] == 400
    assert wire.ended()


def test_half_closed_clients_get_their_answers(slow: OpenBundle) -> None:
    with running(slow, deadline_s=60.0) as ready, Wire(ready.port) as wire:
        wire.send(request(INFER, json_body(ONE)) * 3)
        wire.socket.shutdown(socket.SHUT_WR)
        assert [wire.answer()[0] for _ in range(3)] == [200] * 3
        assert wire.ended()


# --- batches


def test_every_answer_belongs_to_its_request(server: Ready) -> None:
    def client(seed: int) -> int:
        rng = np.random.default_rng(seed)
        with Wire(server.port) as wire:
            for _ in range(60):
                x = rng.standard_normal((int(rng.integers(1, 9)), 4)).astype(np.float32)
                body, header = binary_body(x)
                wire.send(request(INFER, body, header))
                status, headers, answer = wire.answer()
                outputs = binary_outputs(headers, answer)
                assert status == 200
                np.testing.assert_array_equal(outputs["y"], x * 2 + 1)
                np.testing.assert_array_equal(outputs["top"], x.argmax(1))
        return 60

    with ThreadPoolExecutor(12) as pool:
        assert sum(pool.map(client, range(12))) == 720


def test_different_lengths_never_share_a_run_and_a_bad_row_fails_alone(lookup: OpenBundle) -> None:
    def client(seed: int) -> int:
        rng = np.random.default_rng(seed)
        with Wire(ready.port) as wire:
            for _ in range(30):
                ids = rng.integers(0, 10, (int(rng.integers(1, 4)), int(rng.integers(1, 4))))
                bad = rng.random() < 0.2
                if bad:
                    ids[0, 0] = 99
                body, header = binary_body(ids, "ids", "INT64")
                wire.send(request(INFER, body, header))
                status, headers, answer = wire.answer()
                if bad:
                    assert status == 500
                    assert "could not run" in json.loads(answer)["error"]
                else:
                    np.testing.assert_allclose(binary_outputs(headers, answer)["v"][:, 0], ids.mean(1), rtol=1e-6)
        return 30

    with running(lookup) as ready, ThreadPoolExecutor(12) as pool:
        assert sum(pool.map(client, range(12))) == 360


def test_a_full_queue_refuses_at_once(slow: OpenBundle) -> None:
    with running(slow, queue_limit=2) as ready, Wire(ready.port) as wire:
        wire.send(request(INFER, json_body(ONE)) * 20)
        answers = [wire.answer() for _ in range(20)]
        statuses = [status for status, _, _ in answers]
        assert set(statuses) == {200, 429}
        assert 2 <= statuses.count(200) < 20
        refused = next(answer for answer in answers if answer[0] == 429)
        assert refused[1]["retry-after"] == "1"
        assert "error" in json.loads(refused[2])
        wire.send(request(INFER, json_body(ONE)))
        assert wire.answer()[0] == 200


def test_the_queue_limit_follows_the_objective(folder: Path) -> None:
    path = affine_model(folder / "q.onnx")
    opened = bundle(folder / "q", entry(path, rate_per_s=500.0))
    assert default_queue_limit(opened, opened.manifest.variants[0]) == 100
    opened = bundle(folder / "q", entry(path))
    assert default_queue_limit(opened, opened.manifest.variants[0]) == 256


# --- token, TLS, trace, start


def test_a_token_guards_all_but_health(affine: OpenBundle) -> None:
    with running(affine, token="s3cret") as ready, Wire(ready.port) as wire:
        assert get(ready.url + "/v2/health/ready")[0] == 200
        assert get(ready.url + "/metrics")[0] == 401
        for header, status in (("", 401), ("Authorization: Bearer wrong\r\n", 401), ("Authorization: Bearer s3cret\r\n", 200)):
            wire.send(request(INFER, json_body(ONE), header))
            assert wire.answer()[0] == status


def test_tls(affine: OpenBundle, tmp_path: Path) -> None:
    cert, key = tmp_path / "c.pem", tmp_path / "k.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", cert,
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    trust = ssl.create_default_context(cafile=str(cert))
    with running(affine, tls=TlsFiles(cert, key)) as ready:
        assert ready.url.startswith("https://127.0.0.1:")
        asked = urllib.request.Request(ready.url + INFER, data=json_body(ONE))
        with urllib.request.urlopen(asked, timeout=10, context=trust) as answer:
            assert json.load(answer)["outputs"][1]["data"] == [3]
    with pytest.raises(InputError, match="PEM"):
        serve(affine, options=Options(port=0, tls=TlsFiles(key, cert)))
    with pytest.raises(InputError, match="PEM"):
        serve(affine, options=Options(port=0, tls=TlsFiles(tmp_path / "none", key)))


def test_the_trace_holds_times_and_rows_only(affine: OpenBundle, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    with running(affine, trace=path) as ready, Wire(ready.port) as wire:
        for rows in (1, 3, 2):
            wire.send(request(INFER, json_body(*[ONE] * rows)))
            wire.answer()
        wire.send(request(INFER, b"{"))
        wire.answer()
    trace = from_json(path.read_bytes(), Trace)
    assert trace.rows == (1, 3, 2)
    assert list(trace.arrivals_s) == sorted(trace.arrivals_s)
    assert set(json.loads(path.read_bytes())) == {"record", "start", "arrivals_s", "rows"}


@pytest.mark.parametrize(
    "options",
    [
        {"settings": Settings(queue_limit=0)},
        {"access_log": -1},
        {"trace": Path("/nowhere/trace.json")},
        {"token": ""},
        {"token": "a b"},
        {"host": "203.0.113.7"},
        {"host": "no such host"},
    ],
)
def test_what_cannot_be_served_is_one_sentence(affine: OpenBundle, options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        serve(affine, options=Options(**({"port": 0} | options)))


def test_a_port_in_use_is_one_sentence(affine: OpenBundle, server: Ready) -> None:
    with pytest.raises(InputError, match="must be free"):
        serve(affine, options=Options(port=server.port))


@pytest.mark.parametrize(
    "arguments", [["{bundle}", "--http", "127.0.0.1:{port}"], ["/nowhere"], ["{bundle}", "--http", "8000"], ["{bundle}", "--certfile", "x"]]
)
def test_the_command_says_what_it_needs(affine: OpenBundle, server: Ready, tmp_path: Path, arguments: list[str]) -> None:
    said = headway(["serve", *(text.format(bundle=affine.root, port=server.port) for text in arguments)], tmp_path, tmp_path)
    assert (said.code, said.out) == (2, "")
    assert said.err.count("error: ") == 1


def test_the_server_says_when_it_fell_back(folder: Path) -> None:
    opened = bundle(folder / "fall", entry(affine_model(folder / "f.onnx"), "first"), entry(affine_model(folder / "g.onnx"), "second"))
    opened.golden.outputs[0]["y"][:] += 5
    with running(opened) as ready, Wire(ready.port) as wire:
        assert ready.variant.variant.name == "second"
        assert "'first' is not served" in ready.notes[0]
        wire.send(request(INFER, json_body(ONE)))
        assert wire.answer()[1]["headway-variant"] == "second"
        assert "is not served" in get(ready.url + "/")[1]
    with pytest.raises(BundleError), running(opened, variant="first"):
        pass


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 400), st.binary(max_size=8), st.integers(0, 40))
def test_damaged_requests_harm_nobody(server: Ready, at: int, put: bytes, cut: int) -> None:
    body, header = binary_body(np.ones((1, 4), np.float32))
    whole = request(INFER, body, header)
    with Wire(server.port) as wire:
        wire.send(whole[:at] + put + whole[at + cut :])
        wire.socket.shutdown(socket.SHUT_WR)
        try:
            while True:
                assert wire.answer()[0] in {200, 400, 404, 405, 408, 413, 415, 431}
        except (EOFError, ConnectionError):
            pass
    with Wire(server.port) as wire:
        wire.send(whole)
        assert wire.answer()[0] == 200


def test_a_bundle_is_served_under_another_name(affine: OpenBundle) -> None:
    with running(affine, name="other") as ready, Wire(ready.port) as wire:
        wire.send(request("/v2/models/other/infer", json_body(ONE)))
        assert json.loads(wire.answer()[2])["model_name"] == "other"
    with pytest.raises(BundleError, match="the name must be"):
        serve(affine, options=Options(port=0), name="a/b")


def test_the_null_runtime_is_served_too(folder: Path) -> None:
    tensors = {
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["n", 4]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["n", 1]}],
    }
    (folder / "m.null.json").write_text(json.dumps({"tau0_s": 0.0, "alpha_s": 0.0, **tensors}))
    opened = bundle(folder / "null", entry(folder / "m.null.json", plan=Plan(runtime="null", max_batch=4)))
    with running(opened) as ready, Wire(ready.port) as wire:
        wire.send(request(INFER, json_body(ONE, ONE)))
        assert json.loads(wire.answer()[2])["outputs"][0]["data"] == [10.0, 10.0]


# --- the end


def test_sigterm_under_load_loses_nothing(folder: Path) -> None:
    opened = bundle(folder / "term", entry(slow_model(folder / "t.onnx", 3000), plan=Plan(runtime="onnx_runtime", max_batch=4)))
    clients = 32
    outcomes: list[list[str]] = [[] for _ in range(clients)]
    told = threading.Event()

    def client(number: int, port: int) -> None:
        x = float(number)
        while True:
            try:
                wire = Wire(port)
            except OSError:
                outcomes[number].append("not connected")
                return
            with wire:
                while True:
                    try:
                        wire.send(request(INFER, json_body([x] * 4)))
                        status, headers, body = wire.answer()
                    except (OSError, EOFError) as error:
                        outcomes[number].append(f"lost: {error!r}")
                        return
                    outcomes[number].append(str(status))
                    if status == 200:
                        assert json.loads(body)["outputs"][0]["data"] == [x + 3000] * 4
                    if told.is_set() and status == 503:
                        return
                    if headers.get("connection") == "close":
                        break

    with process("headway", "serve", "--json", str(opened.root), "--http", "127.0.0.1:0") as (child, line):
        threads = [threading.Thread(target=client, args=(number, line["port"])) for number in range(clients)]
        for thread in threads:
            thread.start()
        time.sleep(0.7)
        told.set()
        begun_s = time.monotonic()
        child.send_signal(signal.SIGTERM)
        assert child.wait(12) == 0
        assert time.monotonic() - begun_s < 10
        for thread in threads:
            thread.join(10)
    assert all(outcome.count("200") for outcome in outcomes)
    assert not [outcome for outcome in outcomes if any(each.startswith("lost") for each in outcome)]
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", line["port"]))


def test_while_draining_the_server_is_live_and_not_ready(slow: OpenBundle) -> None:
    with running(slow, deadline_s=60.0) as ready, Wire(ready.port) as busy, Wire(ready.port) as other:
        busy.send(request(INFER, json_body(ONE)) * 20)
        time.sleep(0.1)
        ready.stop()
        time.sleep(0.05)
        other.send(request("/v2/health/ready", method="GET"))
        assert other.answer()[0] == 503
        with Wire(ready.port) as late:
            late.send(request(INFER, json_body(ONE)))
            status, headers, _ = late.answer()
            assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
        assert [busy.answer()[0] for _ in range(20)] == [200] * 20


def test_what_cannot_be_finished_in_time_is_answered_503(folder: Path) -> None:
    slower = bundle(folder / "slower", entry(slow_model(folder / "slower.onnx", 300_000), plan=Plan(runtime="onnx_runtime", max_batch=1)))
    with running(slower, limits=Limits(drain_s=0.1), deadline_s=60.0) as ready, Wire(ready.port) as wire:
        wire.send(request(INFER, json_body(ONE)) * 30)
        time.sleep(0.2)
        ready.stop()
        statuses = [wire.answer()[0] for _ in range(30)]
        assert statuses == sorted(statuses)
        assert set(statuses) == {200, 503}


def test_an_idle_server_ends_at_once_on_sigint(affine: OpenBundle) -> None:
    with process("headway", "serve", "--json", str(affine.root), "--http", "127.0.0.1:0") as (child, line), Wire(line["port"]):
        assert line["variant"] == "affine-v"
        begun_s = time.monotonic()
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 0
        assert time.monotonic() - begun_s < 5


def test_serving_needs_only_the_base_install(affine: OpenBundle) -> None:
    heavy = ("onnx", "torch", "tensorflow", "scipy", "sklearn", "pandas", "fastapi", "psutil", "rich", "typer")
    code = f"import sys, headway.serve; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(SOURCE)}, check=True)
    assert done.stdout.strip() == "[]"


def test_a_server_in_a_program_leaves_its_loop_policy_alone(server: Ready) -> None:
    assert asyncio.run(asyncio.sleep(0, "fine")) == "fine"

"""Content codings: round trips, bounds, and everything that is not one whole stream."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tritonclient import http as triton

from headway.records import Plan
from headway.serve import Limits, Ready
from headway.serve.coding import OFFERED, SMALL_BYTES, choose, decode, decode_small, encode, worth_coding
from headway.serve.refusal import Refusal
from serving import Wire, affine_model, bundle, entry, json_body, request, running

MOST = 1 << 16
CODINGS = st.sampled_from(OFFERED)


def refusal(coding: bytes, body: bytes, most: int = MOST) -> Refusal:
    with pytest.raises(Refusal) as caught:
        decode(coding, body, most)
    return caught.value


@given(CODINGS, st.binary(max_size=5000))
def test_what_is_encoded_decodes_to_itself(coding: str, body: bytes) -> None:
    assert decode(coding.encode(), encode(coding, body), MOST) == body
    assert decode_small(coding.encode(), encode(coding, body)) == body


@given(st.binary(max_size=5000))
def test_the_standard_library_agrees(body: bytes) -> None:
    assert gzip.decompress(encode("gzip", body)) == body
    assert zlib.decompress(encode("deflate", body)) == body
    assert decode(b"gzip", gzip.compress(body), MOST) == body
    assert decode(b" X-GZIP ", gzip.compress(body), MOST) == body
    assert decode(b"deflate", zlib.compress(body), MOST) == body


@given(CODINGS, st.binary(max_size=500), st.data())
def test_a_stream_cut_anywhere_is_refused(coding: str, body: bytes, data: st.DataObject) -> None:
    coded = encode(coding, body)
    kept = data.draw(st.integers(0, len(coded) - 1))
    assert refusal(coding.encode(), coded[:kept]).status == 400


@given(CODINGS, st.binary(max_size=500), st.binary(min_size=1, max_size=100))
def test_what_follows_the_stream_is_refused(coding: str, body: bytes, more: bytes) -> None:
    assert refusal(coding.encode(), encode(coding, body) + more).status == 400


@given(CODINGS, st.binary(min_size=1, max_size=500), st.data())
def test_a_changed_byte_never_passes_for_another_body(coding: str, body: bytes, data: st.DataObject) -> None:
    coded = bytearray(encode(coding, body))
    at = data.draw(st.integers(0, len(coded) - 1))
    coded[at] ^= data.draw(st.integers(1, 255))
    try:
        decoded = decode(coding.encode(), bytes(coded), MOST)
    except Refusal as refused:
        assert refused.status in (400, 413)
    else:
        assert decoded == body  # a byte of gzip's header that means nothing here


@given(CODINGS, st.binary(max_size=300))
def test_the_bound_holds_to_the_byte(coding: str, body: bytes) -> None:
    coded = encode(coding, body)
    assert decode(coding.encode(), coded, len(body)) == body
    assume(body)
    assert refusal(coding.encode(), coded, len(body) - 1).status == 413


@given(st.binary(max_size=200))
def test_any_bytes_get_an_answer(body: bytes) -> None:
    for coding in (b"gzip", b"deflate"):
        try:
            assert len(decode(coding, body, MOST)) <= MOST
        except Refusal as refused:
            assert refused.status in (400, 413)


def test_a_bomb_takes_no_more_memory_than_the_bound() -> None:
    bomb = zlib.compress(bytes(64 << 20), 9, 31)
    assert len(bomb) < 70_000
    tracemalloc.start()
    try:
        assert refusal(b"gzip", bomb, 1 << 20).status == 413
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4 << 20


def test_raw_deflate_and_dictionaries_are_refused() -> None:
    assert refusal(b"deflate", zlib.compress(b"text" * 50, wbits=-15)).status == 400
    packer = zlib.compressobj(zdict=b"text")
    assert refusal(b"deflate", packer.compress(b"text") + packer.flush()).status == 400


def test_a_second_member_is_refused() -> None:
    assert refusal(b"gzip", gzip.compress(b"one") + gzip.compress(b"two")).status == 400


@pytest.mark.parametrize("coding", [b"br", b"zstd", b"compress", b"gzip, deflate", b"*", b"\xff"])
def test_other_codings_are_refused_with_what_is_offered(coding: bytes) -> None:
    for call in (lambda: decode(coding, b"", MOST), lambda: decode_small(coding, b"")):
        with pytest.raises(Refusal) as caught:
            call()
        assert caught.value.status == 415
        assert caught.value.headers == "accept-encoding: gzip, deflate\r\n"


def test_no_coding_leaves_the_body_as_it_is() -> None:
    body = b"as it is"
    assert decode(b"identity", body, 1) is body
    assert decode(b"", body, 1) is body
    assert decode_small(b"Identity", body) is body


def test_large_bodies_are_left_to_another_thread() -> None:
    assert decode_small(b"gzip", encode("gzip", bytes(SMALL_BYTES))) == bytes(SMALL_BYTES)
    assert decode_small(b"gzip", encode("gzip", bytes(SMALL_BYTES + 1))) is None
    assert decode_small(b"gzip", bytes(SMALL_BYTES + 1)) is None


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        (b"gzip", "gzip"), (b"deflate", "deflate"), (b"GZip", "gzip"), (b"x-gzip", "gzip"), (b"gzip, deflate", "gzip"), (b"deflate, gzip", "gzip"),
        (b"gzip, deflate, br, zstd", "gzip"), (b"br", None), (b"", None), (b"identity", None), (b"*", "gzip"),
        (b"gzip;q=0", None), (b"gzip;q=0.5, deflate;q=0.8", "deflate"), (b"gzip; q=0, *", "deflate"), (b"gzip;q=0, deflate;q=0", None),
        (b"*;q=0", None), (b"gzip, *;q=0", "gzip"), (b"identity;q=0", None), (b"identity;q=0, deflate", "deflate"), (b"identity;q=0, *;q=0.1", "gzip"),
        (b"identity;q=1, gzip;q=0.5", None), (b"identity;q=0.5, gzip;q=1.0", "gzip"), (b"gzip;q=0.001", "gzip"), (b"identity;q=0.5, gzip;q=0.5", "gzip"),
        (b"gzip;q=high", None), (b"gzip;q=2", None), (b"gzip;q=nan", None), (b";q=1,,", None), (b"\xff\xfe", None), (b"gzip," + b" " * 300, None),
    ],
)  # fmt: skip
def test_the_clients_weights_decide(accept: bytes, coding: str | None) -> None:
    assert choose(accept) == coding


@given(st.binary(max_size=300))
def test_any_header_is_understood_somehow(accept: bytes) -> None:
    assert choose(accept) in (*OFFERED, None)


def test_noise_and_short_answers_are_not_worth_coding() -> None:
    noise = np.random.default_rng(0).standard_normal(4096)
    assert not worth_coding(b'{"outputs": []}' * 4)
    assert not worth_coding(b" " * 5000 + noise.astype(np.float32).tobytes())
    assert worth_coding(json.dumps(noise.round(6).tolist()).encode())
    assert worth_coding(np.arange(500).tobytes())


# --- through a server

INFER = "/v2/models/tiny/infer"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ready]:
    folder = tmp_path_factory.mktemp("coding")
    plan = Plan(runtime="onnx_runtime", max_batch=512)
    opened = bundle(folder / "b", entry(affine_model(folder / "m.onnx"), plan=plan))
    with running(opened, limits=Limits(body_bytes=1 << 20, json_bytes=1 << 20)) as ready:
        yield ready


@pytest.mark.parametrize("asked", OFFERED)
@pytest.mark.parametrize("sent", OFFERED)
@pytest.mark.parametrize("binary", [False, True])
def test_tritons_client_talks_compressed(server: Ready, sent: str, asked: str, binary: bool) -> None:
    rows = np.arange(2000, dtype=np.float32).reshape(500, 4)
    given = triton.InferInput("x", rows.shape, "FP32")
    given.set_data_from_numpy(rows, binary_data=binary)
    client = triton.InferenceServerClient(f"{server.host}:{server.port}")
    wanted = triton.InferRequestedOutput("y", binary_data=binary)
    got = client.infer("tiny", [given], outputs=[wanted], request_compression_algorithm=sent, response_compression_algorithm=asked)
    client.close()
    assert (got.as_numpy("y") == 2 * rows + 1).all()


def test_an_answer_is_coded_when_it_is_asked_for_and_worth_it(server: Ready) -> None:
    body = json_body(*[[1.0, 2.0, 3.0, 4.0]] * 300)
    with Wire(server.port) as wire:
        answers = []
        for accept in ("", "Accept-Encoding: gzip\r\n", "Accept-Encoding: gzip;q=0\r\n"):
            wire.send(request(INFER, body, accept))
            answers.append(wire.answer())
        wire.send(request(INFER, json_body([1, 2, 3, 4]), "Accept-Encoding: gzip\r\n"))
        small = wire.answer()
    (_, plain, as_it_is), (status, headers, coded), (_, refused, as_it_is_too) = answers
    assert status == 200
    assert headers["content-encoding"] == "gzip"
    assert headers["vary"] == "accept-encoding"
    assert gzip.decompress(coded) == as_it_is == as_it_is_too
    assert not any("content-encoding" in given for given in (plain, refused, small[1]))


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("gzip", zlib.compress(bytes(64 << 20), 9, 31), 413),
        ("gzip", gzip.compress(json_body([1, 2, 3, 4]))[:-1], 400),
        ("gzip", gzip.compress(json_body([1, 2, 3, 4])) + b"x", 400),
        ("deflate", gzip.compress(json_body([1, 2, 3, 4])), 400),
        ("br", b"", 415),
        ("GZip", gzip.compress(json_body([1, 2, 3, 4])), 200),
    ],
)
def test_a_server_survives_every_body(server: Ready, coding: str, body: bytes, status: int) -> None:
    with Wire(server.port) as wire:
        wire.send(request(INFER, body, f"Content-Encoding: {coding}\r\n"))
        assert wire.answer()[0] == status
        wire.send(request(INFER, json_body([1, 2, 3, 4])))
        assert wire.answer()[0] == 200

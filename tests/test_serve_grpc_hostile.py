"""What bad and rude gRPC clients may do: every message gets a code and a sentence, and the server goes on."""

from __future__ import annotations

import gzip
import random
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.protocol.messages import METHODS, SERVICE, InferRequest, InferResponse, StreamResponse
from headway.records import Plan, TensorSpec
from headway.serve.call import Call, Wanted
from headway.serve.fronts._grpc_codes import code
from headway.serve.fronts._grpc_infer import GrpcForm, in_stream, parse, taken
from headway.serve.limits import Limits
from headway.serve.options import TlsFiles
from headway.serve.refusal import Refusal
from headway.serve.wire import Signature
from serving import affine_model, bundle, entry, running, slow_model

ANYWHERE = ("127.0.0.1", 0)
LIMITS = Limits(body_bytes=2**20, json_bytes=2**16)
Code = grpc.StatusCode


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    folder = tmp_path_factory.mktemp("served")
    slow = bundle(folder / "s", entry(slow_model(folder / "s.onnx", 30_000)), name="slow")
    fast = bundle(folder / "a", entry(affine_model(folder / "a.onnx")))
    with (
        running(fast, slow, grpc=ANYWHERE, limits=LIMITS, deadline_s=30.0) as told,
        grpc.insecure_channel(f"127.0.0.1:{told.grpc_port}") as made,
    ):
        yield made


def ask(channel: grpc.Channel, body: bytes, method: str = "ModelInfer", **more: Any) -> tuple[Code, str]:
    """The code of a call and its sentence."""
    try:
        channel.unary_unary(f"/{SERVICE}/{method}")(body, **{"timeout": 10, **more})
    except grpc.RpcError as error:
        return error.code(), error.details()
    return Code.OK, ""


def good(name: str = "tiny") -> Any:
    inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 4]}]
    return InferRequest(model_name=name, inputs=inputs, raw_input_contents=[np.ones(4, np.float32).tobytes()])


def changed(**tensor: Any) -> Any:
    request = good()
    request.inputs[0].MergeFrom(type(request.inputs[0])(**tensor))
    return request


def bad() -> Iterator[tuple[str, bytes, Code, str]]:
    request = good()
    request.raw_input_contents[0] = b"short"
    yield "lying length", request.SerializeToString(), Code.INVALID_ARGUMENT, "raw contents must be 16 bytes"
    request = good()
    request.raw_input_contents.append(b"")
    yield "too many buffers", request.SerializeToString(), Code.INVALID_ARGUMENT, "one buffer for each input"
    request = good()
    del request.inputs[0].shape[:]
    request.inputs[0].shape.extend([10**9, 4])
    yield "huge shape", request.SerializeToString(), Code.INVALID_ARGUMENT, "at most"
    request.inputs[0].shape[:] = [-1, 4]
    yield "negative shape", request.SerializeToString(), Code.INVALID_ARGUMENT, "at least 1"
    yield "wrong datatype", changed(datatype="INT8").SerializeToString(), Code.INVALID_ARGUMENT, "datatype must be FP32"
    yield "wrong name", changed(name="no").SerializeToString(), Code.INVALID_ARGUMENT, "input names must be among"
    yield "no model", good("none").SerializeToString(), Code.NOT_FOUND, "the model must be one of"
    yield "both contents", changed(contents={"fp32_contents": [1]}).SerializeToString(), Code.INVALID_ARGUMENT, "got both"
    request = changed(contents={"int_contents": [1, 2, 3, 4]})
    del request.raw_input_contents[:]
    yield "contents of another type", request.SerializeToString(), Code.INVALID_ARGUMENT, "must come as fp32_contents"
    request = good()
    request.parameters["sequence_id"].int64_param = 4
    yield "a sequence", request.SerializeToString(), Code.INVALID_ARGUMENT, "sequence_id must be left out"
    request = good()
    request.inputs[0].parameters["shared_memory_region"].string_param = "r"
    yield "shared memory", request.SerializeToString(), Code.INVALID_ARGUMENT, "not offered"
    yield "cut off", good().SerializeToString()[:-3], Code.INVALID_ARGUMENT, "must be a ModelInferRequest"
    yield "many tensors", b"\x2a\x00" * 2**16, Code.INVALID_ARGUMENT, "at most 4096 fields"
    yield "large text", b"\x0a\x80\x80\x08" + b"m" * 2**17, Code.RESOURCE_EXHAUSTED, "all but raw contents"
    yield "too large", good().SerializeToString() + b"\x3a\x80\x80\x80\x01" + bytes(2**21), Code.RESOURCE_EXHAUSTED, "larger than max"
    yield "nothing", b"", Code.NOT_FOUND, "the model must be one of"


@pytest.mark.parametrize(("body", "wanted", "sentence"), [pytest.param(*case, id=name) for name, *case in bad()])
def test_a_bad_message_gets_a_code_and_a_sentence(channel: grpc.Channel, body: bytes, wanted: Code, sentence: str) -> None:
    got, details = ask(channel, body)
    assert got == wanted
    assert sentence in details
    assert ask(channel, good().SerializeToString()) == (Code.OK, "")


def test_random_messages_never_fail_the_server(channel: grpc.Channel) -> None:
    chance = random.Random(0)
    start = good().SerializeToString()
    for round_ in range(300):
        body = bytearray(start)
        for _ in range(1 + round_ % 6):
            body[chance.randrange(len(body))] = chance.randrange(256)
        method = chance.choice([name for name, about in METHODS.items() if not about.streams and "Repository" not in name])
        for sent in (bytes(body), chance.randbytes(chance.randrange(64))):
            assert ask(channel, sent, method)[0] in (Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND)
    assert ask(channel, good().SerializeToString()) == (Code.OK, "")


def test_a_compressed_message_may_not_unpack_to_more_than_the_limit(channel: grpc.Channel) -> None:
    body = good().SerializeToString()
    assert ask(channel, body, compression=grpc.Compression.Gzip) == (Code.OK, "")
    bomb = body + b"\x3a\x80\x80\x80\x08" + bytes(2**24)
    assert len(gzip.compress(bomb)) < LIMITS.body_bytes < len(bomb)
    assert ask(channel, bomb, compression=grpc.Compression.Gzip)[0] == Code.RESOURCE_EXHAUSTED


def test_calls_with_a_deadline_that_cannot_be_kept_end_and_leave_nothing_behind(channel: grpc.Channel) -> None:
    body = good("slow").SerializeToString()
    assert ask(channel, body, timeout=0.001)[0] in (Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED)
    request = good("slow")
    request.parameters["timeout"].int64_param = 1
    assert ask(channel, request.SerializeToString())[0] in (Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED)
    assert ask(channel, body) == (Code.OK, "")


def test_cancelled_calls_leave_nothing_behind(channel: grpc.Channel) -> None:
    body = good("slow").SerializeToString()
    calls = [channel.unary_unary(f"/{SERVICE}/ModelInfer").future(body, timeout=10) for _ in range(8)]
    for call in calls:
        call.cancel()
    assert all(call.cancelled() or call.done() for call in calls)
    assert ask(channel, body) == (Code.OK, "")


def test_a_stream_that_ends_early_leaves_nothing_behind(channel: grpc.Channel) -> None:
    stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(iter([good("slow").SerializeToString()] * 100), timeout=10)
    next(stream)
    stream.cancel()
    answers = list(channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(iter([b"\xff", good().SerializeToString()]), timeout=10))
    told = [StreamResponse.FromString(answer) for answer in answers]
    assert {bool(one.error_message) for one in told} == {True, False}


def test_a_client_that_does_not_read_its_answers_loses_its_stream(tmp_path: Path) -> None:
    opened = bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx"), plan=Plan(runtime="onnx_runtime", max_batch=8192)))
    with (
        running(opened, grpc=ANYWHERE, limits=Limits(write_timeout_s=0.2), deadline_s=30.0) as told,
        grpc.insecure_channel(f"127.0.0.1:{told.grpc_port}", [("grpc.max_receive_message_length", -1)]) as channel,
    ):
        inputs = [{"name": "x", "datatype": "FP32", "shape": [8192, 4]}]
        large = InferRequest(model_name="tiny", inputs=inputs, raw_input_contents=[bytes(2**17)]).SerializeToString()
        stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(iter([large] * 400), timeout=20)
        time.sleep(1.0)
        with pytest.raises(grpc.RpcError):
            list(stream)
        assert stream.code() == Code.DEADLINE_EXCEEDED
        assert "answers must be read within" in stream.details()
        assert ask(channel, good().SerializeToString()) == (Code.OK, "")


def test_an_unknown_method_is_not_implemented(channel: grpc.Channel) -> None:
    assert ask(channel, b"", "SystemSharedMemoryRegister")[0] == Code.UNIMPLEMENTED


def test_changing_the_repository_needs_to_be_allowed(channel: grpc.Channel) -> None:
    assert ask(channel, b"", "RepositoryModelUnload")[0] == Code.PERMISSION_DENIED


def test_a_token_guards_all_but_health(tmp_path: Path) -> None:
    opened = bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx")))
    with running(opened, grpc=ANYWHERE, token="secret") as told, grpc.insecure_channel(f"127.0.0.1:{told.grpc_port}") as channel:
        body = good().SerializeToString()
        assert ask(channel, b"", "ServerLive")[0] == ask(channel, b"", "ServerReady")[0] == Code.OK
        for metadata in ((), (("authorization", "Bearer wrong"),), (("authorization", "secret"),)):
            assert ask(channel, body, metadata=metadata)[0] == Code.UNAUTHENTICATED
            assert ask(channel, b"", "ServerMetadata", metadata=metadata)[0] == Code.UNAUTHENTICATED
        assert ask(channel, body, metadata=(("authorization", "Bearer secret"),))[0] == Code.OK


def test_tls_is_spoken_with_the_servers_own_certificate(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out",
         certificate, "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    opened = bundle(tmp_path / "b", entry(affine_model(tmp_path / "m.onnx")))
    with running(opened, grpc=ANYWHERE, tls=TlsFiles(certificate, key)) as told:
        trusted = grpc.ssl_channel_credentials(certificate.read_bytes())
        with grpc.secure_channel(f"127.0.0.1:{told.grpc_port}", trusted) as channel:
            assert ask(channel, good().SerializeToString())[0] == Code.OK
        with grpc.insecure_channel(f"127.0.0.1:{told.grpc_port}") as channel:
            assert ask(channel, good().SerializeToString())[0] == Code.UNAVAILABLE


def test_300_calls_of_one_channel_are_all_answered(channel: grpc.Channel) -> None:
    body = good().SerializeToString()
    with ThreadPoolExecutor(32) as pool:
        assert set(pool.map(lambda _: ask(channel, body)[0], range(300))) == {Code.OK}


# --- without a socket


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_any_bytes_are_a_request_or_refused(body: bytes) -> None:
    for limits in (Limits(), Limits(json_bytes=1)):
        try:
            request, raw = taken(parse(body, limits))
        except Refusal as refusal:
            assert refusal.status in (400, 413)
        else:
            assert len(raw) == len(request["inputs"]) or raw


@given(st.lists(st.binary(max_size=40), max_size=5), st.text(max_size=20))
def test_what_is_beside_raw_contents_is_counted_exactly(raw: list[bytes], name: str) -> None:
    body = InferRequest(model_name=name, raw_input_contents=raw).SerializeToString()
    beside = len(body) - sum(map(len, raw))
    if body:
        assert parse(body, Limits(json_bytes=beside)).model_name == name
    if beside:
        with pytest.raises(Refusal, match="all but raw contents"):
            parse(body, Limits(json_bytes=beside - 1))


FIELDS = {
    "bool": "bool",
    "int8": "int",
    "int32": "int",
    "int64": "int64",
    "uint8": "uint",
    "uint64": "uint64",
    "float32": "fp32",
    "float64": "fp64",
}


@pytest.mark.parametrize("dtype", FIELDS)
def test_typed_contents_of_every_type_arrive_exactly(dtype: str) -> None:
    signature = Signature(
        [TensorSpec(name="x", dtype=dtype, shape=("n", 3))],
        [TensorSpec(name="y", dtype=dtype, shape=("n", 3))],
        max_batch=8,
        limits=Limits(),
    )
    values = np.array([[0, 1, 1]], dtype)
    kind = {"bool": "BOOL", "float32": "FP32", "float64": "FP64"}.get(dtype, dtype.upper())
    tensor = {"name": "x", "datatype": kind, "shape": [1, 3], "contents": {f"{FIELDS[dtype]}_contents": values.ravel().tolist()}}
    call = signature.take(*taken(InferRequest(inputs=[tensor])))
    np.testing.assert_array_equal(call.feeds["x"], values)


def test_typed_contents_out_of_range_are_refused() -> None:
    tensor = {"name": "x", "datatype": "INT8", "shape": [1, 1], "contents": {"int_contents": [128]}}
    with pytest.raises(Refusal, match="out of its range"):
        taken(InferRequest(inputs=[tensor]))


@given(st.integers(0, 300), st.text(max_size=300))
def test_a_response_is_written_as_protobuf_would(count: int, name: str) -> None:
    array = np.arange(count, dtype=np.float32)
    form = GrpcForm("m", "2", ())
    call = Call({}, 1, None, (Wanted("y"),), name)
    for _ in range(2):
        made = InferResponse.FromString(form.answer(call, [(Wanted("y"), array)], "v"))
        assert made.raw_output_contents[0] == array.tobytes()
        assert (made.model_name, made.model_version, made.id, list(made.outputs[0].shape)) == ("m", "2", name, [count])
    streamed = StreamResponse.FromString(in_stream(form.answer(call, [(Wanted("y"), array)], "v"), name))
    assert streamed.infer_response.id == name
    assert set(streamed.infer_response.parameters) == {"headway-variant", "triton_final_response"}


def test_every_refusal_has_the_code_of_its_reason() -> None:
    assert code(Refusal(429, "late", "")) == Code.DEADLINE_EXCEEDED
    assert code(Refusal(429, "deadline", "")) == Code.RESOURCE_EXHAUSTED
    assert code(Refusal(503, "draining", "")) == Code.UNAVAILABLE
    assert code(Refusal(500, "internal", "")) == code(Refusal(418, "?", "")) == Code.INTERNAL

"""Requests are read exactly, or refused with a sentence, before any array of a wrong size exists."""

from __future__ import annotations

import gzip
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from headway.protocol.datatypes import DATATYPES
from headway.records import TensorSpec, Unsupported
from headway.serve.answer import HttpForm
from headway.serve.call import Call, Wanted
from headway.serve.limits import Limits
from headway.serve.refusal import Refusal
from headway.serve.wire import Signature, batchable, datatype

X = TensorSpec(name="x", dtype="float32", shape=("batch", 4))
Y = TensorSpec(name="y", dtype="float32", shape=("batch", 2))
IDS = TensorSpec(name="ids", dtype="int64", shape=("batch", "length"))
MASK = TensorSpec(name="mask", dtype="bool", shape=("batch", "length"))
ONE = [[1.0, 2.0, 3.0, 4.0]]


def signature(*inputs: TensorSpec, max_batch: int = 8, **limits: Any) -> Signature:
    return Signature(inputs or (X,), (Y,), max_batch=max_batch, limits=Limits(**limits))


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": ONE} | changes


def body(*tensors: Any, **more: Any) -> bytes:
    return json.dumps({"inputs": list(tensors), **more}).encode()


def binary(spec: TensorSpec, array: np.ndarray, size: Any = None) -> tuple[bytes, int]:
    given_size = array.nbytes if size is None else size
    head = body(
        {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": list(array.shape), "parameters": {"binary_data_size": given_size}}
    )
    return head + array.tobytes(), len(head)


def refused(text: str, given: bytes, head_bytes: int | None = None, on: Signature | None = None, status: int = 400) -> None:
    with pytest.raises(Refusal, match=text) as caught:
        (on or signature()).read(given, head_bytes)
    assert caught.value.status == status


def test_json_nested_and_flat_are_the_same() -> None:
    nested = signature().read(body(tensor(shape=[2, 4], data=[ONE[0], ONE[0]])))
    flat = signature().read(body(tensor(shape=[2, 4], data=ONE[0] * 2)))
    np.testing.assert_array_equal(nested.feeds["x"], flat.feeds["x"])
    assert nested.feeds["x"].dtype == np.float32
    assert nested.rows == 2
    assert nested.wanted == (Wanted("y"),)


def test_integers_are_numbers_too() -> None:
    assert signature().read(body(tensor(data=[1, 2, 3, 4]))).feeds["x"].tolist() == ONE


@given(arrays(np.float32, (3, 4), elements=st.floats(width=32, allow_nan=True)))
def test_binary_floats_come_through_bit_by_bit(array: np.ndarray) -> None:
    call = signature().read(*binary(X, array))
    assert call.feeds["x"].tobytes() == array.tobytes()
    assert call.rows == 3


@given(st.sampled_from(sorted(DATATYPES)), st.data())
def test_every_datatype_comes_through_as_json_and_as_binary(dtype: str, data: st.DataObject) -> None:
    elements = st.floats(width=16, allow_nan=False, allow_infinity=False) if dtype.startswith("float") else None
    array = data.draw(arrays(np.dtype(dtype), (2, 3), elements=elements))
    if dtype == "uint64":
        array %= 2**62
    spec = TensorSpec(name="x", dtype=dtype, shape=("batch", 3))
    as_json = {"name": "x", "datatype": DATATYPES[dtype], "shape": [2, 3], "data": array.tolist()}
    for call in (signature(spec).read(body(as_json)), signature(spec).read(*binary(spec, array))):
        assert call.feeds["x"].dtype == array.dtype
        np.testing.assert_array_equal(call.feeds["x"], array)


def test_two_binary_inputs_lie_one_after_another() -> None:
    ids, mask = np.arange(6).reshape(2, 3), np.array([[True, False, True]] * 2)
    tensors = [
        {"name": name, "datatype": kind, "shape": [2, 3], "parameters": {"binary_data_size": array.nbytes}}
        for name, kind, array in (("mask", "BOOL", mask), ("ids", "INT64", ids))
    ]
    head = body(*tensors)
    call = signature(IDS, MASK).read(head + mask.tobytes() + ids.tobytes(), len(head))
    np.testing.assert_array_equal(call.feeds["ids"], ids)
    np.testing.assert_array_equal(call.feeds["mask"], mask)
    assert call.shapes == ((3,), (3,))


def test_calls_with_fixed_sizes_have_no_shapes_to_compare() -> None:
    assert signature().read(body(tensor())).shapes is None


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("valid JSON", b""),
        ("valid JSON", b"{"),
        ("valid JSON", b"\xff\xfe"),
        ("valid JSON .*NaN", b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [NaN, 1, 2, 3]}]}'),
        ("a JSON object, got a list", b"[]"),
        ("inputs must be a list of tensors, got nothing", b"{}"),
        ("inputs must be a list", b'{"inputs": {}}'),
        ("missing \\['x'\\]", b'{"inputs": []}'),
        ("each input must be an object", b'{"inputs": [1]}'),
        ("names must be among \\['x'\\], got 'z'", body(tensor(name="z"))),
        ("names must be among", body(tensor(name=[]))),
        ("'x' twice", body(tensor(), tensor())),
        ("datatype must be FP32, got 'FP64'", body(tensor(datatype="FP64"))),
        ("datatype must be FP32, got None", b'{"inputs": [{"name": "x"}]}'),
        ("shape must be \\[batch, 4\\], got \\[4\\]", body(tensor(shape=[4]))),
        ("shape must be \\[batch, 4\\], got \\[1, 5\\]", body(tensor(shape=[1, 5]))),
        ("shape must be", body(tensor(shape="1,4"))),
        ("at least 1, got \\[0, 4\\]", body(tensor(shape=[0, 4]))),
        ("at least 1, got \\[-1, 4\\]", body(tensor(shape=[-1, 4]))),
        ("at least 1, got \\[True, 4\\]", body(tensor(shape=[True, 4]))),
        ("at least 1, got \\[1.0, 4\\]", body(tensor(shape=[1.0, 4]))),
        ("at most 67108864 elements", body(tensor(shape=[1_000_000_000, 4]))),
        ("at most 8 rows, got 9", body(tensor(shape=[9, 4], data=[0] * 36))),
        ("data must be a list", body(tensor(data=None))),
        ("data must be a list .*got text", body(tensor(data="1234"))),
        ("lists of unequal length", body(tensor(data=[[1, 2], [3]]))),
        ("must fill shape \\[1, 4\\], got \\[3\\]", body(tensor(data=[1, 2, 3]))),
        ("must fill shape", body(tensor(data=[[1], [2], [3], [4]]))),
        ("got null", body(tensor(data=[None, 1, 2, 3]))),
        ("got text", body(tensor(data=["1", "2", "3", "4"]))),
        ("got true or false", body(tensor(data=[True, True, False, True]))),
        ("out of its range", body(tensor(data=[1e300, 1, 2, 3]))),
        ("binary_data_size must be an integer, with the header", body(tensor(parameters={"binary_data_size": 16}))),
        ("classification must be the number", body(tensor(), outputs=[{"name": "y", "parameters": {"classification": -1}}])),
        ("keeps nothing between requests", body(tensor(), parameters={"sequence_id": 7, "sequence_start": True})),
        ("timeout must be a number of microseconds", body(tensor(), parameters={"timeout": 1.5})),
        ("priority must be an integer", body(tensor(), parameters={"priority": True})),
        ("'shared_memory_region' is not offered", body(tensor(parameters={"shared_memory_region": "r"}))),
        ("names among \\['y'\\], each once, got 'z'", body(tensor(), outputs=[{"name": "z"}])),
        ("each once, got 'y'", body(tensor(), outputs=[{"name": "y"}, {"name": "y"}])),
        ("outputs must be a list", body(tensor(), outputs=5)),
        ("outputs must be objects", body(tensor(), outputs=["y"])),
        ("id must be a string", body(tensor(), id=5)),
        ("parameters must be an object", body(tensor(), parameters=[1])),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused_with_a_sentence(text: str, given: bytes) -> None:
    refused(text, given)


@pytest.mark.parametrize(
    ("data", "text"),
    [([0.5, 1], "got fractions"), ([2**31, 0], "out of its range"), ([2**70, 0], "out of its range|fractions|too large")],
)
def test_integers_are_never_rounded_or_wrapped(data: list[Any], text: str) -> None:
    spec = TensorSpec(name="x", dtype="int32", shape=("batch", 2))
    refused(text, body(tensor(datatype="INT32", shape=[1, 2], data=data)), on=signature(spec))


def test_lying_lengths_are_refused() -> None:
    array = np.ones((2, 4), np.float32)
    given, head = binary(X, array)
    refused("32 bytes were announced, got 28", given[:-4], head)
    refused("4 bytes beyond", given + b"\0\0\0\0", head)
    refused("within the body", given, len(given) + 1)
    refused("within the body", given, -1)
    refused("valid JSON", given, head - 1)
    refused("valid JSON", given, 0)
    refused("binary_data_size must be 32 for \\[2, 4\\], got 28", *binary(X, array, size=28))
    refused("binary_data_size must be 32", *binary(X, array, size=-32))
    refused("must be an integer", *binary(X, array, size="32"))


def test_data_and_binary_data_size_together_are_refused() -> None:
    given = body(tensor(parameters={"binary_data_size": 16}))
    refused("without data", given + bytes(16), len(given))


def test_a_boolean_byte_is_0_or_1() -> None:
    spec = TensorSpec(name="x", dtype="bool", shape=("batch", 4))
    given, head = binary(spec, np.ones((1, 4), bool))
    refused("0 or 1", given[:-1] + b"\x02", head, on=signature(spec))


def test_equal_names_mean_equal_sizes() -> None:
    ids = {"name": "ids", "datatype": "INT64", "shape": [1, 3], "data": [1, 2, 3]}
    mask = {"name": "mask", "datatype": "BOOL", "shape": [1, 2], "data": [True, False]}
    refused("length must be 3 as in the inputs before it", body(ids, mask), on=signature(IDS, MASK))


def test_json_has_a_limit_of_its_own() -> None:
    refused("send binary tensors", body(tensor()), on=signature(json_bytes=10), status=413)


def test_a_fixed_first_dimension_counts_as_one_row() -> None:
    spec = TensorSpec(name="x", dtype="float32", shape=(2, 4))
    only = Signature((spec,), (Y,), max_batch=1, limits=Limits())
    assert only.read(body(tensor(shape=[2, 4], data=ONE[0] * 2))).rows == 1
    refused("shape must be \\[2, 4\\]", body(tensor()), on=only)


def test_batchable_needs_a_free_first_dimension_everywhere() -> None:
    assert batchable((X, IDS), (Y,))
    assert not batchable((X,), (TensorSpec(name="s", dtype="float32", shape=()),))
    assert not batchable((X,), (TensorSpec(name="s", dtype="float32", shape=(1, 2)),))


def test_a_type_without_numpy_form_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="bfloat16"):
        datatype(TensorSpec(name="x", dtype="bfloat16", shape=(1,)))


@given(st.binary(max_size=200), st.none() | st.integers(-5, 300))
def test_noise_is_refused_and_nothing_else(noise: bytes, head_bytes: int | None) -> None:
    with pytest.raises(Refusal):
        signature().read(noise, head_bytes)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=6)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("name", "datatype", "shape", "data", "parameters"), JSON)))
def test_any_json_in_a_tensor_is_read_or_refused(changes: dict[str, Any]) -> None:
    try:
        call = signature().read(body(tensor(**changes)))
    except Refusal:
        return
    assert call.feeds["x"].shape[1:] == (4,)


class Waiter:
    """Waits for an answer that may be compressed."""

    arrived_s = 0.0

    def __init__(self, coding: str | None = None) -> None:
        self.coding = coding

    def finish(self, answer: object) -> None:
        raise AssertionError("nothing is delivered here")


def answered(call: Call, variant: str = "v", coding: str | None = None, **results: np.ndarray) -> tuple[int, bytes, bytes]:
    call.owner = Waiter(coding)
    return HttpForm("m", "3", ()).answer(call, [(wanted, results[wanted.name]) for wanted in call.wanted], variant)


def test_an_answer_holds_the_outputs_in_their_forms() -> None:
    call = signature().read(body(tensor(), id="7"))
    call.wanted = (Wanted("top"), Wanted("y", True))
    y = np.arange(6, dtype=np.float32).reshape(3, 2)[1:3]
    status, head, text = answered(call, "a variant\r\n\u00e9", y=y, top=np.arange(1, 3))
    assert status == 200
    assert b"headway-variant: a variant???\r\n" in head
    size = int(head.split(b"inference-header-content-length: ")[1].split(b"\r\n")[0])
    parsed = json.loads(text[:size])
    assert (parsed["id"], parsed["model_name"], parsed["model_version"]) == ("7", "m", "3")
    assert parsed["outputs"][0] == {"name": "top", "datatype": "INT64", "shape": [2], "data": [1, 2]}
    assert np.frombuffer(text[size:], np.float32).tolist() == [2, 3, 4, 5]
    assert f"content-length: {len(text)}\r\n".encode() in head


@pytest.mark.parametrize("binary", [False, True])
def test_a_large_answer_is_compressed_when_the_client_asks(binary: bool) -> None:
    call = signature().read(body(tensor()))
    call.wanted = (Wanted("y", binary),)
    y = np.zeros((1, 5000), np.float32)
    plain, packed = answered(call, y=y), answered(call, coding="gzip", y=y)
    assert b"content-encoding: gzip\r\n" in packed[1] and b"content-encoding" not in plain[1]
    assert gzip.decompress(packed[2]) == plain[2]
    assert f"content-length: {len(packed[2])}\r\n".encode() in packed[1]
    small = answered(call, coding="gzip", y=y[:, :2])
    assert b"content-encoding" not in small[1]


def test_what_json_cannot_hold_becomes_null() -> None:
    _, _, text = answered(signature().read(body(tensor())), y=np.array([[np.nan, np.inf]], np.float32))
    assert json.loads(text)["outputs"][0]["data"] == [None, None]


@pytest.mark.parametrize(
    ("parameters", "timeout_s", "priority"),
    [({}, None, 2), ({"timeout": 1500}, 0.0015, 2), ({"timeout": 0, "priority": 1}, None, 1), ({"priority": 9}, None, 9)],
)
def test_how_urgent_a_request_is(parameters: dict[str, int], timeout_s: float | None, priority: int) -> None:
    call = signature().read(body(tensor(), parameters=parameters))
    assert (call.timeout_s, call.priority) == (timeout_s, priority)


def test_parsed_requests_are_read_like_bodies() -> None:
    request = {"id": "4", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4]}]}
    call = signature().take(request, [np.array(ONE, np.float32).tobytes()])
    np.testing.assert_array_equal(call.feeds["x"], ONE)
    assert call.id == "4"
    for raw in ([], [b""], [bytes(15)], [bytes(17)], [bytes(16), bytes(16)]):
        with pytest.raises(Refusal):
            signature().take(request, raw)

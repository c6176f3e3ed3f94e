"""Payloads of the Open Inference Protocol: what goes out comes back, and what is broken is said."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from headway.load import infer_payload, parse_infer_response
from headway.load.payload import DATATYPES
from headway.records import DataError, MeasurementError

ANY = st.sampled_from(sorted(DATATYPES)).flatmap(
    lambda name: arrays.arrays(np.dtype(name), arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)


def echoed(headers: dict[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
    """The answer of a model that returns its inputs."""
    at = int(headers["Inference-Header-Content-Length"])
    request = orjson.loads(body[:at])
    assert request["parameters"] == {"binary_data_output": True}
    head = orjson.dumps({"model_name": "echo", "outputs": request["inputs"]})
    return {"inference-header-content-length": str(len(head))}, head + body[at:]


@given(st.dictionaries(st.text(min_size=1, max_size=5), ANY, max_size=3))
def test_what_goes_out_comes_back(feeds: dict[str, np.ndarray]) -> None:
    back = parse_infer_response(*echoed(*infer_payload(feeds)))
    assert list(back) == list(feeds)
    for name, array in feeds.items():
        assert back[name].dtype == array.dtype and back[name].shape == array.shape
        assert back[name].tobytes() == array.tobytes()


def test_strided_and_big_endian_arrays_are_sent_as_the_protocol_wants() -> None:
    array = np.arange(12, dtype=">f4").reshape(3, 4).T
    back = parse_infer_response(*echoed(*infer_payload({"x": array})))
    assert np.array_equal(back["x"], array)


def test_json_answers_are_read_too() -> None:
    body = orjson.dumps({"outputs": [{"name": "y", "datatype": "INT64", "shape": [2, 1], "data": [3, 4]}]})
    assert parse_infer_response({}, body)["y"].tolist() == [[3], [4]]


def test_a_type_without_a_name_in_the_protocol_is_refused() -> None:
    with pytest.raises(DataError, match="complex64; convert it"):
        infer_payload({"x": np.zeros(1, np.complex64)})


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b"not json"),
        ({}, b"[]"),
        ({}, b'{"error": "no such model"}'),
        ({}, b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "data": [1.0]}]}'),
        ({}, b'{"outputs": [{"name": "y", "datatype": "FP99", "shape": [1], "data": [1.0]}]}'),
        ({}, b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}]}'),
        ({}, b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 8}}]}'),
        ({"Inference-Header-Content-Length": "14"}, b'{"outputs":[]}spare'),
        ({"Inference-Header-Content-Length": "many"}, b'{"outputs":[]}'),
    ],
)
def test_a_broken_answer_is_an_error_in_words(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(MeasurementError, match="Open Inference Protocol"):
        parse_infer_response(headers, body)

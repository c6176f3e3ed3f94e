"""The classification extension: the format of Triton, and the largest elements against a brute-force sort."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from headway.serve.classes import bytes_tensor, classify, json_strings
from headway.serve.refusal import Refusal


def test_the_format_is_tritons() -> None:
    scores = np.array([[0.1, 0.5, 0.3, 0.2]], np.float32)
    assert classify(scores, 2).tolist() == [[b"0.500000:1", b"0.300000:2"]]
    assert classify(scores, 2, ["a", "b", "c", "d"]).tolist() == [[b"0.500000:1:b", b"0.300000:2:c"]]
    assert classify(np.array([[1, 3, 2], [9, 7, 8]], np.int32), 2).tolist() == [[b"3:1", b"2:2"], [b"9:0", b"8:2"]]


def test_the_example_of_the_documentation() -> None:
    assert [item.split(b":")[1] for item in classify(np.array([[1, 5, 10, 4]]), 2)[0]] == [b"2", b"1"]


def test_an_output_without_rows_is_one_row() -> None:
    classes = classify(np.array([[1, 3, 2], [9, 7, 8]]), 2, batched=False)
    assert classes.shape == (2,)
    assert classes.tolist() == [b"9:3", b"8:5"]
    assert classify(np.array(4.5), 1).tolist() == [b"4.500000:0"]


def test_one_number_a_row_is_one_class() -> None:
    assert classify(np.array([3, 1]), 1, ["a", "b", "c"]).tolist() == [[b"3:0"], [b"1:0"]]


def test_equal_elements_come_by_index_and_what_is_no_number_last() -> None:
    scores = np.array([[np.nan, 1, 2, 2, -np.inf, np.inf, 1]])
    assert [int(item.split(b":")[1]) for item in classify(scores, 7)[0]] == [5, 2, 3, 1, 6, 4, 0]


def test_the_ends_of_integer_types_sort_right() -> None:
    for dtype in (np.int8, np.int64, np.uint8, np.uint64):
        ends = np.iinfo(dtype)
        assert classify(np.array([[ends.min, ends.max, 1]], dtype), 3)[0].tolist() == sorted(
            [f"{ends.min}:0".encode(), f"{ends.max}:1".encode(), b"1:2"], key=lambda item: -int(item.split(b":")[0])
        )


def test_labels_of_another_output_are_not_used() -> None:
    assert classify(np.array([[1, 2]]), 1, ["a", "b", "c"]).tolist() == [[b"2:1"]]
    assert classify(np.array([[1, 2]]), 1, ["a", "é:x"]).tolist() == [["2:1:é:x".encode()]]


@pytest.mark.parametrize("k", [0, -1, 4, 2**31 - 1])
def test_k_must_lie_within_the_classes(k: int) -> None:
    with pytest.raises(Refusal, match="from 1 to the output's number of classes, 3") as caught:
        classify(np.zeros((2, 3), np.float32), k)
    assert caught.value.status == 400


@pytest.mark.parametrize("array", [np.array([[True, False]]), np.array([[b"x"]], object), np.array([["x"]])])
def test_only_numbers_can_be_classified(array: np.ndarray) -> None:
    with pytest.raises(Refusal, match="numbers"):
        classify(array, 1)


def test_an_output_without_classes_is_refused() -> None:
    with pytest.raises(Refusal):
        classify(np.zeros((2, 0), np.float32), 1)


@given(
    arrays.arrays(st.sampled_from([np.float32, np.float64, np.int32, np.uint8]), arrays.array_shapes(min_dims=1, max_dims=3, max_side=6), elements=st.integers(0, 5)),
    st.data(),
)  # fmt: skip
def test_the_largest_equal_a_sort_by_hand(array: np.ndarray, data: st.DataObject) -> None:
    classes = math.prod(array.shape[1:])
    k = data.draw(st.integers(1, classes))
    made = classify(array, k)
    assert made.shape == (len(array), k)
    for row, got in zip(array.reshape(len(array), classes).tolist(), made.tolist(), strict=True):
        best = sorted(range(classes), key=lambda index: (-row[index], index))[:k]
        assert got == [(f"{row[i]:f}:{i}" if array.dtype.kind == "f" else f"{row[i]}:{i}").encode() for i in best]


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=12))
def test_the_binary_form_is_the_clients(items: list[bytes]) -> None:
    array = np.empty(len(items), object)
    array[:] = items
    assert bytes_tensor(array) == serialize_byte_tensor(array).item()
    assert deserialize_bytes_tensor(bytes_tensor(array)).tolist() == items


def test_the_json_form_is_text() -> None:
    array = np.array([[b"0.5:1:\xc3\xa9", b"\xff"]], object)
    assert json_strings(array) == ["0.5:1:é", "\ufffd"]

"""The frozen model, its weights and its specs."""

import hashlib

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from headway.model import Model, graph_bytes, node_count, parameters, synthetic_inputs, weight_bytes, weights
from headway.records import InputError, TensorSpec


def dense(rows="batch", *, constant_node: bool = False) -> onnx.ModelProto:
    """y = relu(x W + b), W of shape (3, 2); the bias optionally in a Constant node."""
    weight = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(3, 2), "w")
    bias = numpy_helper.from_array(np.ones(2, np.float32), "b")
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["h"], name="gemm"), helper.make_node("Relu", ["h"], ["y"], name="relu")]
    if constant_node:
        nodes.insert(0, helper.make_node("Constant", [], ["b"], value=bias))
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, 2])],
        [weight] if constant_node else [weight, bias],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_specs_name_type_and_free_dimensions():
    model = Model.from_proto(dense(), "dense", "onnx")
    assert model.inputs == (TensorSpec(name="x", dtype="float32", shape=("batch", 3)),)
    assert model.outputs == (TensorSpec(name="y", dtype="float32", shape=("batch", 2)),)
    assert model.opset == 17


def test_weights_listed_as_inputs_are_no_inputs():
    proto = dense()
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 2]))
    assert [spec.name for spec in Model.from_proto(proto, "dense", "onnx").inputs] == ["x"]


def test_neither_the_protobuf_given_nor_the_one_taken_reaches_the_model():
    proto = dense()
    model = Model.from_proto(proto, "dense", "onnx")
    before = model.to_bytes()
    proto.graph.initializer[0].raw_data = b"\0" * 24
    model.to_proto().graph.initializer[0].raw_data = b"\0" * 24
    for array in weights(model).values():
        array[...] = 7
    assert model.to_bytes() == before


def test_file_and_digest_agree(tmp_path):
    model = Model.from_proto(dense(), "dense", "onnx")
    model.save(tmp_path / "deep" / "model.onnx")
    content = (tmp_path / "deep" / "model.onnx").read_bytes()
    assert hashlib.sha256(content).hexdigest() == model.digest
    assert graph_bytes(model) == len(content)
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["model.onnx"]


def test_large_weights_go_beside_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("headway.model.graph.INLINE_LIMIT_BYTES", 10)
    model = Model.from_proto(dense(), "dense", "onnx")
    model.save(tmp_path / "model.onnx")
    assert model.digest == Model.from_proto(dense(), "dense", "onnx").digest
    assert np.array_equal(numpy_helper.to_array(onnx.load(tmp_path / "model.onnx").graph.initializer[0]), weights(model)["w"])


def test_digest_of_a_large_graph_sees_every_weight(monkeypatch):
    monkeypatch.setattr("headway.model.graph.INLINE_LIMIT_BYTES", 10)
    other = dense()
    other.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.full(2, 2, np.float32), "b"))
    assert Model.from_proto(dense(), "a", "onnx").digest != Model.from_proto(other, "a", "onnx").digest


def test_saving_under_a_file_is_one_clear_error(tmp_path):
    (tmp_path / "blocked").write_text("a file, no folder")
    with pytest.raises(InputError, match="must be writable"):
        Model.from_proto(dense(), "dense", "onnx").save(tmp_path / "blocked" / "model.onnx")


@pytest.mark.parametrize("constant_node", [False, True])
def test_weights_in_constant_nodes_count(constant_node):
    model = Model.from_proto(dense(constant_node=constant_node), "dense", "onnx")
    assert parameters(model) == 8
    assert weight_bytes(model) == 32
    assert node_count(model) == 2
    assert set(weights(model)) == {"w", "b"}


TYPES = st.sampled_from(["float32", "float16", "int64", "bool", "uint8"])
SHAPES = st.lists(st.one_of(st.integers(1, 5), st.sampled_from(["batch", "time", "?"])), min_size=1, max_size=3)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(SHAPES, st.sampled_from(["float32", "float16", "int64", "bool", "uint8"])), min_size=1, max_size=3),
    st.integers(1, 4),
)
def test_synthetic_inputs_fit_their_specs(ports, rows):
    specs = [TensorSpec(name=f"i{index}", dtype=dtype, shape=tuple(shape)) for index, (shape, dtype) in enumerate(ports)]
    made = synthetic_inputs(specs, rows, sizes={"time": 6})
    again = synthetic_inputs(specs, rows, sizes={"time": 6})
    for spec in specs:
        array = made[spec.name]
        assert array.dtype.name == spec.dtype
        first = {"time": 6}.get(spec.shape[0], spec.shape[0])
        assert len(array) == (first if isinstance(first, int) else rows)
        assert all(not isinstance(dim, int) or dim == size for dim, size in zip(spec.shape, array.shape, strict=True))
        assert np.array_equal(array, again[spec.name])

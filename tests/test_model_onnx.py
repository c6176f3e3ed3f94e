"""The door for ONNX files: what is read, what is refused, and what becomes of the batch."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from headway.model import load
from headway.records import DataError, ModelError

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])
W = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(3, 2), "w")


def build(nodes, inputs=(X,), outputs=(Y,), weights=(W,), *, opset=17, ir_version=8) -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def dense() -> onnx.ModelProto:
    return build([helper.make_node("MatMul", ["x", "w"], ["y"])])


def save(proto, folder, name="model.onnx") -> str:
    onnx.save_model(proto, folder / name)
    return str(folder / name)


def answers(model, feeds):
    session = onnxruntime.InferenceSession(model.to_bytes(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def test_a_file_comes_in_as_it_is(tmp_path):
    proto = dense()
    proto.metadata_props.add(key="labels", value='["cat", "dog"]')
    loaded = load(save(proto, tmp_path))
    assert (loaded.models[0].name, loaded.models[0].origin, loaded.notes) == ("model", "onnx", ())
    assert loaded.labels == ("cat", "dog")


def test_labels_beside_the_file(tmp_path):
    path = save(dense(), tmp_path)
    (tmp_path / "model.labels.txt").write_text("cat\ndog\n")
    assert load(path).labels == ("cat", "dog")


def external(tmp_path, location="model.data", **facts) -> str:
    proto = dense()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **facts}.items():
        tensor.external_data.add(key=key, value=str(value))
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    return str(tmp_path / "model.onnx")


def test_external_data_is_read_in(tmp_path):
    (tmp_path / "model.data").write_bytes(b"xxxx" + numpy_helper.to_array(W).tobytes())
    model = load(external(tmp_path, offset=4, length=24)).models[0]
    assert np.array_equal(answers(model, {"x": np.eye(3, dtype=np.float32)}), numpy_helper.to_array(W))


@pytest.mark.parametrize(
    ("location", "facts", "message"),
    [
        ("model.data", {}, "no such file"),
        ("../secret", {}, "do not trust"),
        ("/etc/passwd", {}, "do not trust"),
        ("link", {}, "do not trust"),
        ("", {}, "do not trust"),
        ("short", {"length": 24}, "truncated"),
        ("short", {"offset": "1e9"}, "whole numbers"),
        ("short", {"offset": -4}, "whole numbers"),
        ("short", {"offset": 100}, "truncated"),
        ("short", {}, "ONNX rules"),
    ],
)
def test_hostile_external_data(tmp_path, location, facts, message):
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret").write_bytes(bytes(24))
    (inside / "link").symlink_to(tmp_path / "secret")
    (inside / "short").write_bytes(bytes(10))
    with pytest.raises(ModelError, match=message):
        load(external(inside, location, **facts))


def test_external_data_has_a_size_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("headway.model.reading.MAX_WEIGHT_BYTES", 10)
    (tmp_path / "model.data").write_bytes(bytes(24))
    with pytest.raises(ModelError, match="at most"):
        load(external(tmp_path))


def test_a_file_has_a_size_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("headway.model.reading.MAX_FILE_BYTES", 10)
    with pytest.raises(ModelError, match="below 2 GiB"):
        load(save(dense(), tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"hello, I am a model\n", "text file"),
        ("grüße, ich bin ein Modell\n".encode(), "text file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x08\x08\x12\x00", "without"),
        (b"\x00\x01\x02\x03" * 50, "truncated"),
        (b"PK\x03\x04" + bytes(100), "truncated|without"),
    ],
)
def test_files_that_are_no_model(tmp_path, content, message):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=message):
        load(str(tmp_path / "model.onnx"))


def test_every_truncation_is_a_clear_error(tmp_path):
    whole = dense().SerializeToString()
    path = tmp_path / "model.onnx"
    for length in range(0, len(whole) - 12, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError):
            load(str(path))


def test_a_graph_against_the_rules(tmp_path):
    proto = build([helper.make_node("MatMul", ["x", "nowhere"], ["y"])])
    with pytest.raises(ModelError, match="ONNX rules"):
        load(save(proto, tmp_path))


def test_outputs_must_be_tensors(tmp_path):
    sequence = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    with pytest.raises(ModelError, match="dense tensor, got a sequence"):
        load(save(build([helper.make_node("SequenceConstruct", ["x"], ["y"])], outputs=[sequence], weights=()), tmp_path))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "no.onnx", "nothing there"),
        (lambda folder: folder, "SavedModel"),
        (lambda folder: (folder / "weights.pth").write_bytes(b"x") and folder / "weights.pth", "a pickle can run code"),
        (lambda folder: (folder / "model.h5").write_bytes(b"x") and folder / "model.h5", "FILE.keras"),
        (lambda folder: (folder / "model").write_bytes(b"x") and folder / "model", "without suffix"),
    ],
)
def test_references_without_a_door(tmp_path, make, message):
    with pytest.raises(ModelError, match=message):
        load(str(make(tmp_path)))


def test_samples_must_hold_the_inputs(tmp_path):
    path = save(dense(), tmp_path)
    with pytest.raises(DataError, match="rename 'x'"):
        load(path, {"image": np.zeros((4, 3), np.float32)})
    with pytest.raises(DataError, match="must be float32"):
        load(path, {"x": np.array([["a", "b", "c"]])})
    with pytest.raises(ModelError, match="must run on x"):
        load(path, {"x": np.zeros((4, 5), np.float32)})
    assert load(path, {"x": np.ones((1, 3))}).notes == ()


def fixed(nodes, weights=(W,), rows=1):
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, width]) for name, width in (("x", 3), ("y", 2))]
    return build(nodes, [ports[0]], [ports[1]], weights)


@pytest.mark.parametrize("rows", [1, 4])
def test_a_fixed_batch_is_made_free(tmp_path, rows):
    target = numpy_helper.from_array(np.array([rows, 3], np.int64), "target")
    nodes = [helper.make_node("Reshape", ["x", "target"], ["r"]), helper.make_node("MatMul", ["r", "w"], ["y"])]
    loaded = load(save(fixed(nodes, (W, target), rows), tmp_path))
    model = loaded.models[0]
    assert model.inputs[0].shape == ("batch", 3)
    assert model.outputs[0].shape == ("batch", 2)
    assert "made free" in loaded.notes[0]
    assert answers(model, {"x": np.ones((5, 3), np.float32)}).shape == (5, 2)


def test_a_batch_that_cannot_be_free_stays_and_is_told(tmp_path):
    total = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("ReduceMean", ["m"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Add", ["m", "mean"], ["y"]),
    ]
    loaded = load(save(fixed(total), tmp_path))
    assert loaded.models[0].inputs[0].shape == (1, 3)
    assert "stays fixed at 1" in loaded.notes[0]


def test_a_free_batch_that_mixes_rows_is_pinned_to_one(tmp_path):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Softmax", ["m"], ["y"], axis=0)]
    loaded = load(save(build(nodes), tmp_path))
    assert loaded.models[0].inputs[0].shape == (1, 3)
    assert "fixed at 1" in loaded.notes[0]


def test_an_input_without_batch_dimension_is_told(tmp_path):
    scale = helper.make_tensor_value_info("scale", TensorProto.FLOAT, [])
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Mul", ["m", "scale"], ["y"])]
    assert "no batch dimension" in load(save(build(nodes, [X, scale]), tmp_path)).notes[0]


def test_an_old_opset_is_converted_and_checked(tmp_path):
    inputs = [X, helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 2])]
    proto = build(
        [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Clip", ["m"], ["y"], max=2.0)], inputs, opset=9, ir_version=4
    )
    loaded = load(save(proto, tmp_path))
    assert loaded.models[0].opset == 13
    assert "converted from opset 9" in loaded.notes[0]
    assert answers(loaded.models[0], {"x": np.ones((1, 3), np.float32)}).max() == 2


def test_an_old_opset_that_does_not_convert_is_refused(tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError("no adapter for Relu")

    monkeypatch.setattr("headway.model.opset.version_converter.convert_version", fails)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])
    proto = build([helper.make_node("Relu", ["x"], ["y"])], outputs=[output], weights=(), opset=9)
    with pytest.raises(ModelError, match=r"opset 11 or later, got opset 9, and ONNX's converter failed: no adapter"):
        load(save(proto, tmp_path))


def test_an_output_without_shape_gets_one_from_a_run(tmp_path):
    bare = helper.make_empty_tensor_value_info("y")
    bare.type.tensor_type.elem_type = TensorProto.FLOAT
    model = load(save(build([helper.make_node("MatMul", ["x", "w"], ["y"])], outputs=[bare]), tmp_path)).models[0]
    assert model.outputs[0].shape == ("batch", 2)

"""Rows, labels and teachers that do not fit are clear errors; a fixed batch and indices work."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from headway.compress.session import answers
from headway.model import Model
from headway.records import DataError, InputError, Unsupported
from headway.train import Attack, Schedule, Settings, Tasks, recover
from training_graphs import clouds, model_of, network, weights_of

FAST = Settings(schedule=Schedule(epochs=6, batch=32, learning_rate=0.02))


def test_a_fixed_batch_is_kept_to() -> None:
    x, label = clouds(70)
    proto = network().to_proto()
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 32
    model = Model.from_proto(proto, "fixed", "onnx")
    done = recover(model, inputs={"x": x}, labels=label, selection=SimpleNamespace(inputs={"x": x}, labels=label), settings=FAST)
    assert done.steps == 6 * 2 and done.model.inputs == model.inputs
    with pytest.raises(DataError, match="fixed batch of 32"):
        recover(model, inputs={"x": x[:20]}, labels=label[:20], settings=FAST)


def test_rows_that_do_not_fit_are_refused() -> None:
    x, label = clouds()
    for inputs, labels, words in (
        ({"z": x}, label, "add x"),
        ({"x": x}, label[:5], "same number of rows"),
        ({"x": x}, {"q": label}, "named as outputs"),
        ({"x": x.astype(str)}, label, "convert the array"),
        ({"x": x[:0]}, label[:0], "at least 1"),
    ):
        with pytest.raises(DataError, match=words):
            recover(network(), inputs=inputs, labels=labels, settings=FAST)


def test_indices_train_their_table() -> None:
    rng = np.random.default_rng(0)
    arrays = {"table": rng.normal(size=(20, 4)).astype(np.float32), "w": rng.normal(size=(4, 2)).astype(np.float32)}
    nodes = [helper.make_node("Gather", ["table", "id"], ["e"]), helper.make_node("MatMul", ["e", "w"], ["y"])]
    model = model_of(nodes, arrays, {"id": (TensorProto.INT64, ["n"])}, {"y": (TensorProto.FLOAT, ["n", 2])})
    ids = np.arange(200) % 19
    settings = replace(FAST, schedule=Schedule(epochs=15, batch=20, learning_rate=0.1))
    done = recover(model, inputs={"id": ids}, labels=ids % 2, settings=settings)
    assert (answers(done.model.to_proto(), {"id": ids}, 200)[0][0].argmax(1) == ids % 2).mean() > 0.95
    assert (weights_of(done.model)["table"][19] == arrays["table"][19]).all()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"inputs": {"x": np.zeros((8, 5), np.float32)}}, r"'x' must have shape \[rows, 4\], got \[8, 5\]"),
        ({"inputs": {"x": np.zeros((8, 4, 1), np.float32)}}, r"'x' must have shape \[rows, 4\], got \[8, 4, 1\]"),
        ({"labels": np.zeros((8, 2), np.int64)}, "must fit the output"),
        ({"labels": np.zeros((8, 3, 2), np.int64)}, "must fit the output"),
        (
            {"selection": SimpleNamespace(inputs={"x": np.zeros((4, 3), np.float32)}, labels=None)},
            "selection rows: input 'x' must have shape",
        ),
        ({"selection": SimpleNamespace(inputs={"x": np.zeros((4, 4), np.float32)}, labels=np.zeros((4, 2)))}, "must fit the output"),
        ({"labels": np.full(8, np.nan, np.float32)}, "must be finite"),
        ({"teachers": (network(inside=5),)}, r"its input 'x' must have the model's shape \['n', 4\], got \['n', 5\]"),
        ({"teachers": (network(classes=5),)}, r"must have the model's shape \[8, 3\], got \[8, 5\]"),
    ],
)
def test_wrong_shapes_are_clear_errors(rows: dict, words: str) -> None:
    given = {"inputs": {"x": np.zeros((8, 4), np.float32)}, "labels": np.zeros(8, np.int64), **rows}
    with pytest.raises(InputError, match=words):
        recover(network(), settings=FAST, **given)


def test_classes_are_whole_numbers() -> None:
    with pytest.raises(DataError, match="whole numbers"):
        recover(
            network(),
            inputs={"x": np.zeros((8, 4), np.float32)},
            labels=np.full(8, 0.5),
            settings=replace(FAST, tasks=Tasks(losses={"y": "classes"})),
        )


def test_an_output_without_an_answer_a_row_is_not_trained() -> None:
    proto, (x, label) = network().to_proto(), clouds(64)
    proto.graph.node.append(helper.make_node("ReduceMean", ["y"], ["mean"], axes=[0], keepdims=0))
    proto.graph.output.append(helper.make_tensor_value_info("mean", TensorProto.FLOAT, [3]))
    model = Model.from_proto(proto, "mean", "onnx")
    assert recover(model, inputs={"x": x}, labels=label, teachers=(model,), settings=FAST).steps
    with pytest.raises(DataError, match="one answer a row"):
        recover(model, inputs={"x": x}, labels={"mean": np.zeros((64, 3))}, settings=FAST)


def test_what_no_gradient_reaches_is_refused() -> None:
    proto, (x, label) = network().to_proto(), clouds(64)
    proto.graph.node[1].CopyFrom(helper.make_node("QuantizeLinear", ["h", "s", "z"], ["codes"]))
    proto.graph.node.insert(2, helper.make_node("Cast", ["codes"], ["r"], to=TensorProto.FLOAT))
    proto.graph.initializer.extend([numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.uint8(128), "z")])
    settings = replace(FAST, frozen=("w2", "b2"))
    with pytest.raises(Unsupported, match="no gradient comes back"):
        recover(Model.from_proto(proto, "codes", "onnx"), inputs={"x": x}, labels=label, settings=settings)
    with pytest.raises(Unsupported, match=r"depend on x.*no gradient"):
        recover(
            Model.from_proto(proto, "codes", "onnx"),
            inputs={"x": x},
            labels=label,
            settings=replace(settings, attack=Attack(radius=0.1)),
        )

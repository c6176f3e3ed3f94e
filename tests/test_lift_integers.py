"""Integer arithmetic that lets gradients pass, learned scales of every width, and values that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import NodeProto, TensorProto, helper

from headway.lift import lift
from headway.lift.tensors import RANGES
from headway.model import Model
from headway.records import DataError
from lift_graphs import agree, arrays, graph, model, one

CODES = np.random.default_rng(3).integers(-127, 128, (4, 3)).astype(np.int8)
SIZES = np.array([0.01, 0.02, 0.03], np.float32)


def dynamic(*more: NodeProto, outputs: tuple[str, ...] = ("y",)) -> Model:
    """A float matrix, then one in 8 bits as ``quantize_dynamic`` writes it."""
    nodes = [
        helper.make_node("MatMul", ["x", "before"], ["h"]),
        helper.make_node("DynamicQuantizeLinear", ["h"], ["q", "qs", "qz"]),
        helper.make_node("MatMulInteger", ["q", "w", "qz", "wz"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["qs", "ws"], ["size"]),
        helper.make_node("Mul", ["wide", "size"], ["y"]),
        *more,
    ]
    constants = {"before": arrays((3, 4))[0], "w": CODES, "wz": np.int8(0), "ws": SIZES}
    return model(graph(nodes, {"x": [None, 3]}, outputs, constants))


def test_dynamic_quantization_passes_gradients_straight_through_and_its_scales_stay() -> None:
    source = dynamic()
    lifted = lift(source)
    assert list(lifted.weights) == ["before"]
    x = arrays((5, 3), seed=1)[0]
    agree(source, lifted, {"x": x})
    lifted({"x": torch.from_numpy(x)})["y"].sum().backward()
    expected = x.sum(0)[:, None] * (CODES * SIZES).sum(1)[None]
    np.testing.assert_allclose(lifted.weights["before"].grad.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_sums_that_something_else_reads_stay_integers() -> None:
    source = dynamic(helper.make_node("Abs", ["sums"], ["other"]), outputs=("y", "other"))
    proto = source.to_proto()
    proto.graph.output[1].type.tensor_type.elem_type = TensorProto.INT32
    source = Model.from_proto(proto, "m", "onnx")
    lifted, x = lift(source), arrays((5, 3), seed=1)[0]
    agree(source, lifted, {"x": x})
    found = lifted({"x": torch.from_numpy(x)})
    assert found["other"].dtype == torch.int32 and not found["y"].requires_grad


def test_an_integer_convolution_passes_gradients_too() -> None:
    kernel, x = np.random.default_rng(0).integers(-9, 9, (2, 3, 3, 3)).astype(np.int8), arrays((2, 3, 5, 5))[0]
    nodes = [
        helper.make_node("Mul", ["x", "before"], ["h"]),
        helper.make_node("DynamicQuantizeLinear", ["h"], ["q", "qs", "qz"]),
        helper.make_node("ConvInteger", ["q", "w", "qz"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["wide", "qs"], ["y"]),
    ]
    source = model(graph(nodes, {"x": [None, 3, 5, 5]}, ["y"], {"before": np.ones((3, 1, 1), np.float32), "w": kernel}))
    lifted = lift(source)
    agree(source, lifted, {"x": x})
    lifted({"x": torch.from_numpy(x)})["y"].sum().backward()
    own = torch.ones(3, 1, 1, requires_grad=True)
    torch.nn.functional.conv2d(torch.from_numpy(x) * own, torch.from_numpy(kernel).float()).sum().backward()
    torch.testing.assert_close(lifted.weights["before"].grad, own.grad, rtol=1e-3, atol=1e-2)


def test_values_that_are_all_zero_have_the_scale_one() -> None:
    lifted = lift(dynamic())
    assert torch.equal(lifted({"x": torch.zeros(2, 3)})["y"], torch.zeros(2, 3))


@pytest.mark.parametrize("in_a_node", [False, True])
@pytest.mark.parametrize("kind", ["UINT4", "INT4", "UINT8", "INT8", "UINT16", "INT16"])
def test_the_gradient_of_a_scale_is_weakened_by_its_own_width(kind: str, in_a_node: bool) -> None:
    number = TensorProto.DataType.Value(kind)
    low, high = RANGES[number]
    zero = helper.make_tensor("z", number, [], [0])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    body = graph([helper.make_node("Constant", [], ["z"], value=zero)] * in_a_node + nodes, {"x": [None, 3]}, ["y"], {"s": np.float32(0.1)})
    if not in_a_node:
        body.initializer.append(zero)
    lifted = lift(model(body, opset=21), learn_scales=True)
    x = torch.tensor([[0.234, 0.16, 1e6]])
    lifted({"x": x})["y"].sum().backward()
    v = x[:, :2] / 0.1
    expected = ((torch.round(v) - v).sum() + high) / (3 * high) ** 0.5  # LSQ, equations 3 to 5, and g of section 2.2
    assert lifted.weights["s"].grad.item() == pytest.approx(float(expected), rel=1e-4)
    assert lifted({"x": -x})["y"][0, 2].item() == pytest.approx(low * 0.1)


IDS = {
    "Gather": (np.array([0, 3], np.int64), None, {}),
    "GatherElements": (np.array([[0, 1], [3, 1]], np.int64), None, {"axis": 0}),
    "GatherND": (np.array([[1, 1], [3, 0]], np.int64), None, {}),
    "ScatterElements": (np.array([[0, 3]], np.int64), np.ones((1, 2), np.float32), {"axis": 0}),
    "ScatterND": (np.array([[3, 0]], np.int64), np.ones(1, np.float32), {}),
}


@pytest.mark.parametrize("operator", sorted(IDS))
def test_an_id_outside_its_table_names_the_node_and_the_range(operator: str) -> None:
    ids, updates, attributes = IDS[operator]
    constants = {"table": arrays((3, 2))[0], "scale": np.ones((1, 1), np.float32)}
    names = ["table", "ids"] + (["updates"] if updates is not None else [])
    node = helper.make_node(operator, names, ["y"], name="the node", **attributes)
    body = graph([node], {"ids": list(ids.shape)} | ({"updates": list(updates.shape)} if updates is not None else {}), ["y"], constants)
    body.input[0].type.tensor_type.elem_type = TensorProto.INT64
    lifted = lift(model(body))
    feeds = {"ids": torch.from_numpy(ids)} | ({"updates": torch.from_numpy(updates)} if updates is not None else {})
    with pytest.raises(DataError, match=rf"the node \({operator}\) must get ids between -3 and 2, got \d to 3"):
        lifted(feeds)
    feeds["ids"] = torch.from_numpy(np.where(ids == 3, -3, ids))
    assert torch.isfinite(lifted(feeds)["y"]).all()
    feeds["ids"] = torch.from_numpy(np.where(ids == 3, -4, ids))
    with pytest.raises(DataError, match="got -4 to"):
        lifted(feeds)


def test_values_that_do_not_fit_name_the_node_and_their_shapes() -> None:
    lifted = lift(one("MatMul", {"x": [None, None]}, {"w": arrays((3, 2))[0]}))
    with pytest.raises(DataError, match=r"the node \(MatMul\) must get values that it can work on, got shapes \[5, 4\], \[3, 2\]"):
        lifted({"x": torch.zeros(5, 4)})

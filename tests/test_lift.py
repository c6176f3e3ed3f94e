"""The module: which tensors learn, modes, kept values, errors, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper

from headway.lift import lift
from headway.records import InputError, Unsupported
from lift_graphs import agree, arrays, graph, model, one


def test_float_tensors_of_more_than_one_element_learn_and_settings_do_not() -> None:
    w, b = arrays((3, 4), (4,))
    mask = np.array([0, 0, -1e9, 0], np.float32)
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node("Add", ["h", "mask"], ["m"]),
        helper.make_node("Mul", ["m", "half"], ["c"]),
        helper.make_node("Clip", ["c", "low"], ["y"]),
    ]
    constants = {"w": w, "b": b, "mask": mask, "half": np.float32(0.5), "low": np.float32(-2)}
    source = model(graph(nodes, {"x": [None, 3]}, ["y"], constants))
    lifted = lift(source)
    assert list(lifted.weights) == ["w", "b"]
    agree(source, lifted, {"x": arrays((5, 3), seed=1)[0]})


def test_a_weight_in_a_constant_node_learns_by_the_name_of_its_value() -> None:
    (w,) = arrays((3, 2))
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(w)),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    source = model(graph(nodes, {"x": [None, 3]}, ["y"], {}))
    lifted = lift(source)
    assert list(lifted.weights) == ["w"]
    agree(source, lifted, {"x": arrays((2, 3), seed=1)[0]})


def test_a_shared_initializer_is_one_parameter_with_the_sum_of_gradients() -> None:
    w, x = arrays((3, 3), (2, 3))
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])]
    lifted = lift(model(graph(nodes, {"x": [None, 3]}, ["y"], {"w": w})))
    lifted({"x": torch.from_numpy(x)})["y"].sum().backward()
    own = torch.from_numpy(w).requires_grad_()
    (torch.from_numpy(x) @ own @ own).sum().backward()
    assert len(list(lifted.parameters())) == 1
    torch.testing.assert_close(lifted.weights["w"].grad, own.grad)


def test_inner_values_are_kept_by_name_and_unknown_names_are_refused() -> None:
    w, x = arrays((3, 3), (2, 3))
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    lifted = lift(model(graph(nodes, {"x": [None, 3]}, ["y"], {"w": w})))
    found = lifted({"x": torch.from_numpy(x)}, keep=("h",))
    assert list(found) == ["y", "h"]
    torch.testing.assert_close(found["h"].relu(), found["y"])
    with pytest.raises(InputError, match="nothing_here"):
        lifted({"x": torch.from_numpy(x)}, keep=("nothing_here",))
    with pytest.raises(InputError, match="got no x"):
        lifted({})


def test_an_unknown_operator_is_refused_with_node_operator_and_advice() -> None:
    source = one("StringConcat", {"a": [1], "b": [1]}, {}, opset=20)
    with pytest.raises(Unsupported, match=r"the node.*StringConcat.*train or change"):
        lift(source)


def test_an_opset_before_11_is_refused() -> None:
    with pytest.raises(Unsupported, match="opset 11 or later, got 9"):
        lift(one("Relu", {"x": [1]}, {}, opset=9))


def batch_norm() -> tuple[dict[str, np.ndarray], np.ndarray]:
    scale, bias, mean, x = arrays((3,), (3,), (3,), (4, 3, 5, 5))
    return {"scale": scale, "bias": bias, "mean": mean, "var": np.array([1, 2, 3], np.float32)}, x


def test_batch_normalization_uses_stored_statistics_until_told_to_update_them() -> None:
    constants, x = batch_norm()
    source = one("BatchNormalization", {"x": [None, 3, 5, 5]}, constants)
    lifted = lift(source)
    assert list(lifted.weights) == ["scale", "bias"]
    assert list(lifted.statistics) == ["mean", "var"]
    agree(source, lifted.train(), {"x": x})
    before = lifted.statistics["mean"].clone()
    lifted.update_statistics = True
    made = lifted({"x": torch.from_numpy(x)})["y"]
    expected = 0.9 * before + 0.1 * torch.from_numpy(x).mean((0, 2, 3))
    torch.testing.assert_close(lifted.statistics["mean"], expected)
    torch.testing.assert_close(made.mean((0, 2, 3)), torch.from_numpy(constants["bias"]), atol=1e-5, rtol=0)
    lifted.eval()({"x": torch.from_numpy(x)})
    torch.testing.assert_close(lifted.statistics["mean"], expected)


def test_dropout_drops_only_in_training() -> None:
    lifted = lift(one("Dropout", {"x": [100]}, {"ratio": np.float32(0.5)}))
    x = {"x": torch.ones(100)}
    assert torch.equal(lifted.eval()(x)["y"], x["x"])
    torch.manual_seed(0)
    assert 20 < int((lifted.train()(x)["y"] == 0).sum()) < 80


def test_softmax_means_what_its_opset_says() -> None:
    x = arrays((2, 3, 4))[0]
    for opset in (11, 13):
        source = one("Softmax", {"x": [2, 3, 4]}, {}, opset=opset, axis=1)
        agree(source, lift(source), {"x": x})


def test_an_old_graph_with_attributes_for_axes_runs() -> None:
    nodes = [
        helper.make_node("Unsqueeze", ["x"], ["u"], axes=[1]),
        helper.make_node("ReduceSum", ["u"], ["s"], axes=[2], keepdims=1),
        helper.make_node("Squeeze", ["s"], ["q"], axes=[1]),
        helper.make_node("Split", ["x"], ["a", "b"], axis=1, split=[1, 3]),
        helper.make_node("Mul", ["q", "b"], ["y"]),
    ]
    source = model(graph(nodes, {"x": [None, 4]}, ["y"], {}), 11)
    agree(source, lift(source), {"x": arrays((3, 4))[0]})


def test_shapes_that_depend_on_the_input_are_computed_on_the_processor() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
        helper.make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    constants = {"zero": np.int64(0), "axes": np.array([0]), "rest": np.array([-1, 2])}
    source = model(graph(nodes, {"x": [None, 4]}, ["y"], constants))
    lifted = lift(source)
    for rows in (1, 3):
        agree(source, lifted, {"x": arrays((rows, 4))[0]})


@pytest.mark.parametrize(
    ("operator", "shape", "attributes"),
    [
        ("Conv", (2, 2, 3, 3), {"pads": [0, 1, 1, 0], "strides": [2, 1]}),
        ("Conv", (2, 2, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ("ConvTranspose", (2, 2, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
        ("MatMul", (6, 3), {}),
        ("Mul", (6,), {}),
        ("Div", (6,), {}),
        ("PRelu", (2, 1, 1), {}),
    ],
)
def test_gradients_agree_with_finite_differences(operator: str, shape: tuple[int, ...], attributes: dict[str, object]) -> None:
    w, x = arrays(shape, (2, 2, 5, 6))
    lifted = lift(one(operator, {"x": [2, 2, 5, 6]}, {"w": w}, **attributes)).double()
    weight, inputs = lifted.weights["w"], {"x": torch.from_numpy(x).double()}
    probe = torch.randn(lifted(inputs)["y"].shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (lifted(inputs)["y"] * probe).sum().backward()
    step = 1e-6
    for place in range(min(weight.numel(), 6)):
        with torch.no_grad():
            ends = []
            for sign in (1, -1):
                weight.view(-1)[place] += sign * step
                ends.append(float((lifted(inputs)["y"] * probe).sum()))
                weight.view(-1)[place] -= sign * step
        assert weight.grad.view(-1)[place].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-6)

"""If, Loop and Scan with values from around them, weights inside, and state; recurrent layers in all directions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import GraphProto, TensorProto, helper, numpy_helper

from headway.lift import lift, write_back
from lift_graphs import agree, arrays, graph, model


def inner(name: str, nodes: list, outputs: list, inputs: list = (), constants: dict | None = None) -> GraphProto:
    return helper.make_graph(
        nodes, name, [helper.make_tensor_value_info(n, t, s) for n, t, s in inputs],
        [helper.make_tensor_value_info(n, t, None) for n, t in outputs],
        [numpy_helper.from_array(value, key) for key, value in (constants or {}).items()],
    )  # fmt: skip


FLOAT = TensorProto.FLOAT


def test_nested_branches_hold_weights_of_their_own_and_see_those_around() -> None:
    outer, one, two = arrays((3, 3), (3,), (3,))
    deep_then = inner("dt", [helper.make_node("Add", ["h", "w"], ["d1"])], [("d1", FLOAT)], constants={"w": one})
    deep_else = inner("de", [helper.make_node("Sub", ["h", "w"], ["d2"])], [("d2", FLOAT)], constants={"w": two})
    nested = helper.make_node("If", ["big"], ["n"], then_branch=deep_then, else_branch=deep_else)
    then = inner("t", [nested], [("n", FLOAT)])
    other = inner("e", [helper.make_node("MatMul", ["h", "outer"], ["e1"])], [("e1", FLOAT)])
    nodes = [
        helper.make_node("MatMul", ["x", "outer"], ["h"]),
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["up"]),
        helper.make_node("Greater", ["s", "ten"], ["big"]),
        helper.make_node("If", ["up"], ["y"], then_branch=then, else_branch=other),
    ]
    source = model(graph(nodes, {"x": [None, 3]}, ["y"], {"outer": outer, "zero": np.float32(0), "ten": np.float32(10)}))
    lifted = lift(source)
    assert len(lifted.weights) == 3
    for value in (-1.0, 1.0, 20.0):
        agree(source, lifted, {"x": np.full((1, 3), value, np.float32)})
    lifted({"x": torch.full((1, 3), 20.0)})["y"].sum().backward()
    taken = [weight for name, weight in lifted.weights.items() if name.startswith("w") and weight.grad is not None]
    assert len(taken) == 1
    np.testing.assert_array_equal(taken[0].detach().numpy(), one)
    with torch.no_grad():
        for weight in lifted.parameters():
            weight.add_(0.5)
    made = write_back(source, lifted)
    for value in (-1.0, 1.0, 20.0):
        agree(made, lifted, {"x": np.full((1, 3), value, np.float32)})


def test_branches_that_are_equal_to_the_letter_keep_weights_of_their_own() -> None:
    (w,) = arrays((3,))
    branches = [inner("b", [helper.make_node("Add", ["x", "w"], ["o"])], [("o", FLOAT)], constants={"w": w}) for _ in range(2)]
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["up"]),
        helper.make_node("If", ["up"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    source = model(graph(nodes, {"x": [3]}, ["y"], {"zero": np.float32(0)}))
    lifted = lift(source)
    assert len(lifted.weights) == 2
    with torch.no_grad():
        for position, weight in enumerate(lifted.parameters()):
            weight.add_(position + 1)
    made = write_back(source, lifted)
    answers = [lifted({"x": torch.full((3,), value)})["y"] - value for value in (1.0, -1.0)]
    assert not torch.allclose(*answers)
    for value in (1, -1):
        agree(made, lifted, {"x": np.full(3, value, np.float32)})


def test_a_loop_carries_state_and_collects_rows() -> None:
    (w,) = arrays((3, 3))
    body = inner(
        "b",
        [
            helper.make_node("MatMul", ["h", "w"], ["m"]),
            helper.make_node("Tanh", ["m"], ["h2"]),
            helper.make_node("Identity", ["h2"], ["row"]),
            helper.make_node("Identity", ["go"], ["go2"]),
        ],
        [("go2", TensorProto.BOOL), ("h2", FLOAT), ("row", FLOAT)],
        [("i", TensorProto.INT64, []), ("go", TensorProto.BOOL, []), ("h", FLOAT, [1, 3])],
    )
    nodes = [helper.make_node("Loop", ["times", "", "x"], ["last", "rows"], body=body)]
    source = model(graph(nodes, {"x": [1, 3]}, ["last", "rows"], {"times": np.int64(4), "w": w}))
    lifted = lift(source)
    agree(source, lifted, {"x": arrays((1, 3), seed=1)[0]})
    lifted({"x": torch.ones(1, 3)})["last"].sum().backward()
    assert bool(lifted.weights["w"].grad.abs().sum() > 0)


def test_a_loop_ends_when_its_condition_does() -> None:
    body = inner(
        "b",
        [helper.make_node("Add", ["h", "h"], ["h2"]), helper.make_node("ReduceSum", ["h2"], ["s"], keepdims=0),
         helper.make_node("Less", ["s", "limit"], ["go2"])],
        [("go2", TensorProto.BOOL), ("h2", FLOAT)],
        [("i", TensorProto.INT64, []), ("go", TensorProto.BOOL, []), ("h", FLOAT, [2])],
    )  # fmt: skip
    nodes = [helper.make_node("Loop", ["", "yes", "x"], ["y"], body=body)]
    source = model(graph(nodes, {"x": [2]}, ["y"], {"yes": np.array(True), "limit": np.float32(100)}))
    agree(source, lift(source), {"x": np.ones(2, np.float32)})


@pytest.mark.parametrize("back", [0, 1])
def test_a_scan_runs_along_the_first_axis_both_ways(back: int) -> None:
    body = inner(
        "b",
        [
            helper.make_node("Mul", ["h", "w"], ["m"]),
            helper.make_node("Add", ["m", "part"], ["h2"]),
            helper.make_node("Identity", ["h2"], ["o"]),
        ],
        [("h2", FLOAT), ("o", FLOAT)],
        [("h", FLOAT, [3]), ("part", FLOAT, [3])],
    )
    nodes = [
        helper.make_node(
            "Scan",
            ["start", "x"],
            ["last", "rows"],
            body=body,
            num_scan_inputs=1,
            scan_input_directions=[back],
            scan_output_directions=[back],
        )
    ]
    source = model(graph(nodes, {"x": [5, 3]}, ["last", "rows"], {"start": np.zeros(3, np.float32), "w": arrays((3,))[0]}))
    agree(source, lift(source), {"x": arrays((5, 3), seed=1)[0]})


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize(("operator", "gates", "before"), [("LSTM", 4, 0), ("GRU", 3, 0), ("GRU", 3, 1), ("RNN", 1, 0)])
def test_recurrent_layers_agree(operator: str, gates: int, before: int, lengths: bool, direction: str) -> None:
    ways = 2 if direction == "bidirectional" else 1
    w, r, b, h, c, x = arrays((ways, gates * 4, 3), (ways, gates * 4, 4), (ways, 8 * gates), (ways, 2, 4), (ways, 2, 4), (5, 2, 3))
    constants = {"w": w, "r": r, "b": b, "h": h, "n": np.array([5, 3], np.int32)}
    names = ["x", "w", "r", "b", "n" if lengths else "", "h"]
    outputs = ["y", "yh"]
    extra = {"linear_before_reset": before} if operator == "GRU" else {}
    if operator == "LSTM":
        constants["c"] = c
        names.append("c")
        outputs.append("yc")
    node = helper.make_node(operator, names, outputs, hidden_size=4, direction=direction, **extra)
    source = model(graph([node], {"x": [5, 2, 3]}, outputs, constants))
    lifted = lift(source)
    agree(source, lifted, {"x": x})
    lifted({"x": torch.from_numpy(x)})["y"].sum().backward()
    assert all(weight.grad is not None for name, weight in lifted.weights.items() if name in ("w", "r", "b"))

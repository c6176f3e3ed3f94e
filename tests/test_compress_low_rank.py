"""Low-rank factoring: closed forms of the factors, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from headway.compress import Context
from headway.compress.factors import factor, targets
from headway.compress.session import answers, relative_error
from headway.compress.techniques import low_rank
from headway.compress.weightings import fisher
from headway.model import Model
from headway.records import ConfigError, LatencyTable, LayerTime, Unsupported

RNG = np.random.default_rng


def _model(
    nodes: list, weights: dict[str, np.ndarray], shape: list, outputs: list, kind: int = TensorProto.FLOAT, version: int = 17
) -> Model:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, ["n", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", *outputs])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return Model.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=8), "g", "onnx")


def _of_rank(rank: int, *shape: int, seed: int = 0) -> np.ndarray:
    rng = RNG(seed)
    return (rng.normal(size=(shape[0], rank)) @ rng.normal(size=(rank, shape[1])) / rank).astype(np.float32)


def _error(model: Model, after: Model, samples: dict[str, np.ndarray]) -> float:
    return relative_error(answers(model.to_proto(), samples, 8), answers(after.to_proto(), samples, 8))


def _ops(model: Model) -> list[str]:
    return [node.op_type for node in model.to_proto().graph.node]


def _gemm(version: int = 17, **attributes: object) -> Model:
    weight = _of_rank(4, 48, 40)
    weight = weight.T.copy() if attributes.get("transB") else weight
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], **attributes)
    return _model([node], {"w": weight, "b": np.ones(40, np.float32)}, [48], [40], version=version)


@pytest.mark.parametrize("attributes", [{}, {"transB": 1}, {"alpha": 0.5, "beta": 2.0, "transB": 1}])
@pytest.mark.parametrize("version", [11, 17])
def test_a_gemm_of_exact_rank_keeps_its_answers(attributes: dict[str, object], version: int) -> None:
    model = _gemm(version, **attributes)
    samples = {"x": RNG(1).normal(size=(32, 48)).astype(np.float32)}
    after = low_rank.apply(model, {"energy": 0.99999, "round_to": 1}, Context(samples=samples))
    assert _ops(after) == ["Gemm", "Gemm"]
    assert _error(model, after, samples) < 1e-4
    held = {tensor.name: tuple(tensor.dims) for tensor in after.to_proto().graph.initializer}
    assert held["w_into"] == (48, 4) and held["w_out"] == (4, 40)


@pytest.mark.parametrize("left", [False, True])
def test_a_product_of_exact_rank_keeps_its_answers_from_either_side(left: bool) -> None:
    weight = _of_rank(4, 40, 48) if left else _of_rank(4, 48, 40)
    node = helper.make_node("MatMul", ["w", "x"] if left else ["x", "w"], ["y"])
    model = _model([node], {"w": weight}, [48, 6] if left else [6, 48], [40, 6] if left else [6, 40])
    samples = {"x": RNG(1).normal(size=(16, *((48, 6) if left else (6, 48)))).astype(np.float32)}
    after = low_rank.apply(model, {"energy": 0.99999, "round_to": 1}, Context(samples=samples))
    assert _ops(after) == ["MatMul", "MatMul"] and _error(model, after, samples) < 1e-4


def _kernel(form: str, rank: int = 3, inputs: int = 12, outputs: int = 16) -> np.ndarray:
    rng = RNG(3)
    if form == "before":
        return np.einsum("ir,orab->oiab", rng.normal(size=(inputs, rank)), rng.normal(size=(outputs, rank, 3, 3))).astype(np.float32)
    if form == "after":
        return np.einsum("riab,or->oiab", rng.normal(size=(rank, inputs, 3, 3)), rng.normal(size=(outputs, rank))).astype(np.float32)
    return np.einsum("ria,orb->oiab", rng.normal(size=(rank, inputs, 3)), rng.normal(size=(outputs, rank, 3))).astype(np.float32)


@pytest.mark.parametrize("form", ["before", "after", "windows"])
@pytest.mark.parametrize(
    "attributes",
    [
        {"pads": [1, 1, 1, 1]},
        {"pads": [0, 1, 2, 0], "strides": [2, 1]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"dilations": [2, 1], "kernel_shape": [3, 3]},
    ],
)
def test_a_convolution_of_exact_rank_keeps_its_answers(form: str, attributes: dict[str, object]) -> None:
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], **attributes)
    model = _model([node], {"w": _kernel(form), "b": np.ones(16, np.float32)}, [12, 9, 11], [16, "h", "v"])
    samples = {"x": RNG(1).normal(size=(16, 12, 9, 11)).astype(np.float32)}
    after = low_rank.apply(model, {"energy": 0.99999, "round_to": 1}, Context(samples=samples))
    assert _ops(after) == ["Conv", "Conv"] and _error(model, after, samples) < 1e-4


@given(seed=st.integers(0, 10_000), rank=st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_the_weighted_truncation_never_loses_more_output_than_the_plain_one(seed: int, rank: int) -> None:
    rng = RNG(seed)
    inputs = rng.normal(size=(200, 20)) @ (rng.normal(size=(20, 20)) * np.geomspace(1, 0.02, 20))
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="it")
    model = _model([node], {"w": rng.normal(size=(20, 16)).astype(np.float32)}, [20], [16])
    target = targets(model.to_proto().graph, 1)[0]
    lost = {}
    for name, moment in (("plain", None), ("weighted", inputs.T @ inputs / len(inputs))):
        factors = factor(target, "plain", moment)
        kept = factors.first[:, :rank] @ factors.second[:rank]
        lost[name] = np.linalg.norm(inputs @ (target.kernel - kept)) / np.linalg.norm(inputs @ target.kernel)
        if name == "weighted":
            assert lost[name] ** 2 == pytest.approx(factors.lost(rank), rel=1e-2, abs=1e-4)
    assert lost["weighted"] <= lost["plain"] + 1e-3


def test_only_ranks_that_save_a_tenth_are_taken() -> None:
    model = _gemm()
    target = targets(model.to_proto().graph, 1)[0]
    ranks = low_rank._ranks(target, "plain", 1)
    assert max(ranks) * (48 + 40) <= 0.9 * 48 * 40 < (max(ranks) + 1) * (48 + 40)


@pytest.mark.parametrize("keep", [0.75, 0.5])
def test_the_budget_holds(keep: float) -> None:
    rng = RNG(5)
    nodes = [helper.make_node("MatMul", ["x", "a"], ["h"], name="one"), helper.make_node("MatMul", ["h", "b"], ["y"], name="two")]
    weights = {"a": rng.normal(size=(64, 64)).astype(np.float32), "b": _of_rank(8, 64, 64)}
    model, samples = _model(nodes, weights, [64], [64]), {"x": rng.normal(size=(64, 64)).astype(np.float32)}
    after = low_rank.apply(model, {"keep": keep, "least": 1}, Context(samples=samples))
    assert sum(np.prod(tensor.dims) for tensor in after.to_proto().graph.initializer) <= keep * 2 * 64 * 64
    if keep == 0.75:
        assert _error(model, after, samples) < 1e-4, "the layer of low rank goes first"


def test_measured_times_by_rank_decide_where_the_table_has_them() -> None:
    model, samples = _gemm(), {"x": RNG(1).normal(size=(32, 48)).astype(np.float32)}
    name = model.to_proto().graph.node[0].name or "y"

    def table(factored: float) -> LatencyTable:
        times = tuple(
            LayerTime(layer=name, inside=48, outside=40, rank=rank, time_s=time) for rank, time in ((0, 1.0), (8, factored), (16, factored))
        )
        return LatencyTable(digest=model.digest, runtime="it", threads=1, batch=1, overhead_s=0.0, times=times)

    slow, fast = (low_rank.apply(model, {"by": "latency"}, Context(samples=samples, latency=table(factored))) for factored in (2.0, 0.2))
    assert _ops(slow) == ["Gemm"] and _ops(fast) == ["Gemm", "Gemm"]


def test_tables_become_a_thinner_table_and_a_matrix() -> None:
    nodes = [helper.make_node("Gather", ["t", "x"], ["e"]), helper.make_node("MatMul", ["e", "w"], ["y"])]
    weights = {"t": _of_rank(5, 200, 32), "w": RNG(2).normal(size=(32, 48)).astype(np.float32)}
    model = _model(nodes, weights, [4], [4, 48], kind=TensorProto.INT64)
    samples = {"x": RNG(1).integers(0, 200, (16, 4))}
    after = low_rank.apply(model, {"tables": True, "energy": 1.0}, Context(samples=samples))
    assert _ops(after)[:2] == ["Gather", "MatMul"] and _error(model, after, samples) < 1e-4
    assert "t" not in {tensor.name for tensor in after.to_proto().graph.initializer}


def test_a_weight_in_two_layers_stays_one() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])]
    model, samples = _model(nodes, {"w": _of_rank(4, 40, 40)}, [40], [40]), {"x": RNG(1).normal(size=(32, 40)).astype(np.float32)}
    after = low_rank.apply(model, {"keep": 0.5}, Context(samples=samples))
    assert len(after.to_proto().graph.initializer) == 2 and _ops(after) == ["MatMul"] * 4
    assert _error(model, after, samples) < 1e-4


def test_what_cannot_be_factored_is_refused_by_name() -> None:
    grouped = helper.make_node("Conv", ["x", "w"], ["y"], name="depthwise", group=8)
    model = _model([grouped], {"w": np.ones((64, 8, 3, 3), np.float32)}, [64, 5, 5], [64, 3, 3])
    reason = low_rank.refuse(model, Context())
    assert reason is not None and "depthwise" in reason
    rounded = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], name="rounding")
    back = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"])
    reason = low_rank.refuse(_model([rounded, back], {}, [4], [4]), Context())
    assert reason is not None and "rounding" in reason


def test_settings_out_of_range_are_errors() -> None:
    model = _gemm()
    for wrong in ({"keep": 1.0}, {"energy": 1.5}, {"round_to": 0}, {"by": "time"}):
        with pytest.raises(ConfigError):
            low_rank.apply(model, wrong, Context())
    with pytest.raises(Unsupported, match="samples"):
        low_rank.apply(model, {}, Context())
    assert low_rank.ladder(model, Context())[0]["weight"] == "plain"


def test_subgraphs_are_left_alone() -> None:
    weight = numpy_helper.from_array(_of_rank(4, 48, 48), "inner")
    branch = helper.make_graph(
        [helper.make_node("MatMul", ["x", "inner"], ["z"])],
        "b",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [weight],
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    model = _model([node], {"c": np.array(True)}, [48], [48])
    assert low_rank.refuse(model, Context()) is not None


def test_a_result_is_a_valid_model() -> None:
    proto: ModelProto = low_rank.apply(_gemm(), {"weight": "plain"}, Context()).to_proto()
    assert [value.name for value in proto.graph.output] == ["y"]


def test_fisher_weighs_inputs_by_what_they_mean_to_the_answers() -> None:
    from_x, to_y = RNG(0).normal(size=(24, 64)).astype(np.float32), np.eye(64, dtype=np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], "first"), helper.make_node("MatMul", ["h", "v"], ["y"], "second")]
    model = _model(nodes, {"w": from_x, "v": to_y}, [24], [64])
    scales = np.geomspace(0.1, 3.0, 24)
    samples = {"x": (RNG(1).normal(size=(16, 24)) * scales).astype(np.float32)}
    proto = model.to_proto()
    found = targets(proto.graph, 1)
    moment = fisher.moments(proto, found, Context(samples=samples))["first"]
    share = np.diag(moment) / np.diag(moment).sum()
    seen = np.square(samples["x"]).sum(axis=0)
    assert np.count_nonzero(moment - np.diag(np.diag(moment))) == 0
    assert share == pytest.approx(seen / seen.sum(), rel=0.25)


@pytest.mark.parametrize("build", ["gemm", "conv"])
def test_fisher_keeps_exact_ranks_and_needs_samples(build: str) -> None:
    model = _gemm(transB=1)
    if build == "conv":
        weight = _of_rank(3, 32, 24).reshape(32, 24, 1, 1)
        model = _model([helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[1, 1])], {"w": weight}, [24, 5, 5], [32, 5, 5])
    samples = {"x": RNG(1).normal(size=(8, 48) if build == "gemm" else (8, 24, 5, 5)).astype(np.float32)}
    chosen = {"energy": 0.99999, "round_to": 1, "weight": "fisher", "least": 1}
    after = low_rank.apply(model, chosen, Context(samples=samples))
    assert len(_ops(after)) == 2 and _error(model, after, samples) < 1e-2
    assert low_rank.apply(model, chosen, Context(samples=samples)).to_bytes() == after.to_bytes()
    with pytest.raises(Unsupported, match="weight 'fisher' needs calibration samples"):
        low_rank.apply(model, chosen, Context())

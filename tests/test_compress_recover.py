"""The technique: what it asks for, what it offers, and what it mends."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy.special import log_softmax, softmax

from headway.compress import Context, LabelledRows, make
from headway.compress.session import answers, relative_error
from headway.compress.techniques import quantize_dynamic, recover
from headway.compress.techniques.contract import Technique
from headway.lift import lift
from headway.model import Model
from headway.records import ConfigError, Step, Unsupported
from headway.testing.small_graphs import cnn, mlp, samples
from headway.testing.techniques import TechniqueContract
from headway.train import recovering
from training_graphs import clouds, model_of, network, weights_of


def rows(count: int = 240, seed: int = 0) -> LabelledRows:
    x, label = clouds(count, seed=seed)
    return LabelledRows({"x": x}, label)


def context(**given: object) -> Context:
    return replace(Context(samples={"x": rows(64, 2).inputs["x"]}, train=rows(), selection=rows(80, 1)), **given)


def agreement(model: Model, parent: Model) -> float:
    x, _ = clouds(400, seed=5)
    left, right = (answers(each.to_proto(), {"x": x}, 400)[0][0].argmax(1) for each in (model, parent))
    return float((left == right).mean())


@pytest.fixture(scope="module")
def parent() -> Model:
    return recover.apply(network(), {"learning_rate": 0.02, "epochs": 8}, context())


def four_bits(model: Model, *, activations: bool = False) -> Model:
    """Weights of both layers in 4 bits with one scale each, rounded to nearest; on request the inner value too."""
    held = weights_of(model)
    arrays, nodes = {name: array for name, array in held.items() if array.ndim == 1}, []
    for name in ("w1", "w2"):
        scale = np.abs(held[name]).max() / 7
        arrays |= {f"{name}_s": np.float32(scale), f"{name}_q": np.clip(np.round(held[name] / scale), -8, 7).astype(np.int8)}
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", f"{name}_s"], [name], name=f"dq_{name}"))
    between = "r"
    if activations:
        arrays |= {"r_s": np.float32(0.5), "r_z": np.uint8(0)}
        nodes_between = [
            helper.make_node("QuantizeLinear", ["r", "r_s", "r_z"], ["r_q"], name="q"),
            helper.make_node("DequantizeLinear", ["r_q", "r_s", "r_z"], ["r_d"], name="dq"),
        ]
        between = "r_d"
    nodes += [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="first", transB=1),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        *(nodes_between if activations else []),
        helper.make_node("Gemm", [between, "w2", "b2"], ["y"], name="second", transB=1),
    ]
    made = model_of(nodes, arrays, {"x": (TensorProto.FLOAT, ["n", 4])}, {"y": (TensorProto.FLOAT, ["n", 3])}, model.name)
    proto = made.to_proto()
    proto.opset_import[0].version, proto.ir_version = 21, 10
    for tensor in proto.graph.initializer:
        if tensor.name in ("w1_q", "w2_q"):
            codes = numpy_helper.to_array(tensor)
            tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.INT4, codes.shape, codes.reshape(-1).tolist()))
    return Model.from_proto(proto, model.name, model.origin)


class TestContract(TechniqueContract):
    """The suite that every technique passes, here with rows to learn from."""

    largest_error = 0.5

    @pytest.fixture(scope="class")
    @classmethod
    def technique(cls) -> Technique:
        return recover

    @pytest.fixture(scope="class")
    @classmethod
    def context(cls, model: Model) -> Context:
        inputs = samples(model.to_proto(), 24)
        labels = answers(model.to_proto(), inputs, 24)[0][0].argmax(1)
        return Context(samples=inputs, train=LabelledRows(inputs, labels), parent=model)


class TestOffer:
    def test_without_training_rows_it_says_why(self) -> None:
        for given in ({"train": None}, {"train": LabelledRows({"x": np.zeros((0, 4), np.float32)})}, {"train": None, "samples": {}}):
            here = context(**given)
            assert "--train" in str(recover.refuse(network(), here)) and recover.ladder(network(), here) == ()
            with pytest.raises(Unsupported, match="training rows"):
                recover.apply(network(), {}, here)

    def test_with_them_a_short_and_a_longer_training(self) -> None:
        ladder = recover.ladder(network(), context())
        assert len(ladder) == 2 and ladder[0]["epochs"] < ladder[1]["epochs"]
        assert recover.ORDER is None and all(str(Step(technique="recover", settings=rung)) for rung in ladder)

    @pytest.mark.parametrize(
        "wrong", [{"epoch": 3}, {"epochs": 0}, {"loss": "focal"}, {"distil": 2.0}, {"rows": "all"}, {"temperature": 0.0}]
    )
    def test_settings_that_cannot_work_are_refused(self, wrong: dict) -> None:
        with pytest.raises(ConfigError):
            recover.apply(network(), wrong, context(parent=network()))


class TestMending:
    def test_damage_is_mended_and_the_bytes_repeat(self, parent: Model) -> None:
        noise = np.random.default_rng(0)
        proto = parent.to_proto()
        for tensor in proto.graph.initializer:
            array = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array((array + noise.normal(0, 0.7, array.shape)).astype(np.float32), tensor.name))
        damaged = Model.from_proto(proto, "damaged", "onnx")
        here, settings = context(parent=parent), {"learning_rate": 0.02, "epochs": 10, "distil": 0.9}
        first, second = (recover.apply(damaged, dict(settings), here) for _ in range(2))
        assert agreement(damaged, parent) < 0.7 and agreement(first, parent) > 0.93
        assert first.to_bytes() == second.to_bytes() and (first.inputs, first.outputs, first.name) == (
            damaged.inputs,
            damaged.outputs,
            "damaged",
        )

    @pytest.mark.parametrize("source", ["calibration", "synthetic"])
    def test_the_parent_alone_is_enough_when_asked(self, parent: Model, source: str) -> None:
        proto = network(5).to_proto()
        student = Model.from_proto(proto, "student", "onnx")
        here = context(parent=parent, train=None, selection=None)
        settings = {"rows": source, "learning_rate": 0.03, "epochs": 20, "batch": 16}
        assert agreement(student, parent) < 0.7 and agreement(recover.apply(student, settings, here), parent) > 0.85
        with pytest.raises(Unsupported, match="teacher"):
            recover.apply(student, settings, replace(here, parent=None))

    def test_in_a_recipe(self, parent: Model) -> None:
        here = replace(context(), parent=None)
        recipe = (Step(technique="fold"), Step(technique="quantize_static"), Step(technique="recover", settings={"epochs": 1}))
        made = make(parent, recipe, here)
        assert made.precision == "int8" and agreement(made.model, parent) > 0.95

    def test_dynamic_integers_stay_near_and_what_is_float_learns(self) -> None:
        model = Model.from_proto(mlp(), "mlp", "onnx")
        inputs = samples(model.to_proto(), 64)
        here = Context(samples=inputs, train=LabelledRows(inputs), parent=model)
        narrow = quantize_dynamic.apply(model, {}, here)
        after = recover.apply(narrow, {"epochs": 10, "learning_rate": 0.003}, here)
        before, now = (relative_error(*(answers(each.to_proto(), inputs, 64) for each in (model, other))) for other in (narrow, after))
        assert after.digest != narrow.digest and now < before
        assert not {name for name, array in weights_of(after).items() if "scale" in name and (array != weights_of(narrow)[name]).any()}

    def test_each_graph_is_lifted_once(self, parent: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        lifted: list[Model] = []
        for module in (recover, recovering):
            monkeypatch.setattr(module, "lift", lambda model, **more: lifted.append(model) or lift(model, **more))
        here = replace(context(), parent=parent)
        recover.apply(four_bits(parent), {"epochs": 1}, here)
        assert len(lifted) == 2  # the student and its teacher, from which the student also starts

    def test_nothing_that_learns_is_refused(self) -> None:
        nodes = [helper.make_node("Relu", ["x"], ["y"], name="only")]
        model = model_of(nodes, {}, {"x": (TensorProto.FLOAT, ["n", 4])}, {"y": (TensorProto.FLOAT, ["n", 4])})
        assert "float weight" in str(recover.refuse(model, context()))
        with pytest.raises(Unsupported, match="float weight"):
            recover.apply(model, {}, context())

    def test_multi_task_attack_and_feature_settings_run(self, parent: Model) -> None:
        settings = {"epochs": 1, "balance": "uncertainty", "conflicts": "pcgrad", "attack_radius": 0.1, "attack_steps": 2, "features": 0.5}
        assert recover.apply(parent, settings, context(parent=parent)).digest != parent.digest

    def test_a_convolutional_network_with_folded_normalisation(self) -> None:
        model = Model.from_proto(cnn(), "cnn", "onnx")
        inputs = samples(model.to_proto(), 64)
        labels = answers(model.to_proto(), inputs, 64)[0][0].argmax(1)
        here = Context(samples=inputs, train=LabelledRows(inputs, labels))
        made = make(
            model, (Step(technique="fold"), Step(technique="quantize_static"), Step(technique="recover", settings={"epochs": 2})), here
        )
        assert (answers(made.model.to_proto(), inputs, 64)[0][0].argmax(1) == labels).mean() > 0.9


class TestQuantizationAware:
    @pytest.mark.parametrize("activations", [False, True])
    def test_it_closes_half_of_what_four_bits_cost(self, parent: Model, activations: bool) -> None:
        x, _ = clouds(600, seed=7)
        rounded = four_bits(parent, activations=activations)
        settings = {"epochs": 25, "learning_rate": 0.01, "distil": 1.0, "temperature": 1.0}
        trained = recover.apply(rounded, settings, context(parent=parent, selection=None))

        def distance(model: Model) -> float:
            own, theirs = (answers(each.to_proto(), {"x": x}, 600)[0][0] for each in (model, parent))
            return float((softmax(theirs, 1) * (log_softmax(theirs, 1) - log_softmax(own, 1))).sum(1).mean())

        assert distance(trained) < distance(rounded) / 2
        after = {tensor.name: tensor for tensor in trained.to_proto().graph.initializer}
        assert after["w1_q"].data_type == TensorProto.INT4 and [node.op_type for node in trained.to_proto().graph.node] == [
            node.op_type for node in rounded.to_proto().graph.node
        ]
        assert numpy_helper.to_array(after["w1_s"]) > 0

    def test_pruned_codes_stay_zero(self, parent: Model) -> None:
        proto = parent.to_proto()
        for tensor in proto.graph.initializer:
            if tensor.name == "w1":
                array = np.array(numpy_helper.to_array(tensor))
                array[np.abs(array) < np.quantile(np.abs(array), 0.6)] = 0
                tensor.CopyFrom(numpy_helper.from_array(array, "w1"))
        rounded = four_bits(Model.from_proto(proto, "pruned", "onnx"))
        before = weights_of(rounded)["w1_q"].astype(int)
        after = weights_of(recover.apply(rounded, {"learning_rate": 0.02}, context(parent=parent)))["w1_q"].astype(int)
        assert (before == 0).mean() > 0.5 and not after[before == 0].any() and (after != before).any()


def test_the_page_lists_every_setting_with_its_default() -> None:
    page = (Path(__file__).parent.parent / "docs" / "recover.md").read_text("utf-8")
    listed = dict(re.findall(r"^\| `(\w+)` \| `?([\w.]+)`? \|", page, re.MULTILINE))
    assert listed == {name: str(value) for name, value in recover.DEFAULTS.items()}

"""Whole trainings of small graphs, each well under a second or two."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from headway.compress.session import answers
from headway.model import Model
from headway.records import ConfigError, InputError
from headway.train import (
    Attack,
    Distillation,
    FeaturePair,
    Progress,
    Schedule,
    Settings,
    Tasks,
    distil,
    matching_values,
    recover,
    synthetic_rows,
)
from training_graphs import clouds, model_of, network, weights_of

FAST = Settings(schedule=Schedule(epochs=6, batch=32, learning_rate=0.02))


def outputs(model: Model, x: np.ndarray, name: str = "y") -> np.ndarray:
    place = [spec.name for spec in model.outputs].index(name)
    return answers(model.to_proto(), {model.inputs[0].name: x}, len(x))[0][place]


def accuracy(model: Model, x: np.ndarray, label: np.ndarray) -> float:
    return float((outputs(model, x).argmax(1) == label).mean())


def trained() -> Model:
    x, label = clouds()
    return recover(network(), inputs={"x": x}, labels=label, settings=FAST).model


def changed(model: Model, **arrays: np.ndarray) -> Model:
    """The model with other values in some initializers."""
    proto = model.to_proto()
    for tensor in proto.graph.initializer:
        if tensor.name in arrays:
            tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name].astype(np.float32), tensor.name))
    return Model.from_proto(proto, model.name, model.origin)


class TestTask:
    @pytest.mark.parametrize("softmax", [False, True])
    def test_it_learns_classes(self, softmax: bool) -> None:
        x, label = clouds()
        model = network(softmax=softmax)
        before = model.to_bytes()
        done = recover(model, inputs={"x": x}, labels=label, settings=FAST)
        assert accuracy(model, x, label) < 0.7 and accuracy(done.model, *clouds(seed=1)) > 0.93
        assert model.to_bytes() == before and done.model.inputs == model.inputs and done.stopped == "all steps done"
        assert done.steps == 6 * 8 and [epoch.number for epoch in done.history] == list(range(7))

    def test_it_learns_numbers_and_yes_or_no(self) -> None:
        x, label = clouds(classes=2)
        number = (x[:, :1] * 3 + x[:, 1:2]).astype(np.float32)
        for target, limit in ((number, 0.05), (label == 1, 0.03)):
            done = recover(
                network(classes=1), inputs={"x": x}, labels=target, selection=SimpleNamespace(inputs={"x": x}, labels=target),
                settings=replace(FAST, schedule=Schedule(epochs=12, batch=32, learning_rate=0.03)),
            )  # fmt: skip
            assert done.history[-1].scores[0].error < limit

    def test_the_best_epoch_on_the_selection_rows_is_kept(self) -> None:
        x, label = clouds()
        model = trained()
        chosen = SimpleNamespace(inputs={"x": x}, labels=label)
        ruin = recover(
            model,
            inputs={"x": x},
            labels=(label + 1) % 3,
            selection=chosen,
            settings=replace(FAST, schedule=replace(FAST.schedule, patience=2)),
        )
        assert ruin.history[0].kept and not any(epoch.kept for epoch in ruin.history[1:])
        assert "2 epochs" in ruin.stopped and len(ruin.history) == 3
        assert weights_of(ruin.model)["w1"].tobytes() == weights_of(model)["w1"].tobytes()

    def test_a_step_budget_and_reports(self) -> None:
        x, label = clouds()
        seen: list[Progress] = []
        done = recover(
            network(), inputs={"x": x}, labels=label, settings=replace(FAST, schedule=replace(FAST.schedule, steps=11)), report=seen.append
        )
        assert done.steps == 11 and [one.step for one in seen] == list(range(1, 12)) and seen[-1].steps == 11 and seen[-1].epoch == 2

    def test_a_time_cap_ends_it(self) -> None:
        x, label = clouds()
        schedule = replace(FAST.schedule, epochs=10_000, limit_s=0.05)
        assert "0.05 s" in recover(network(), inputs={"x": x}, labels=label, settings=replace(FAST, schedule=schedule)).stopped

    def test_a_loss_that_bursts_gives_the_start_back(self) -> None:
        x, label = clouds()
        bad = x.copy()
        bad[:, 0] = np.nan
        model = network()
        done = recover(model, inputs={"x": bad}, labels=label, settings=FAST)
        assert "not finite" in done.stopped and weights_of(done.model)["w1"].tobytes() == weights_of(model)["w1"].tobytes()

    def test_frozen_weights_and_zeros_stay(self) -> None:
        x, label = clouds()
        array = np.array(weights_of(network())["w1"])
        array.flat[::3] = 0
        model = changed(network(), w1=array)
        done = recover(model, inputs={"x": x}, labels=label, settings=replace(FAST, frozen=("w2",)))
        after = weights_of(done.model)
        assert (
            not after["w1"].flat[::3].any() and (after["w1"].flat[1::3] != array.flat[1::3]).all() and accuracy(done.model, x, label) > 0.8
        )
        assert after["w2"].tobytes() == weights_of(model)["w2"].tobytes()
        free = weights_of(recover(model, inputs={"x": x}, labels=label, settings=replace(FAST, keep_zeros=False)).model)
        assert free["w1"].flat[::3].all()


class TestTeachers:
    def test_without_labels_the_parent_is_enough(self) -> None:
        x, label = clouds()
        parent = trained()
        for losses in ({}, {"y": "classes"}):
            done = distil(network(7), parent, inputs={"x": x}, settings=replace(FAST, tasks=Tasks(losses=losses)))
            judged = distil(network(7), parent, inputs={"x": x}, selection=SimpleNamespace(inputs={"x": x}, labels=label), settings=FAST)
            assert judged.history[-1].scores[0].error < 0.1
            assert accuracy(network(7), x, label) < 0.6 and (outputs(done.model, x).argmax(1) == outputs(parent, x).argmax(1)).mean() > 0.95

    def test_several_teachers_are_mixed_by_their_shares(self) -> None:
        x, _ = clouds()
        teachers = tuple(changed(network(classes=1), b2=np.array([value], np.float32)) for value in (0, 4))
        for shares, middle in (((), 2.0), ((3.0, 1.0), 1.0)):
            settings = replace(FAST, distillation=Distillation(shares=shares), schedule=Schedule(epochs=12, batch=32, learning_rate=0.05))
            done = recover(network(classes=1), inputs={"x": x}, teachers=teachers, settings=settings)
            moved = outputs(done.model, x) - outputs(network(classes=1), x)
            assert float(moved.mean()) == pytest.approx(middle, abs=0.1)

    def test_inner_values_come_near_the_teacher(self) -> None:
        x, _ = clouds()
        parent, student = trained(), network(7)
        pairs = matching_values(student, parent, {"x": x})
        assert [pair.student for pair in pairs] == ["h", "r"]
        for loss in ("mse", "cosine"):
            pair = FeaturePair(student="h", teacher="h", loss=loss, weight=5.0)
            done = recover(
                student, inputs={"x": x}, teachers=(parent,), settings=replace(FAST, distillation=Distillation(features=(pair,)))
            )
            inner = {name: inner_values(model, x) for name, model in (("parent", parent), ("before", student), ("after", done.model))}
            assert cosines(inner["before"], inner["parent"]) < 0.5 and cosines(inner["after"], inner["parent"]) > 0.8

    def test_a_wrong_number_of_shares_or_a_stranger_is_refused(self) -> None:
        x, _ = clouds()
        with pytest.raises(ConfigError, match=r"one a teacher \(1\)"):
            recover(network(), inputs={"x": x}, teachers=(trained(),), settings=replace(FAST, distillation=Distillation(shares=(1.0, 1.0))))
        proto = trained().to_proto()
        stranger = model_of(proto.graph.node, weights_of(trained()), {"x": (1, ["n", 4]), "z": (1, ["n", 4])}, {"y": (1, ["n", 3])})
        with pytest.raises(ConfigError, match="got z more"):
            recover(network(), inputs={"x": x}, teachers=(stranger,), settings=FAST)


def inner_values(model: Model, x: np.ndarray) -> np.ndarray:
    held = weights_of(model)
    return x @ held["w1"].T + held["b1"]


def cosines(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.mean((left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)))


class TestManyTasks:
    @pytest.mark.parametrize("balance", ["given", "uncertainty"])
    @pytest.mark.parametrize("conflicts", ["sum", "pcgrad"])
    def test_two_outputs_are_learned_and_reported_each(self, balance: str, conflicts: str) -> None:
        x, label = clouds()
        labels = {"y": label, "number": (x[:, :1] - x[:, 1:2]) * 3}
        settings = replace(
            FAST, tasks=Tasks(balance=balance, conflicts=conflicts), schedule=Schedule(epochs=40, batch=32, learning_rate=0.03, clip=0)
        )
        done = recover(
            network(heads=2), inputs={"x": x}, labels=labels, selection=SimpleNamespace(inputs={"x": x}, labels=labels), settings=settings
        )
        scores = {score.output: score for score in next(epoch for epoch in done.history if epoch.kept).scores}
        assert scores["y"].error < 0.06 and scores["number"].error < 0.35
        assert done.history[0].value == pytest.approx(2) and done.history[-1].value < 1

    def test_a_weight_of_zero_leaves_an_output_alone(self) -> None:
        x, label = clouds()
        labels = {"y": label, "number": x[:, :1]}
        done = recover(network(heads=2), inputs={"x": x}, labels=labels, settings=replace(FAST, tasks=Tasks(weights={"number": 0.0})))
        assert weights_of(done.model)["w3"].tobytes() == weights_of(network(heads=2))["w3"].tobytes()

    def test_one_output_by_labels_and_one_by_the_teacher(self) -> None:
        x, label = clouds()
        parent = recover(network(heads=2), inputs={"x": x}, labels={"y": label, "number": x[:, :1]}, settings=FAST).model
        done = recover(network(5, heads=2), inputs={"x": x}, labels=label, teachers=(parent,), settings=FAST)
        near = np.corrcoef(outputs(done.model, x, "number")[:, 0], outputs(parent, x, "number")[:, 0])[0, 1]
        assert accuracy(done.model, x, label) > 0.9 and near > 0.9


class TestAttacked:
    def test_robust_accuracy_rises(self) -> None:
        rng = np.random.default_rng(0)
        label = rng.integers(0, 2, 400)
        sign = (2 * label - 1)[:, None]
        weak = sign * 0.3 + 0.02 * rng.normal(size=(400, 8))  # tells the classes perfectly, but a change of 0.4 turns it round
        strong = sign + 0.7 * rng.normal(size=(400, 1))  # tells them less well, and holds
        x = np.concatenate([strong, weak], axis=1).astype(np.float32)
        chosen = SimpleNamespace(inputs={"x": x}, labels=label)
        found = {}
        for name, attack in (("plain", None), ("hard", Attack(radius=0.4, steps=5))):
            settings = Settings(attack=attack, schedule=Schedule(epochs=10, batch=50, learning_rate=0.02))
            model = recover(network(inside=9, classes=2), inputs={"x": x}, labels=label, settings=settings).model
            judged = Settings(attack=Attack(radius=0.4, steps=10), schedule=Schedule(epochs=1, steps=1, learning_rate=1e-12))
            found[name] = recover(model, inputs={"x": x}, labels=label, selection=chosen, settings=judged).history[0].scores[0]
        assert found["plain"].error < 0.02 and found["plain"].attacked_error > 0.5
        assert found["hard"].attacked_error < found["plain"].attacked_error - 0.2


class TestSynthetic:
    def batch_normed(self) -> tuple[Model, Model]:
        """A network whose normalisation knows the statistics of data far from 0, and its first layer alone."""
        rng = np.random.default_rng(0)
        arrays = {"w": rng.normal(size=(6, 2, 3, 3)).astype(np.float32)}
        nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4)]
        shape = {"x": (TensorProto.FLOAT, ["n", 2, 8, 8])}
        first = model_of(nodes, arrays, shape, {"c": (TensorProto.FLOAT, ["n", 6, 8, 8])})
        seen = outputs(first, rng.normal(3, 2, (64, 2, 8, 8)).astype(np.float32), "c")
        arrays |= {"one": np.ones(6, np.float32), "zero": np.zeros(6, np.float32), "head": rng.normal(size=(3, 6)).astype(np.float32)}
        arrays |= {"mean": seen.mean((0, 2, 3)), "var": seen.var((0, 2, 3))}
        nodes += [
            helper.make_node("BatchNormalization", ["c", "one", "zero", "mean", "var"], ["b"]),
            helper.make_node("Relu", ["b"], ["r"]),
            helper.make_node("GlobalAveragePool", ["r"], ["g"]),
            helper.make_node("Flatten", ["g"], ["f"]),
            helper.make_node("Gemm", ["f", "head"], ["y"], transB=1),
        ]
        return model_of(nodes, arrays, shape, {"y": (TensorProto.FLOAT, ["n", 3])}), first

    def test_statistics_of_normalisations_are_matched(self) -> None:
        model, first = self.batch_normed()
        gaps = []
        for steps in (0, 80):
            rows = synthetic_rows(model, 32, steps=steps)
            seen, held = outputs(first, rows.inputs["x"], "c"), weights_of(model)
            gaps.append(float((np.abs(seen.mean((0, 2, 3)) - held["mean"]) / held["var"] ** 0.5).max()))
        assert "noise" not in rows.message and gaps[0] > 1 and gaps[1] < 0.2
        assert synthetic_rows(model, 32, steps=80).inputs["x"].tobytes() == rows.inputs["x"].tobytes()

    def test_indices_lie_within_their_table_and_masks_are_prefixes(self) -> None:
        arrays = {"table": np.zeros((50, 4), np.float32)}
        nodes = [helper.make_node("Gather", ["table", "ids"], ["e"]), helper.make_node("Cast", ["mask"], ["m"], to=1)]
        inputs = {name: (TensorProto.INT64, ["n", 7]) for name in ("ids", "mask")}
        model = model_of(nodes, arrays, inputs, {"e": (1, ["n", 7, 4]), "m": (1, ["n", 7])})
        rows = synthetic_rows(model, 40, seed=1)
        assert "noise" in rows.message and rows.inputs["ids"].max() > 40 and rows.inputs["ids"].min() >= 0 and rows.inputs["ids"].max() < 50
        assert (np.diff(rows.inputs["mask"], axis=1) <= 0).all() and (rows.inputs["mask"][:, 0] == 1).all()

    def test_ranges_of_samples_are_kept(self) -> None:
        like = {"x": np.linspace(10, 11, 8, dtype=np.float32).reshape(2, 4)}
        made = synthetic_rows(network(), 100, like=like).inputs["x"]
        assert made.min() >= 10 and made.max() <= 11

    def test_a_damaged_model_recovers_on_made_up_rows(self) -> None:
        x, _ = clouds()
        parent = trained()
        noise = np.random.default_rng(3)
        damaged = changed(
            parent, **{name: array + 0.8 * array.std() * noise.normal(size=array.shape) for name, array in weights_of(parent).items()}
        )
        rows = synthetic_rows(parent, 512, like={"x": x}).inputs
        done = recover(damaged, inputs=rows, teachers=(parent,), settings=FAST)
        same = [float((outputs(model, x).argmax(1) == outputs(parent, x).argmax(1)).mean()) for model in (damaged, done.model)]
        assert same[0] < 0.9 and same[1] > 0.96


class TestRepeatability:
    SETTINGS = replace(
        FAST, attack=Attack(radius=0.05, steps=2), tasks=Tasks(balance="uncertainty", conflicts="pcgrad"), distillation=Distillation(weight=0.3),
        schedule=Schedule(epochs=5, batch=32, learning_rate=0.01),
    )  # fmt: skip

    def arguments(self) -> dict:
        x, label = clouds()
        labels = {"y": label, "number": x[:, :1]}
        chosen = SimpleNamespace(inputs={"x": x[:50]}, labels={name: array[:50] for name, array in labels.items()})
        return {"inputs": {"x": x}, "labels": labels, "selection": chosen, "teachers": (network(9, heads=2),), "settings": self.SETTINGS}

    def test_same_arguments_same_bytes(self) -> None:
        first, second = (recover(network(heads=2), **self.arguments()) for _ in range(2))
        assert first.model.to_bytes() == second.model.to_bytes() and first.history == second.history
        other = recover(network(heads=2), **{**self.arguments(), "settings": replace(self.SETTINGS, seed=1)})
        assert other.model.to_bytes() != first.model.to_bytes()

    @pytest.mark.parametrize("cut", [0, 9, 25])
    def test_a_training_cut_off_goes_on_to_the_same_bytes(self, tmp_path: Path, cut: int) -> None:
        whole = recover(network(heads=2), **self.arguments())

        def stop(progress: Progress) -> None:
            if progress.step > cut:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            recover(network(heads=2), **self.arguments(), folder=tmp_path, report=stop)
        seen: list[Progress] = []
        resumed = recover(network(heads=2), **self.arguments(), folder=tmp_path, report=seen.append)
        assert resumed.model.to_bytes() == whole.model.to_bytes() and resumed.history == whole.history
        assert seen[0].step == cut // 8 * 8 + 1
        again = recover(network(heads=2), **self.arguments(), folder=tmp_path, report=stop)
        assert again.model.to_bytes() == whole.model.to_bytes()

    def test_a_checkpoint_of_another_training_or_a_torn_one_is_refused(self, tmp_path: Path) -> None:
        x, label = clouds()
        recover(network(), inputs={"x": x}, labels=label, settings=FAST, folder=tmp_path)
        with pytest.raises(ConfigError, match="another folder"):
            recover(network(), inputs={"x": x}, labels=label, settings=replace(FAST, seed=1), folder=tmp_path)
        (tmp_path / "checkpoint.pt").write_bytes(b"torn")
        with pytest.raises(InputError, match="delete it"):
            recover(network(), inputs={"x": x}, labels=label, settings=FAST, folder=tmp_path)

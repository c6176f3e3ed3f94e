"""Losses, schedule, gradients and weights of tasks against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headway.records import ConfigError, DataError
from headway.train import Attack, Distillation, FeaturePair, Schedule, Tasks
from headway.train.aims import Aim, aims
from headway.train.attack import Attacker
from headway.train.balance import Uncertainty
from headway.train.conflicts import into_gradients, project
from headway.train.losses import features, logits, task
from headway.train.rows import Rows
from headway.train.schedule import rate_factor, step_count


def rows_of(labels: dict[str, np.ndarray], **inputs: np.ndarray) -> Rows:
    return Rows(inputs, labels, len(next(iter({**inputs, **labels}.values()))), 0)


def aim_of(output: torch.Tensor, labels: np.ndarray | None, loss: str = "auto") -> Aim:
    rows = rows_of({} if labels is None else {"y": labels}, x=np.zeros(len(output)))
    return aims({"y": output}, rows, Tasks(losses={"y": loss}), Distillation(), taught=labels is None)[0]


class TestTaskLosses:
    def test_cross_entropy_of_equal_scores_is_the_logarithm_of_their_number(self) -> None:
        assert float(task.classes(torch.zeros(5, 4), torch.arange(5) % 4)) == pytest.approx(math.log(4))

    def test_probabilities_and_their_logits_have_one_loss(self) -> None:
        scores, labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0, 1, 2])
        expected = float(task.classes(scores, labels))
        assert float(task.classes(scores.softmax(-1), labels, probabilities=True)) == pytest.approx(expected, rel=1e-5)
        flags = labels[:, None].clamp(max=1)
        expected = float(task.binary(scores[:, :1], flags))
        assert float(task.binary(scores[:, :1].sigmoid(), flags, probabilities=True)) == pytest.approx(expected, rel=1e-4)

    def test_the_class_axis_may_stand_in_front_of_places(self) -> None:
        scores, labels = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1)), torch.zeros(2, 4, 5, dtype=torch.int64)
        assert float(task.classes(scores, labels, axis=1)) == pytest.approx(float(torch.nn.functional.cross_entropy(scores, labels)))

    def test_predicting_the_mean_leaves_all_of_the_variance(self) -> None:
        labels = torch.tensor([[1.0], [2.0], [6.0]])
        assert float(task.squared(torch.full((3, 1), 3.0), labels, variance=task.spread(labels))) == pytest.approx(1)
        assert float(task.squared(labels, labels, variance=task.spread(labels))) == 0

    def test_errors_are_shares(self) -> None:
        assert float(task.wrong_classes(torch.eye(4), torch.tensor([0, 1, 2, 0]))) == 0.25
        assert float(task.wrong_answers(torch.tensor([0.2, 0.8]), torch.tensor([1, 1]), probabilities=True)) == 0.5
        assert float(task.wrong_answers(torch.tensor([-0.2, 0.8]), torch.tensor([0, 1]))) == 0


class TestDistillation:
    @given(st.floats(0.5, 20), st.integers(0, 1000))
    def test_a_teacher_is_its_own_best_student(self, temperature: float, seed: int) -> None:
        scores = torch.randn(4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for shape, loss in ((scores, "classes"), (scores[:, :1], "binary"), (scores, "mse")):
            aim = Aim(output="y", loss=loss, labelled=False)
            target = aim.soften(shape, temperature)
            own = float(aim.towards_teachers(shape, target, temperature))
            other = float(aim.towards_teachers(shape + torch.arange(shape.shape[1]) + 1, target, temperature))
            assert own == pytest.approx(0, abs=1e-9) and other > 0

    def test_it_is_the_divergence_times_the_temperature_squared(self) -> None:
        student, teacher, temperature = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 1.0]]), 4.0
        p, q = torch.softmax(teacher / temperature, -1), torch.softmax(student / temperature, -1)
        expected = float(temperature**2 * (p * (p / q).log()).sum())
        got = logits.classes(student, p, axis=-1, probabilities=False, temperature=temperature)
        assert float(got) == pytest.approx(expected, rel=1e-5)

    def test_hot_gradients_come_near_those_of_the_logits_difference(self) -> None:
        student, teacher = torch.tensor([[1.0, -1.0, 0.0]], requires_grad=True), torch.tensor([[0.5, 0.5, -1.0]])
        target = logits.soft_classes(teacher, axis=-1, probabilities=False, temperature=1000)
        logits.classes(student, target, axis=-1, probabilities=False, temperature=1000).backward()
        assert torch.allclose(student.grad, (student.detach() - teacher) / 3, atol=1e-2)  # Hinton et al., equation 4

    def test_teachers_are_averaged_by_their_shares(self) -> None:
        parts = [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])]
        assert logits.mixed(parts, ()).tolist() == [0.5, 0.5]
        assert logits.mixed(parts, (3, 1)).tolist() == [0.75, 0.25]

    def test_features(self) -> None:
        value = torch.tensor([[3.0, 4.0]])
        assert float(features.mse(value, value)) == 0 and float(features.mse(value * 0, value)) == pytest.approx(1)
        assert float(features.cosine(value * 7, value)) == pytest.approx(0, abs=1e-6)
        assert float(features.cosine(-value, value)) == pytest.approx(2)


class TestAims:
    def test_the_loss_follows_labels_and_output(self) -> None:
        scores = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
        whole, flags = np.array([0, 1, 2, 0, 1, 2]), np.array([0, 1, 1, 0, 1, 0])
        assert aim_of(scores, whole).loss == "classes" and aim_of(scores, whole[:, None]).loss == "classes"
        assert aim_of(scores[:, :1], flags).loss == "binary" and aim_of(scores[:, 0], flags.astype(np.float32)).loss == "binary"
        assert aim_of(scores, np.eye(3)[whole]).loss == "binary"
        assert aim_of(scores, scores.numpy()).loss == "mse" and aim_of(scores[:, 0], np.linspace(-1, 1, 6)).loss == "mse"
        assert aim_of(scores, None).loss == "mse" and aim_of(scores, None, "classes").loss == "classes"

    def test_probabilities_are_told_from_logits(self) -> None:
        scores, whole = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), np.array([0, 1, 2, 0, 1, 2])
        assert aim_of(scores.softmax(1), whole).probabilities and not aim_of(scores, whole).probabilities
        assert aim_of(scores[:, :1].sigmoid(), whole.clip(max=1)).probabilities

    def test_places_have_their_classes_last_or_second(self) -> None:
        assert aim_of(torch.zeros(2, 3, 4, 5), np.zeros((2, 4, 5), int)).axis == 1
        assert aim_of(torch.zeros(2, 4, 5), np.zeros((2, 4), int)).axis == -1

    @pytest.mark.parametrize(
        ("labels", "loss"),
        [
            (np.array([0, 1, 3]), "auto"),
            (np.array([-1, 1, 2]), "auto"),
            (np.zeros((3, 2)), "auto"),
            (np.array([0, 1, 2]), "binary"),
            (np.zeros(3), "mse"),
        ],
    )
    def test_labels_that_do_not_fit_are_refused(self, labels: np.ndarray, loss: str) -> None:
        with pytest.raises(DataError, match="labels of output 'y'"):
            aim_of(torch.zeros(3, 3), labels, loss)

    def test_nothing_to_learn_from_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="labels"):
            aims({"y": torch.zeros(3, 3)}, rows_of({}, x=np.zeros(3)), Tasks(), Distillation(), taught=False)

    def test_an_unknown_output_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="got z"):
            aims({"y": torch.zeros(3, 3)}, rows_of({}, x=np.zeros(3)), Tasks(weights={"z": 1.0}), Distillation(), taught=True)


class TestSchedule:
    @given(st.integers(1, 500), st.floats(0, 1))
    def test_it_rises_then_falls_and_stays_in_bounds(self, steps: int, warmup: float) -> None:
        factors = [rate_factor(step, steps, warmup) for step in range(steps)]
        top = factors.index(max(factors))
        assert all(0 < factor <= 1 for factor in factors)
        assert factors[: top + 1] == sorted(factors[: top + 1]) and factors[top:] == sorted(factors[top:], reverse=True)

    def test_known_points(self) -> None:
        assert rate_factor(10, 110, 10 / 110) == 1
        assert rate_factor(60, 110, 10 / 110) == pytest.approx(0.5)
        assert rate_factor(0, 100, 0.0) == 1

    def test_steps(self) -> None:
        assert step_count(100, 32, 3, 0) == (4, 12) and step_count(100, 32, 3, 5) == (4, 5)
        assert step_count(100, 32, 3, 0, whole=True) == (3, 9)

    @pytest.mark.parametrize("wrong", [{"epochs": 0}, {"learning_rate": 0.0}, {"warmup": 1.5}, {"clip": -1.0}, {"limit_s": float("nan")}])
    def test_values_that_cannot_work_are_refused(self, wrong: dict) -> None:
        with pytest.raises(ConfigError, match=f"schedule.{next(iter(wrong))}"):
            Schedule(**wrong)

    def test_so_are_those_of_the_other_groups(self) -> None:
        for make in (
            lambda: Tasks(losses={"y": "focal"}),
            lambda: Tasks(balance="equal"),
            lambda: Distillation(weight=2.0),
            lambda: Distillation(shares=(0.0,)),
            lambda: FeaturePair(student="a", teacher="a", loss="l1"),
            lambda: Attack(radius=0.0),
        ):
            with pytest.raises(ConfigError):
                make()


class TestConflicts:
    def test_gradients_that_agree_are_added(self) -> None:
        assert project([torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])]).tolist() == [2, 1]

    def test_of_two_that_disagree_each_loses_its_part_along_the_other(self) -> None:
        left, right = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
        freed = (torch.tensor([0.5, 0.5]), torch.tensor([0.0, 1.0]))
        assert torch.allclose(project([left, right]), freed[0] + freed[1])

    @given(st.integers(0, 10_000), st.integers(2, 5))
    def test_of_two_the_outcome_works_against_neither(self, seed: int, size: int) -> None:
        left, right = torch.randn(2, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        outcome = project([left, right])
        assert float(outcome @ left) >= -1e-9 and float(outcome @ right) >= -1e-9

    def test_it_lands_in_the_gradients_of_the_weights(self) -> None:
        shared, unused = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))
        losses = [shared @ torch.tensor([1.0, 0.0]), shared @ torch.tensor([-1.0, 1.0])]
        into_gradients(losses, [shared, unused], conflicts="pcgrad", generator=torch.Generator().manual_seed(0))
        assert shared.grad.tolist() == [0.5, 1.5] and unused.grad is None


class TestUncertainty:
    def test_at_the_best_weights_a_loss_counts_by_the_inverse_of_its_size(self) -> None:
        balance = Uncertainty([False, True])
        losses = [torch.tensor(0.1), torch.tensor(20.0)]
        optimiser = torch.optim.Adam(balance.parameters(), 0.05)
        for _ in range(600):
            optimiser.zero_grad()
            torch.stack(balance(losses)).sum().backward()
            optimiser.step()
        assert balance.log_variance.exp().tolist() == pytest.approx([0.2, 20.0], rel=0.02)

    def test_at_the_start_classes_weigh_one_and_numbers_half(self) -> None:
        assert [loss.item() for loss in Uncertainty([False, True])([torch.tensor(3.0), torch.tensor(4.0)])] == [3, 2]


class TestAttack:
    def attacker(self, **settings: float) -> Attacker:
        return Attacker.for_rows(Attack(radius=0.1, **settings), rows_of({}, x=np.array([[0.0, 1.0]], np.float32)))

    def test_a_straight_loss_is_climbed_to_the_corner(self) -> None:
        feeds = {"x": torch.tensor([[0.5, 0.5], [0.95, 0.05]])}
        slope = torch.tensor([1.0, -1.0])
        moved = self.attacker().moved(feeds, lambda held: (held["x"] @ slope).sum(), torch.Generator().manual_seed(0))
        assert torch.allclose(moved["x"], torch.tensor([[0.6, 0.4], [1.0, 0.0]]), atol=1e-6)

    @given(st.integers(0, 1000))
    def test_it_stays_near_and_in_range(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        feeds = {"x": torch.rand(3, 2, generator=generator)}
        moved = self.attacker(steps=2)
        found = moved.moved(feeds, lambda held: held["x"].sin().prod(), generator)["x"]
        assert float((found - feeds["x"]).abs().max()) <= 0.1 + 1e-6 and float(found.min()) >= 0 and float(found.max()) <= 1

    def test_whole_numbers_cannot_be_moved(self) -> None:
        with pytest.raises(ConfigError, match="float inputs"):
            Attacker.for_rows(Attack(radius=0.1), rows_of({}, x=np.zeros((2, 2), np.int64)))

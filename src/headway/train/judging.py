"""The selection score: what decides which moment of a training is kept."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from headway.lift import Lifted
from headway.train.aims import Aim
from headway.train.history import OutputScore
from headway.train.objective import Goal
from headway.train.rows import Feeds
from headway.train.teaching import Targets

LEAST_BATCH = 256
SMALL = 1e-3


@dataclass(frozen=True, eq=False)
class Judge:
    """Selection rows with what is wanted on them.

    Attributes:
        goal: its rows are the selection rows; with an attack, scores are taken on moved inputs too.
        seed: the attack starts from the same noise each time.
    """

    goal: Goal
    batch: int
    seed: int = 0

    def scores(self, student: Lifted) -> tuple[OutputScore, ...]:
        """Each output's score; the student must be in evaluation mode."""
        aims, rows, generator = self.goal.aims, self.goal.rows, torch.Generator().manual_seed(self.seed)
        sums, count = [[0.0, 0.0, 0.0] for _ in aims], 0
        attacked = self.goal.attacker is not None
        for chosen in rows.batches(max(LEAST_BATCH, self.batch)):
            feeds, labels = rows.feeds(chosen), rows.answers(chosen)
            targets = self.goal.teaching.targets(chosen, feeds)
            plain = self._outputs(student, feeds)
            moved = self._outputs(student, self.goal.attacked(student, feeds, targets, labels, generator)) if attacked else plain
            for held, aim in zip(sums, aims, strict=True):
                loss, error = self._pair(aim, plain[aim.output], labels, targets)
                held[0] += loss * len(chosen)
                held[1] += error * len(chosen)
                held[2] += self._pair(aim, moved[aim.output], labels, targets)[1] * len(chosen)
            count += len(chosen)
        return tuple(
            OutputScore(output=aim.output, loss=a / count, error=b / count, attacked_error=c / count if attacked else None)
            for aim, (a, b, c) in zip(aims, sums, strict=True)
        )

    def _outputs(self, student: Lifted, feeds: Feeds) -> dict[str, Tensor]:
        with torch.no_grad():
            return student(feeds)

    def _pair(self, aim: Aim, output: Tensor, labels: Feeds, targets: Targets) -> tuple[float, float]:
        if aim.output in labels:
            return float(aim.towards_labels(output, labels[aim.output])), float(aim.error(output, labels[aim.output]))
        loss = float(aim.towards_teachers(output, targets.outputs[aim.output], self.goal.teaching.distillation.temperature))
        return loss, loss


def value(scores: tuple[OutputScore, ...], start: tuple[OutputScore, ...], aims: tuple[Aim, ...]) -> tuple[float, float]:
    """What decides, smaller first: the error, then the loss.

    With an attack the error is the mean of plain and attacked inputs. Of several outputs each counts relative to where it started, by
    its weight. What is not a number counts as infinite.
    """
    errors = [_error(score) for score in scores]
    if len(scores) > 1:
        errors = [aim.weight * error / max(_error(first), SMALL) for aim, error, first in zip(aims, errors, start, strict=True)]
    pair = (sum(errors), sum(score.loss for score in scores))
    return pair if all(map(math.isfinite, pair)) else (math.inf, math.inf)


def _error(score: OutputScore) -> float:
    return score.error if score.attacked_error is None else (score.error + score.attacked_error) / 2

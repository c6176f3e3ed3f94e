"""The loss of one batch: of each output, towards labels and teachers, and of inner values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headway.lift import Lifted
from headway.records import ConfigError
from headway.train.aims import Aim
from headway.train.attack import Attacker
from headway.train.losses import features
from headway.train.rows import Feeds, Rows
from headway.train.teaching import Targets, Teaching


@dataclass(frozen=True, eq=False)
class Goal:
    """Rows, their teachers, and what is wanted of a student on them."""

    rows: Rows
    aims: tuple[Aim, ...]
    teaching: Teaching
    attacker: Attacker | None = None

    @property
    def numbers(self) -> tuple[bool, ...]:
        """For each loss of ``losses`` whether it is a squared error; what inner values add comes last."""
        return (*(aim.loss == "mse" for aim in self.aims), *([True] if self.teaching.distillation.features else []))

    def of_outputs(self, outputs: Mapping[str, Tensor], targets: Targets, labels: Feeds) -> list[Tensor]:
        """One loss an output: labels and teachers mixed, times the output's weight."""
        return [aim.weight * self._mixed(aim, outputs[aim.output], targets, labels) for aim in self.aims]

    def losses(self, student: Lifted, rows: NDArray[np.intp], generator: torch.Generator) -> list[Tensor]:
        """The losses of a batch, with gradients. ``generator`` is for the attack's random start."""
        feeds, labels = self.rows.feeds(rows), self.rows.answers(rows)
        targets = self.teaching.targets(rows, feeds)
        if self.attacker is not None:
            feeds = self.attacked(student, feeds, targets, labels, generator)
            student.train()
        pairs = self.teaching.distillation.features
        found = student(feeds, keep=tuple(dict.fromkeys(pair.student for pair in pairs)))
        made = self.of_outputs(found, targets, labels)
        if pairs:
            made.append(self._features(found, targets))
        return made

    def attacked(self, student: Lifted, feeds: Feeds, targets: Targets, labels: Feeds, generator: torch.Generator) -> Feeds:
        """The inputs moved uphill on the student in evaluation mode (in which it is left)."""
        if self.attacker is None:
            return feeds
        student.eval()
        return self.attacker.moved(feeds, lambda held: torch.stack(self.of_outputs(student(held), targets, labels)).sum(), generator)

    def _mixed(self, aim: Aim, output: Tensor, targets: Targets, labels: Feeds) -> Tensor:
        distillation, target = self.teaching.distillation, targets.outputs.get(aim.output)
        share = 0.0 if target is None else distillation.weight if aim.output in labels else 1.0
        parts = []
        if share < 1:
            parts.append((1 - share) * aim.towards_labels(output, labels[aim.output]))
        if share > 0 and target is not None:
            parts.append(share * aim.towards_teachers(output, target, distillation.temperature))
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def _features(self, found: Mapping[str, Tensor], targets: Targets) -> Tensor:
        total = None
        for pair, target in zip(self.teaching.distillation.features, targets.features, strict=True):
            own = found[pair.student]
            if own.shape != target.shape:
                raise ConfigError(
                    f"features: {pair.student!r} and the teacher's {pair.teacher!r} must have one shape, got {list(own.shape)} and {list(target.shape)}"
                )
            part = pair.weight * (features.cosine if pair.loss == "cosine" else features.mse)(own, target)
            total = part if total is None else total + part
        return total

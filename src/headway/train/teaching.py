"""What the teachers say about rows: soft targets for the outputs, and inner values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headway.lift import Lifted
from headway.model import Model
from headway.records import ConfigError
from headway.train.aims import Aim
from headway.train.losses.logits import mixed
from headway.train.rows import Feeds, Rows
from headway.train.settings import Distillation

MOST_CACHED_BYTES = 512_000_000


@dataclass(frozen=True, eq=False)
class Teacher:
    """A lifted model that only answers, and which of its outputs stands for which of the student's.

    Attributes:
        outputs: its output's name by the student's.
    """

    lifted: Lifted
    inputs: tuple[str, ...]
    outputs: dict[str, str]

    def answer(self, feeds: Feeds, keep: Sequence[str] = ()) -> dict[str, Tensor]:
        """Outputs by the student's names, and the inner values in ``keep`` by their own; no gradients."""
        with torch.no_grad():
            found = self.lifted({name: feeds[name] for name in self.inputs}, keep=keep)
        return {**{name: found[name] for name in keep}, **{mine: found[own] for mine, own in self.outputs.items()}}


def teacher(model: Model, lifted: Lifted, student: Model) -> Teacher:
    """A teacher for a student; outputs go by name, or by place where no name is shared and there are as many.

    Raises:
        ConfigError: it needs an input that the student lacks or has in another shape, or no output of theirs belongs together.
    """
    extra = [spec.name for spec in model.inputs if spec.name not in {own.name for own in student.inputs}]
    if extra:
        raise ConfigError(f"teacher {model.name}: its inputs must be the model's, got {', '.join(extra)} more; rename or leave it out")
    for spec in model.inputs:
        own = next(each.shape for each in student.inputs if each.name == spec.name)
        if _clash(spec.shape, own):
            raise ConfigError(
                f"teacher {model.name}: its input {spec.name!r} must have the model's shape {list(own)}, got {list(spec.shape)}; take another"
            )
    mine, theirs = [spec.name for spec in student.outputs], [spec.name for spec in model.outputs]
    pairs = {name: name for name in mine if name in theirs}
    if not pairs and len(mine) == len(theirs):
        pairs = dict(zip(mine, theirs, strict=True))
    if not pairs:
        raise ConfigError(
            f"teacher {model.name}: an output must be named as one of the model's ({', '.join(mine)}), got {', '.join(theirs)}"
        )
    for weight in lifted.parameters():
        weight.requires_grad_(False)
    return Teacher(lifted.eval(), tuple(spec.name for spec in model.inputs), pairs)


def _clash(one: tuple[int | str, ...], other: tuple[int | str, ...]) -> bool:
    """Whether no rows have both shapes; the first axis is the row, and an empty shape is not known."""
    pairs = list(zip(one, other, strict=False))[1:]
    return bool(one and other) and (len(one) != len(other) or any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs))


@dataclass(frozen=True, eq=False)
class Targets:
    """What a batch should come to: soft targets by output, and the teachers' value for each pair of ``Distillation.features``."""

    outputs: dict[str, Tensor]
    features: tuple[Tensor, ...] = ()


@dataclass(eq=False)
class Teaching:
    """All teachers on one set of rows. Their answers are kept when they are small and no inner value is asked for."""

    teachers: tuple[Teacher, ...]
    aims: tuple[Aim, ...]
    distillation: Distillation
    rows: Rows
    size: int
    _known: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wrong = [pair.of for pair in self.distillation.features if not 0 <= pair.of < len(self.teachers)]
        if wrong:
            raise ConfigError(f"features.of: must number one of the {len(self.teachers)} teachers from 0, got {wrong[0]}")
        if self.distillation.shares and len(self.distillation.shares) != len(self.teachers):
            raise ConfigError(f"distillation.shares: must be one a teacher ({len(self.teachers)}), got {len(self.distillation.shares)}")
        if self.teachers and not self.distillation.features:
            self._remember()

    @property
    def taught(self) -> frozenset[str]:
        """Outputs that a teacher has."""
        return frozenset(name for each in self.teachers for name in each.outputs)

    def targets(self, rows: NDArray[np.intp], feeds: Feeds) -> Targets:
        """What these rows, whose inputs are ``feeds``, should come to."""
        if self._known:
            chosen = torch.from_numpy(rows)
            return Targets({name: kept[chosen] for name, kept in self._known.items()})
        return self._ask(feeds)

    def _remember(self) -> None:
        if self.rows.fixed and self.rows.count % self.rows.fixed:
            return  # the last rows fill no batch here, but may come up in another order
        found: dict[str, list[Tensor]] = {}
        for rows in self.rows.batches(self.size):
            for name, target in self._ask(self.rows.feeds(rows)).outputs.items():
                found.setdefault(name, []).append(target)
            if sum(part.nbytes for parts in found.values() for part in parts) > MOST_CACHED_BYTES:
                return
        self._known = {name: torch.cat(parts) for name, parts in found.items()}

    def _ask(self, feeds: Feeds) -> Targets:
        pairs = self.distillation.features
        answers = [
            each.answer(feeds, tuple(dict.fromkeys(pair.teacher for pair in pairs if pair.of == place)))
            for place, each in enumerate(self.teachers)
        ]
        return Targets(self._mix(answers), tuple(answers[pair.of][pair.teacher] for pair in pairs))

    def _mix(self, answers: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        shares = self.distillation.shares or (1.0,) * len(self.teachers)
        mix: dict[str, Tensor] = {}
        for aim in self.aims:
            parts = [
                (aim.soften(answer[aim.output], self.distillation.temperature), share)
                for answer, share in zip(answers, shares, strict=True)
                if aim.output in answer and share > 0
            ]
            if parts:
                mix[aim.output] = mixed([part for part, _ in parts], [share for _, share in parts])
        return mix

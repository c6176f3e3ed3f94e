"""How to train, in five small groups. Every group refuses values that cannot work, with a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from headway.records import ConfigError

LOSSES = ("auto", "classes", "binary", "mse")
BALANCES = ("given", "uncertainty")
CONFLICTS = ("sum", "pcgrad")
FEATURE_LOSSES = ("mse", "cosine")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long, how fast, and when to stop.

    Attributes:
        epochs: most passes over the rows.
        steps: most optimiser steps; 0: as many as ``epochs`` gives. The learning rate's course is laid over the smaller of the two.
        batch: rows of one step; a model with a fixed batch uses its own.
        learning_rate: AdamW's highest rate, reached after the warm-up.
        warmup: share of the steps in which the rate rises.
        weight_decay: AdamW's decoupled decay, on weights of two or more axes only.
        clip: largest L2 norm of the gradient over all weights; 0: no limit.
        patience: epochs without a better selection score before it stops; 0: never.
        limit_s: wall time after which it stops, as a safety cap [s]; 0: none. A training that hits it is not reproducible.
    """

    epochs: int = 5
    steps: int = 0
    batch: int = 64
    learning_rate: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 0.0
    clip: float = 1.0
    patience: int = 0
    limit_s: float = 0.0

    def __post_init__(self) -> None:
        _at_least("schedule.epochs", self.epochs, 1)
        _at_least("schedule.batch", self.batch, 1)
        _within("schedule.learning_rate", self.learning_rate, 1e-12, 10.0)
        _within("schedule.warmup", self.warmup, 0.0, 1.0)
        for name in ("steps", "weight_decay", "clip", "patience", "limit_s"):
            _at_least(f"schedule.{name}", getattr(self, name), 0)


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """What each output is trained towards.

    Attributes:
        losses: by output: ``classes`` (cross entropy), ``binary`` (yes/no, one or many), ``mse`` (as a share of the labels' variance), or
            ``auto``; outputs that are not named are ``auto``.
        weights: by output, 1 where not named; 0 leaves an output out.
        balance: ``given`` takes the weights as they are; ``uncertainty`` learns a factor for each output on top.
        conflicts: ``sum`` adds the gradients of the outputs; ``pcgrad`` first takes out of each what works against another.
    """

    losses: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    balance: str = "given"
    conflicts: str = "sum"

    def __post_init__(self) -> None:
        for name, loss in self.losses.items():
            _one_of(f"tasks.losses.{name}", loss, LOSSES)
        for name, weight in self.weights.items():
            _at_least(f"tasks.weights.{name}", weight, 0)
        _one_of("tasks.balance", self.balance, BALANCES)
        _one_of("tasks.conflicts", self.conflicts, CONFLICTS)


@dataclass(frozen=True, kw_only=True)
class FeaturePair:
    """An inner value of the model and the one of a teacher that it should resemble; both have the same shape.

    Attributes:
        student, teacher: names of values in the two graphs.
        loss: ``mse``, divided by the mean square of the teacher's value, or ``cosine``, one minus the cosine along the last axis.
        weight: factor of this pair's loss.
        of: which teacher, by position.
    """

    student: str
    teacher: str
    loss: str = "mse"
    weight: float = 1.0
    of: int = 0

    def __post_init__(self) -> None:
        _one_of("features.loss", self.loss, FEATURE_LOSSES)
        _at_least("features.weight", self.weight, 0)


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """How much and what is learned from the teachers; without teachers none of it counts.

    Attributes:
        weight: share of the loss that comes from the teachers where there are labels too; without labels it is always 1.
        temperature: divides logits of teacher and student before the comparison.
        shares: weight of each teacher; empty: all the same.
        features: inner values to compare.
    """

    weight: float = 0.5
    temperature: float = 2.0
    shares: tuple[float, ...] = ()
    features: tuple[FeaturePair, ...] = ()

    def __post_init__(self) -> None:
        _within("distillation.weight", self.weight, 0.0, 1.0)
        _within("distillation.temperature", self.temperature, 0.01, 1000.0)
        if self.shares and (min(self.shares) < 0 or sum(self.shares) <= 0):
            raise ConfigError(f"distillation.shares: must be zero or more and not all zero, got {self.shares}")


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Adversarial training: each step learns on inputs moved to where the loss is largest.

    Attributes:
        radius: largest change of any input element, in the input's units.
        step: change of one inner step; 0: 2.5 radii shared among the steps.
        steps: inner steps.
        inputs: float inputs to move; empty: all float inputs.
        low, high: range that moved inputs stay within; none: the range of the training rows.
    """

    radius: float
    step: float = 0.0
    steps: int = 7
    inputs: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if not self.radius > 0 or not math.isfinite(self.radius):
            raise ConfigError(f"attack.radius: must be above 0, got {self.radius!r}; leave the attack out to train on plain inputs")
        _at_least("attack.step", self.step, 0)
        _at_least("attack.steps", self.steps, 1)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All of it.

    Attributes:
        keep_zeros: exact zeros of weights with two or more axes stay zero.
        learn_scales: scales of quantize and dequantize nodes are trained too.
        update_statistics: batch normalisation uses the batch's statistics and updates the stored ones.
        frozen: names of initializers that are not trained.
        seed: every random choice starts here.
    """

    schedule: Schedule = field(default_factory=Schedule)
    tasks: Tasks = field(default_factory=Tasks)
    distillation: Distillation = field(default_factory=Distillation)
    attack: Attack | None = None
    keep_zeros: bool = True
    learn_scales: bool = False
    update_statistics: bool = False
    frozen: tuple[str, ...] = ()
    seed: int = 0


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least or not math.isfinite(value):
        raise ConfigError(f"{name}: must be at least {least}, got {value!r}")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name}: must lie between {low:g} and {high:g}, got {value!r}")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name}: must be one of {', '.join(known)}, got {value!r}")

"""Inputs attacked: small steps along the gradient, made where each answer is weakest; needs torch.

Projected gradient descent within an L-infinity ball, random start (Madry et al. 2018, arXiv 1706.06083, section 2); with ``steps`` 1 it is
the fast gradient sign method (Goodfellow et al. 2015, arXiv 1412.6572). Gradients come from the graph lifted to torch; rounding passes them
straight through, which hides less than no gradient but more than a float model, so every model also gets the examples made on the other one
(Athalye et al. 2018, arXiv 1802.00420, section 3.1: transfer shows masked gradients). Answers are judged as they are served. It is a comparison
with the parent, not a certificate: a stronger attack may find more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from headway.lift import Lifted, lift
from headway.quality.answers import classes
from headway.quality.confidence import are_logits
from headway.quality.evidence import Evidence, Terms, weigh
from headway.quality.guards.contract import Answer, Case, Subject
from headway.quality.kinds import Kind
from headway.quality.metric import Array
from headway.quality.pair import Pair
from headway.records import ConfigError, MeasurementError, Setting

if TYPE_CHECKING:
    from headway.model import Model

SETTINGS: Mapping[str, Setting] = {"epsilon": 2 / 255, "steps": 5, "rows": 128}
CASE = "attack"
STRENGTH = "epsilon"
ROWS_AT_ONCE = 32
STEP_SHARE = 2.5
"""All steps together could cross the ball this many times its radius (Madry's released settings)."""

Hits = NDArray[np.bool_]
Floats = NDArray[np.float64]


def refuse(subject: Subject) -> str | None:
    """Why there is nothing to attack: no right and wrong answers of classes, or only ids and masks as inputs."""
    metric, labels = subject.metric, subject.dataset.labels
    if metric.hits is None or not metric.by_class or labels is None or not (labels.ndim == 1 or labels.shape[1:] == (1,)):
        return f"metric {metric.name} with these labels has no right and wrong class in each row"
    if _attackable(subject):
        return None
    return "a gradient needs inputs of real numbers or pixels, and whole numbers such as tokens and ids have none"


def measure(subject: Subject) -> dict[str, Case]:
    """Evidence by attack.

    ``white box``: each model under the examples made on itself. ``transfer``: both under those made on the parent. ``either``: a row counts
    as right only when its answer is right under both the examples made on the model itself and those made on the other.

    ``epsilon`` is a share of the range that each channel or column has in these rows (bytes: of 255). At most ``rows`` rows are taken, spread
    evenly.

    Raises:
        ConfigError: a setting out of range, or no graphs.
        Unsupported: the graph cannot be lifted.
        MeasurementError: no gradient reaches the inputs of the parent.
    """
    epsilon, steps, most = (subject.settings[name] for name in ("epsilon", "steps", "rows"))
    if not (
        isinstance(epsilon, float) and 0 < epsilon < 1 and isinstance(steps, int) and steps >= 1 and isinstance(most, int) and most >= 1
    ):
        raise ConfigError(f"attack: epsilon must lie between 0 and 1, steps and rows be 1 or more, got {epsilon}, {steps} and {most}")
    if subject.model is None or subject.parent_model is None:
        raise ConfigError("attack: needs the graphs of variant and parent to follow gradients, got none; give model and parent_model")
    size = len(subject.dataset)
    rows = np.unique(np.linspace(0, size - 1, min(most, size)).astype(np.int64))
    attack = _Attack(subject, rows, epsilon, steps)
    on_variant, on_parent = attack.examples(subject.model), attack.examples(subject.parent_model)
    own, crossed = attack.hits(subject.answer, on_variant), attack.hits(subject.answer, on_parent)
    parents, parents_crossed = attack.hits(subject.parent_answer, on_parent), attack.hits(subject.parent_answer, on_variant)
    return {
        "white box": attack.case(own, parents),
        "transfer": attack.case(crossed, parents),
        "either": attack.case(own & crossed, parents & parents_crossed),
    }


def _attackable(subject: Subject) -> tuple[str, ...]:
    return tuple(
        name
        for name, kind in subject.kinds.items()
        if kind.word in ("image", "series") or (subject.dataset.inputs[name].dtype.kind == "f" and kind.why == "is a table")
    )


class _Attack:
    """One attack on the rows of one subject."""

    def __init__(self, subject: Subject, rows: NDArray[np.int64], epsilon: float, steps: int) -> None:
        self._subject, self._rows, self._epsilon, self._steps = subject, rows, epsilon, steps
        self._inputs = {name: array[rows] for name, array in subject.dataset.inputs.items()}
        self._labels = classes(np.asarray(subject.dataset.labels), None)[rows]
        self._names = _attackable(subject)
        self._ends = {name: _ends(subject.dataset.inputs[name], subject.kinds[name]) for name in self._names}
        self._clean = subject.parent_answer(self._inputs)
        self._logits = are_logits(subject.metric.select(self._clean))

    def examples(self, model: Model) -> dict[str, Array]:
        """The rows, changed so that the lifted model errs, in the inputs' own types."""
        lifted = lift(model).eval().requires_grad_(False)
        generator = torch.Generator().manual_seed(self._subject.seed)
        parts = [self._batch(lifted, slice(start, start + ROWS_AT_ONCE), generator) for start in range(0, len(self._rows), ROWS_AT_ONCE)]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._inputs}

    def _batch(self, lifted: Lifted, some: slice, generator: torch.Generator) -> dict[str, Array]:
        fixed = {name: torch.from_numpy(np.ascontiguousarray(array[some])) for name, array in self._inputs.items()}
        start = {name: fixed[name].to(torch.float32) for name in self._names}
        ends = {name: tuple(torch.from_numpy(end.astype(np.float32)) for end in self._ends[name]) for name in self._names}
        radius = {name: self._epsilon * (high - low) for name, (low, high) in ends.items()}
        labels = torch.from_numpy(self._labels[some])
        moved = dict(start)
        if self._steps > 1:
            noise = {name: 2 * torch.rand(value.shape, generator=generator) - 1 for name, value in start.items()}
            moved = {name: _within(value + radius[name] * noise[name], ends[name]) for name, value in start.items()}
        length = 1.0 if self._steps == 1 else STEP_SHARE / self._steps
        for _ in range(self._steps):
            gradients = self._gradients(lifted, fixed, moved, labels)
            for name in self._names:
                ahead = moved[name] + length * radius[name] * gradients[name].sign()
                near = torch.minimum(torch.maximum(ahead, start[name] - radius[name]), start[name] + radius[name])
                moved[name] = _within(near, ends[name])
        changed = {name: _typed(moved[name].numpy(), self._inputs[name].dtype) for name in self._names}
        return {name: changed.get(name, array[some]) for name, array in self._inputs.items()}

    def _gradients(self, lifted: Lifted, fixed: Mapping[str, Tensor], moved: Mapping[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
        free = {name: value.detach().requires_grad_(True) for name, value in moved.items()}
        outputs = lifted({**fixed, **free})
        wanted = self._subject.metric.output
        known = list(self._clean)
        scores = list(outputs.values())[0 if wanted is None else known.index(wanted)]
        loss = _loss(scores, labels, logits=self._logits)
        if not loss.requires_grad:
            raise MeasurementError("attack: a gradient must reach the inputs, got none: the graph rounds or compares them first")
        found = torch.autograd.grad(loss, list(free.values()), allow_unused=True)
        return {name: torch.zeros_like(free[name]) if each is None else each for name, each in zip(free, found, strict=True)}

    def hits(self, answer: Answer, inputs: Mapping[str, Array]) -> Hits:
        """Which rows are right under these inputs; an answer that is not finite is wrong."""
        metric = self._subject.metric
        if metric.hits is None:
            raise TypeError(f"metric {metric.name} has no right and wrong")
        scores, parent = metric.select(answer(inputs)), metric.select(self._clean)
        finite = np.isfinite(scores).reshape(len(scores), -1).all(axis=1) if scores.dtype.kind == "f" else np.ones(len(scores), dtype=bool)
        return metric.hits(np.nan_to_num(scores), self._labels, parent) & finite

    def case(self, mine: Hits, parents: Hits) -> Case:
        """Variant and parent, right or wrong in every row."""
        values = (mine.astype(np.float64), parents.astype(np.float64))
        identical = bool((mine == parents).all()) and self._subject.model is not None and self._same_graph()
        both = Pair(
            metric=replace(self._subject.metric, relative=False, higher_is_better=True), rows=values, statistics=None, hits=(mine, parents),
            same=mine == parents, identical=identical, finite=np.ones(mine.size, dtype=bool),
        )  # fmt: skip
        clusters = None if self._subject.dataset.clusters is None else self._subject.dataset.clusters[self._rows]

        def weighed(confidence: float) -> Evidence:
            found = weigh(both, np.arange(mine.size), Terms(clusters, self._subject.seed, confidence))
            if found is None:
                raise MeasurementError(f"attack: metric {self._subject.metric.name} does not exist on {mine.size} rows; use more")
            return found

        return weighed

    def _same_graph(self) -> bool:
        model, parent = self._subject.model, self._subject.parent_model
        return model is not None and parent is not None and model.digest == parent.digest


def _loss(scores: Tensor, labels: Tensor, *, logits: bool) -> Tensor:
    """Cross entropy, summed over rows."""
    wide = scores.float()
    if wide.ndim == 1 or wide.shape[1] == 1:
        flat, yes = wide.reshape(len(wide)), labels.float()
        if logits:
            return functional.binary_cross_entropy_with_logits(flat, yes, reduction="sum")
        return functional.binary_cross_entropy(flat.clamp(1e-6, 1 - 1e-6), yes, reduction="sum")
    return functional.cross_entropy(wide if logits else wide.clamp_min(1e-12).log(), labels, reduction="sum")


def _ends(array: Array, kind: Kind) -> tuple[Floats, Floats]:
    """Lowest and highest value of each channel, feature or column, in a shape that spreads over rows; of bytes 0 and 255."""
    if array.dtype == np.uint8:
        return np.zeros((1,) * array.ndim), np.full((1,) * array.ndim, 255.0)
    own = {"image": kind.axis, "series": 3 - kind.axis if array.ndim == 3 else 0}.get(kind.word, array.ndim - 1)
    others = tuple(axis for axis in range(array.ndim) if axis != own or own == 0)
    return np.asarray(array.min(axis=others, keepdims=True), np.float64), np.asarray(array.max(axis=others, keepdims=True), np.float64)


def _within(values: Tensor, ends: tuple[Tensor, ...]) -> Tensor:
    return torch.minimum(torch.maximum(values, ends[0]), ends[1])


def _typed(values: NDArray[np.float32], dtype: np.dtype) -> Array:
    return np.round(values).astype(dtype) if dtype.kind in "iu" else values.astype(dtype)

"""What a guard file holds.

- ``SETTINGS``: its settings with their defaults; ``CASE``: what one case is called, such as ``corruption``; ``STRENGTH``: the setting that makes
  it milder when lowered.
- ``refuse(subject)``: why it does not apply to these samples and this metric, in one sentence that completes "NAME does not apply: ..."; or
  none. Cheap: it looks at shapes and types, and runs no model.
- ``measure(subject)``: the cases by name, each as a function from a confidence to the evidence of variant against parent. Called only where
  ``refuse`` is none.

The bound of guard NAME in the objective is ``NAME_drop``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

from headway.quality.compare import Samples
from headway.quality.evidence import Evidence
from headway.quality.kinds import Kind
from headway.quality.metric import Array, Metric
from headway.records import Setting

if TYPE_CHECKING:
    from headway.model import Model

Answer = Callable[[Mapping[str, Array]], Mapping[str, Array]]
Case = Callable[[float], Evidence]


class Inputs(Samples, Protocol):
    """A data set with its inputs; ``headway.data.Dataset`` is one."""

    @property
    def inputs(self) -> dict[str, NDArray[Any]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a guard measures.

    Attributes:
        answer, parent_answer: outputs by name for rows of inputs, through the runtime that would serve; both name outputs alike.
        kinds: what every input is.
        model, parent_model: the graphs behind, for guards that need gradients; other guards do without.
    """

    metric: Metric
    answer: Answer
    parent_answer: Answer
    dataset: Inputs
    kinds: Mapping[str, Kind]
    settings: Mapping[str, Setting]
    seed: int
    model: Model | None = None
    parent_model: Model | None = None


class Guard(Protocol):
    """A guard file, seen as a type."""

    SETTINGS: Mapping[str, Setting]
    CASE: str
    STRENGTH: str

    def refuse(self, subject: Subject) -> str | None:
        """Why this guard does not apply; none when it does."""
        ...

    def measure(self, subject: Subject) -> dict[str, Case]:
        """Evidence by case, at a confidence yet to be said."""
        ...

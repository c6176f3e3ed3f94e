"""What a metric is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headway.records import ModelError

Array = NDArray[Any]
Statistic = Callable[[NDArray[np.intp]], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """How outputs are judged. Functions take (scores, labels, parent's scores); rows are the first axis of each.

    Attributes:
        name: the reference it was made from; written into records.
        higher_is_better: its direction.
        relative: the drop is measured as a share of the parent's value (for errors without an upper end, such as ``mse``).
        needs_labels: false for agreement with the parent.
        by_class: classes of the labels make sensible groups.
        output: the output judged; none: the first.
        rows: value of each row; the metric is their mean. None for metrics of the whole, such as F1.
        hits: whether each row is right; none where there is no right and wrong.
        answers: the answer a row's scores stand for; none where rows have no single answer.
        whole: value of all rows at once, for metrics that are no mean.
        statistic: for those, a fast function from row indices (with repeats) to the value.
        resamples: bootstrap resamples for those.
        every_output: a user's function of (outputs by name, labels), instead of all the above.
    """

    name: str
    higher_is_better: bool = True
    relative: bool = False
    needs_labels: bool = True
    by_class: bool = False
    output: str | None = None
    rows: Callable[[Array, Array, Array], NDArray[np.float64]] | None = None
    hits: Callable[[Array, Array, Array], NDArray[np.bool_]] | None = None
    answers: Callable[[Array, Array], Array] | None = None
    whole: Callable[[Array, Array, Array], float] | None = None
    statistic: Callable[[Array, Array, Array], Statistic] | None = None
    resamples: int = 1000
    every_output: Callable[[Mapping[str, Array], Array | None], float] | None = None

    def select(self, outputs: Mapping[str, Array]) -> Array:
        """The output that is judged, with rows first.

        Raises:
            ModelError: no such output, or no output at all.
        """
        if not outputs:
            raise ModelError(f"metric {self.name}: the model must have an output, got none")
        name = next(iter(outputs)) if self.output is None else self.output
        if name not in outputs:
            known = ", ".join(outputs)
            raise ModelError(f"metric {self.name}: the model must have the output {name!r}, got {known}; write NAME@OUTPUT with one")
        scores = np.asarray(outputs[name])
        if scores.ndim == 0:
            raise ModelError(f"metric {self.name}: output {name!r} must have rows as its first axis, got a single value")
        return scores

    def value(self, outputs: Mapping[str, Array], labels: Array | None = None, parent: Mapping[str, Array] | None = None) -> float:
        """The metric of all rows; without ``parent`` the outputs are their own parent."""
        if self.every_output is not None:
            return float(self.every_output(outputs, labels))
        scores = self.select(outputs)
        reference = scores if parent is None else self.select(parent)
        known = np.zeros(len(scores)) if labels is None else np.asarray(labels)
        if self.whole is not None:
            return float(self.whole(scores, known, reference))
        if self.rows is not None:
            return float(np.mean(self.rows(scores, known, reference)))
        raise TypeError(f"metric {self.name}: one of rows, whole and every_output must be given, got none")

"""Predictions against labels, overall and by group, always paired with the parent on the same samples.

This room knows outputs, labels and metrics. It does not know where outputs come from, nor how samples are read: a data set
is whatever has ``labels``, ``groups``, ``clusters``, ``class_names`` and a length. One metric judges one output; ``compare_tasks``
judges several, each with labels of its own.
"""

from headway.quality.compare import NOT_FINITE, Samples, compare
from headway.quality.default import default_metric
from headway.quality.guarding import asked, check_guards, guards, measure_guard, remembering
from headway.quality.metric import Metric
from headway.quality.named import METRICS, metric
from headway.quality.racing import Race, first_labels, first_rows, stopped
from headway.quality.tasks import Task, compare_tasks

__all__ = [
    "METRICS",
    "NOT_FINITE",
    "Metric",
    "Race",
    "Samples",
    "Task",
    "asked",
    "check_guards",
    "compare",
    "compare_tasks",
    "default_metric",
    "first_labels",
    "first_rows",
    "guards",
    "measure_guard",
    "metric",
    "remembering",
    "stopped",
]

"""Predictions against labels, overall and by group, always paired with the parent on the same samples.

This room knows outputs, labels and metrics. It does not know where outputs come from, nor how samples are read: a data set
is whatever has ``labels``, ``groups``, ``clusters``, ``class_names`` and a length. One metric judges one output; several label
arrays at once (multi-task) are out of scope.
"""

from headway.quality.compare import NOT_FINITE, Samples, certainly_violates, compare
from headway.quality.default import default_metric
from headway.quality.guarding import asked, check_guards, guards, measure_guard, remembering
from headway.quality.metric import Metric
from headway.quality.named import METRICS, metric

__all__ = [
    "METRICS",
    "NOT_FINITE",
    "Metric",
    "Samples",
    "asked",
    "certainly_violates",
    "check_guards",
    "compare",
    "default_metric",
    "guards",
    "measure_guard",
    "metric",
    "remembering",
]

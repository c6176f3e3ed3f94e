"""Intervals and small exact tests: how sure a figure is, and how many samples would make it sure.

Pure functions on numbers and arrays. This room knows nothing of models, requests, labels or records: an ``Estimate`` has
the field names of ``records.Interval`` so that callers can pass it on.

Blocks. Samples taken one after another on a shared machine are not independent: a neighbour's burst spoils a whole
stretch. Intervals that treat them as independent are too narrow. So comparisons interleave their subjects in rounds and hand
in one figure a round (``ratio_interval``, ``ratio_of_medians``), and every bootstrap takes ``clusters``: rows with the same
cluster are drawn together or not at all.
"""

from headway.stats.binomial import clopper_pearson, proves, refutes, requests_to_prove, wilson
from headway.stats.bootstrap import bootstrap_statistic, paired_bootstrap, paired_relative_bootstrap, resampled_means
from headway.stats.clusters import effective_size
from headway.stats.estimate import Estimate
from headway.stats.paired import mcnemar, paired_difference_p, tango
from headway.stats.quantile import order_statistic_interval
from headway.stats.racing import holm, mean_above_p, planned_looks, skewed_mean_above_p
from headway.stats.ratio import ratio_interval, ratio_of_medians

__all__ = [
    "Estimate", "bootstrap_statistic", "clopper_pearson", "effective_size", "holm", "mcnemar", "mean_above_p",
    "order_statistic_interval", "paired_bootstrap", "paired_difference_p", "paired_relative_bootstrap", "planned_looks", "proves",
    "ratio_interval", "ratio_of_medians", "refutes", "requests_to_prove", "resampled_means", "skewed_mean_above_p", "tango", "wilson",
]  # fmt: skip

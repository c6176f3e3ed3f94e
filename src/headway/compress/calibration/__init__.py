"""Ranges of activations from samples, in memory that does not grow with the number of samples.

It knows histograms and thresholds; it does not know what the ranges are used for.
"""

from headway.compress.calibration.histogram import StreamingHistogram
from headway.compress.calibration.stream import collect
from headway.compress.calibration.thresholds import METHODS, Range, entropy, mean_squared_error, min_max, percentile

__all__ = ["METHODS", "Range", "StreamingHistogram", "collect", "entropy", "mean_squared_error", "min_max", "percentile"]

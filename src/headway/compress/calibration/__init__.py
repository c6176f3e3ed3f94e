"""What activations look like on samples, in memory that does not grow with the number of samples.

It knows histograms, thresholds and sums; it does not know what they are used for.
"""

from headway.compress.calibration.histogram import StreamingHistogram
from headway.compress.calibration.stream import channel_means, channel_peaks, collect, products
from headway.compress.calibration.thresholds import METHODS, Range, entropy, mean_squared_error, min_max, percentile

__all__ = [
    "METHODS", "Range", "StreamingHistogram", "channel_means", "channel_peaks", "collect", "entropy", "mean_squared_error", "min_max",
    "percentile", "products",
]  # fmt: skip

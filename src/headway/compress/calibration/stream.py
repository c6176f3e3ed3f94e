"""Samples through the graph in small batches, every activation reduced to its histogram at once.

Peak memory is one batch's activations plus 32 KiB a tensor, whatever the number of samples; ONNX Runtime's own histogram calibrators
keep every activation of every sample (5.8 GB for 2,048 samples of a small network in our trial, where this takes tens of megabytes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import ModelProto

from headway.compress.calibration.histogram import StreamingHistogram
from headway.compress.session import batches, open_cpu, run
from headway.records import Unsupported

BATCH_BYTES = 32_000_000
LARGEST_BATCH = 32
VALUES_PER_ROW = 16_384  # of one tensor that enter the bins; the extremes see every value


def collect(proto: ModelProto, tensors: Sequence[str], samples: Mapping[str, np.ndarray], rows: int) -> dict[str, StreamingHistogram]:
    """A histogram of each named value over the first ``rows`` samples; only float32 values are kept.

    Args:
        proto: a model whose values ``tensors`` names; unchanged.
        samples: one array per input, first axis is the sample; may be memory-mapped.

    Raises:
        Unsupported: an activation is not finite on some sample; the message names it.
        DataError: an input has no samples.
    """
    session = open_cpu(proto, expose=tensors)
    wanted = set(tensors)
    exposed = (*session.get_inputs(), *session.get_outputs())
    floats = [value.name for value in exposed if value.name in wanted and value.type == "tensor(float)"]
    fed = {value.name for value in session.get_inputs()}
    computed = [name for name in dict.fromkeys(floats) if name not in fed]
    histograms = {name: StreamingHistogram() for name in dict.fromkeys(floats)}

    def reduce(feeds: Mapping[str, np.ndarray]) -> int:
        values = dict(zip(computed, run(session, feeds, computed), strict=True)) if computed else {}
        total = 0
        for name, histogram in histograms.items():
            value = feeds[name] if name in fed else values.pop(name)
            total += value.nbytes
            try:
                histogram.update(value, most=VALUES_PER_ROW * len(next(iter(feeds.values()))))
            except ValueError as error:
                raise Unsupported(f"calibration needs finite activations, but {name!r} is NaN or infinite on some sample") from error
        return total

    first = next(batches(session, samples, rows=rows, size=1), None)
    if first is None:
        return histograms
    done = len(next(iter(first.values())))
    bytes_per_row = max(1, reduce(first) // done)
    size = int(np.clip(BATCH_BYTES // bytes_per_row, 1, LARGEST_BATCH))
    rest = {name: array[done:] for name, array in samples.items()}
    left = min([rows - done, *(len(array) for array in rest.values())])
    if left >= done:  # a model with a fixed batch leaves out what does not fill one
        for feeds in batches(session, rest, rows=left, size=size):
            reduce(feeds)
    return histograms

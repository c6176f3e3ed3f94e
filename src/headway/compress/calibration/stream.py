"""Samples through the graph in small batches, every activation reduced at once: to its histogram, its products, or its sums by channel.

Peak memory is one batch's activations plus what they are reduced to (32 KiB a tensor for a histogram), whatever the number of samples; ONNX
Runtime's own histogram calibrators keep every activation of every sample (5.8 GB for 2,048 samples of a small network in our trial, where
this takes tens of megabytes).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

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
    histograms: dict[str, StreamingHistogram] = {}
    for count, values in stream(proto, tensors, samples, rows):
        for name, value in values.items():
            try:
                histograms.setdefault(name, StreamingHistogram()).update(value, most=VALUES_PER_ROW * count)
            except ValueError as error:
                raise Unsupported(f"calibration needs finite activations, but {name!r} is NaN or infinite on some sample") from error
    return histograms


def products(proto: ModelProto, tensors: Sequence[str], samples: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    """X^T X of each named value, its last axis counting columns: float64 [columns, columns] by name."""
    sums: dict[str, np.ndarray] = {}
    for _, values in stream(proto, tensors, samples, rows):
        for name, value in values.items():
            flat = value.reshape(-1, value.shape[-1])
            sums[name] = sums.get(name, np.float64(0)) + flat.T @ flat
    return sums


def channel_means(proto: ModelProto, axes: Mapping[str, int], samples: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    """Mean of each named value by channel, float64; ``axes`` gives the axis that counts channels."""
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    for _, values in stream(proto, list(axes), samples, rows):
        for name, value in values.items():
            by_channel = np.moveaxis(value, axes[name], -1).reshape(-1, value.shape[axes[name]])
            sums[name] = sums.get(name, 0.0) + by_channel.sum(axis=0, dtype=np.float64)
            counts[name] = counts.get(name, 0) + len(by_channel)
    return {name: total / counts[name] for name, total in sums.items()}


def channel_peaks(proto: ModelProto, tensors: Sequence[str], samples: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    """Largest magnitude of each named value by column of its last axis."""
    peaks: dict[str, np.ndarray] = {}
    for _, values in stream(proto, tensors, samples, rows):
        for name, value in values.items():
            peak = np.abs(value.reshape(-1, value.shape[-1])).max(axis=0)
            peaks[name] = np.maximum(peaks[name], peak) if name in peaks else peak
    return peaks


def stream(
    proto: ModelProto, tensors: Sequence[str], samples: Mapping[str, np.ndarray], rows: int
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Number of rows and the named float32 values, batch by batch; batches grow to 32 rows as far as 32 MB of activations allow.

    Raises:
        DataError: an input has no samples.
    """
    session = open_cpu(proto, expose=tensors)
    wanted = set(tensors)
    exposed = (*session.get_inputs(), *session.get_outputs())
    floats = dict.fromkeys(value.name for value in exposed if value.name in wanted and value.type == "tensor(float)")
    fed = {value.name for value in session.get_inputs()}
    computed = [name for name in floats if name not in fed]

    def values_of(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        made = dict(zip(computed, run(session, feeds, computed), strict=True)) if computed else {}
        return {name: feeds[name] if name in fed else made[name] for name in floats}

    first = next(batches(session, samples, rows=rows, size=1), None)
    if first is None or not floats:
        return
    done = len(next(iter(first.values())))
    values = values_of(first)
    bytes_per_row = max(1, sum(value.nbytes for value in values.values()) // done)
    yield done, values
    del values
    size = int(np.clip(BATCH_BYTES // bytes_per_row, 1, LARGEST_BATCH))
    rest = {name: array[done:] for name, array in samples.items()}
    left = min([rows - done, *(len(array) for array in rest.values())])
    if left >= done:  # a model with a fixed batch leaves out what does not fill one
        for feeds in batches(session, rest, rows=left, size=size):
            yield len(next(iter(feeds.values()))), values_of(feeds)

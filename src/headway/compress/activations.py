"""Second moments of what layers read, channel by channel, on calibration samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import ModelProto

from headway.compress.coupling import Layer
from headway.compress.session import batches, open_cpu, run

ROWS, BATCH, POSITIONS = 256, 16, 2048


def channels_last(layer: Layer, value: np.ndarray) -> np.ndarray:
    """A value as (positions, channels), at most ``POSITIONS`` of them, evenly spaced; float64."""
    if layer.kind.startswith("Conv"):
        value = np.moveaxis(value, 1, -1)
    rows = value.reshape(-1, value.shape[-1])
    return np.asarray(rows[:: -(-len(rows) // POSITIONS)], np.float64)


def moments(proto: ModelProto, layers: Sequence[Layer], samples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """For each value that one of the layers reads, the mean of [x, 1]^T [x, 1] over samples and positions, (channels + 1, channels + 1)."""
    readers = {layer.inside_value: layer for layer in layers}
    names = list(readers)
    session = open_cpu(proto, names)
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    for feeds in batches(session, samples, rows=ROWS, size=BATCH):
        made = [name for name in names if name not in feeds]
        arrays = dict(zip(made, run(session, feeds, made), strict=True)) if made else {}
        for name in names:
            rows = channels_last(readers[name], arrays[name] if name in arrays else feeds[name])
            rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
            sums[name] = sums.get(name, 0.0) + rows.T @ rows
            counts[name] = counts.get(name, 0) + len(rows)
    return {name: total / counts[name] for name, total in sums.items()}

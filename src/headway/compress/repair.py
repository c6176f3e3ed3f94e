"""Teach the layers that read cut channels to do with those left: least squares on calibration samples, no labels.

Each cut channel is predicted from the channels left, x_cut = A x_left + b, and its weights are moved over: W_left += A^T W_cut. For matrix
products and 1x1 convolutions this is the least-squares reconstruction of the layer's output of He et al. (arXiv 1707.06168, eq. 3); for larger
kernels the same with one A for all positions of the kernel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import numpy as np
from onnx import numpy_helper

from headway.compress.activations import moments
from headway.compress.coupling import Coupling, Layer
from headway.compress.graph import initializers, reads

RIDGE = 1e-3


def repaired(coupling: Coupling, units: Collection[int], samples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """New values, at full size, for the weights and biases that read the units."""
    gone = np.array(sorted(units), np.int64)
    readers = Counter(name for node in coupling.proto.graph.node for name in reads(node))
    layers = [layer for layer in coupling.layers if _reads_some(layer, gone) and readers[layer.weight] == 1]
    if not layers:
        return {}
    seen = moments(coupling.proto, layers, samples)
    fixed = initializers(coupling.proto.graph)
    changed: dict[str, np.ndarray] = {}
    for layer in layers:
        assert layer.inside is not None
        lost = np.isin(layer.inside, gone)
        shifts = layer.kind != "ConvTranspose" and readers[layer.bias] == 1 and bool(layer.bias)
        weight = np.moveaxis(numpy_helper.to_array(fixed[layer.weight]).astype(np.float64), layer.weight_axis, 0).copy()
        prediction = _prediction(seen[layer.inside_value], lost, shifts)
        moved = np.tensordot(prediction, weight[lost], axes=(0, 0))
        weight[~lost] += moved[: int((~lost).sum())]
        weight[lost] = 0
        changed[layer.weight] = np.moveaxis(weight, 0, layer.weight_axis).astype(np.float32)
        if shifts:
            bias = numpy_helper.to_array(fixed[layer.bias]).astype(np.float64)
            changed[layer.bias] = (bias + moved[-1].reshape(len(moved[-1]), -1).sum(axis=1)).astype(np.float32)
    return changed


def _reads_some(layer: Layer, gone: np.ndarray) -> bool:
    return layer.inside is not None and not layer.tied and layer.kind != "recurrence" and bool(np.isin(layer.inside, gone).any())


def _prediction(moment: np.ndarray, lost: np.ndarray, shifts: bool) -> np.ndarray:
    """A and, with ``shifts``, b: (channels lost, channels left [+ 1])."""
    left = np.append(~lost, shifts)
    inner = moment[np.ix_(left, left)]
    ridge = RIDGE * float(np.diag(moment)[:-1].mean()) * np.eye(len(inner))
    if shifts:
        ridge[-1, -1] = 0
    return np.linalg.solve(inner + ridge + 1e-12 * np.eye(len(inner)), moment[np.ix_(left, np.append(lost, False))]).T

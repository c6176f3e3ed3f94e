"""X^T X of what a layer multiplies its weight by, on samples; for a convolution X holds the patches under its kernel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from onnx import ModelProto, NodeProto, helper

from headway.compress.calibration.stream import stream
from headway.compress.graph import initializers
from headway.compress.layers import CONVOLUTIONS, Layer
from headway.compress.narrow_weights import readable

MOST_PATCHES = 1024  # a sample; evenly spread over the positions of the kernel
MOST_INPUTS = 4608  # 512 channels under a 3x3 kernel; the products take 170 MB there, and grow with the square


def layer_products(proto: ModelProto, own: Sequence[Layer], samples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Float64 [groups, inputs, inputs] by layer name, in one pass; ``inputs`` counts as the weight of one output does, flattened.

    A Conv with ``auto_pad``, a Gemm that transposes its input, and layers of more than 4,608 inputs are left out.
    """
    nodes = {node.name: node for node in proto.graph.node}
    fixed = initializers(proto.graph)
    mine = [layer for layer in own if _known(nodes[layer.name]) and _inputs(layer, fixed[layer.weight].dims) <= MOST_INPUTS]
    kernels = {layer.name: tuple(fixed[layer.weight].dims)[2:] for layer in mine}
    sums: dict[str, np.ndarray] = {}
    for _, values in stream(proto, list(dict.fromkeys(layer.value for layer in mine)), samples, min(map(len, samples.values()))):
        for layer in mine:
            if layer.value in values:
                rows = seen_rows(nodes[layer.name], kernels[layer.name], values[layer.value])
                sums[layer.name] = sums.get(layer.name, np.float64(0)) + (rows.transpose(0, 2, 1) @ rows).astype(np.float64)
    return sums


def flat_weight(layer: Layer, weight: np.ndarray) -> np.ndarray:
    """A layer's weight, or its codes, as [outputs, inputs]: a view where numpy can give one."""
    return weight.reshape(len(weight), -1) if layer.axis == 0 else weight.T


def own_shape(layer: Layer, flat: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The way back from ``flat_weight``, to the shape of ``like``."""
    return np.ascontiguousarray(flat.reshape(like.shape) if layer.axis == 0 else flat.T)


def seen_rows(node: NodeProto, kernel: Sequence[int], value: np.ndarray) -> np.ndarray:
    """What the layer multiplies its weight by: [groups, rows, inputs]; a Conv's at no more than 1,024 positions a sample."""
    if node.op_type not in CONVOLUTIONS:
        return value.reshape(1, -1, value.shape[-1])
    settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    count, groups = len(kernel), int(settings.get("group", 1))
    pads, strides, dilations = (settings.get(name) or [plain] * count for name, plain in (("pads", 0), ("strides", 1), ("dilations", 1)))
    axes = tuple(range(2, 2 + count))
    padded = np.pad(value, [(0, 0), (0, 0), *zip(pads[:count], pads[-count:], strict=True)])
    windows = sliding_window_view(padded, [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)], axis=axes)
    every = (slice(None), slice(None))
    windows = windows[(*every, *(slice(None, None, step) for step in strides), *(slice(None, None, step) for step in dilations))]
    places = windows.shape[2 : 2 + count]
    total = math.prod(places)
    chosen = np.unravel_index(np.arange(0, total, -(-total // MOST_PATCHES)), places)
    patches = windows[(*every, *chosen)]  # [samples, channels, positions, *kernel]
    samples, channels, positions = patches.shape[:3]
    split = patches.reshape(samples, groups, channels // groups, positions, -1)
    return split.transpose(1, 0, 3, 2, 4).reshape(groups, samples * positions, -1)


def _inputs(layer: Layer, dims: Sequence[int]) -> int:
    return math.prod(dims) // dims[layer.axis]


def _known(node: NodeProto) -> bool:
    auto = any(attribute.name == "auto_pad" and attribute.s not in (b"", b"NOTSET") for attribute in node.attribute)
    return readable(node) and not auto

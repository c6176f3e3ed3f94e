"""Large columns of activations made smaller and the weights that read them larger by the same factors: exact, and kinder to 8 bits.

Source: Xiao et al., SmoothQuant (arXiv 2211.10438, equation 4): factor_j = max|x_j|^a / max|w_j|^(1-a). The factors go into the scale and
shift of the LayerNormalization before, where nothing else reads it; else into a multiplication of their own (a residual stream reads the
norm of BERT-like models too).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from headway.compress.calibration import channel_peaks
from headway.compress.graph import consumers, fresh_name, initializers, producers, rename_reads, replace, value_names
from headway.compress.layers import PRODUCTS, Layer, layers

_SMALLEST = 1e-5


def smooth(proto: ModelProto, samples: Mapping[str, np.ndarray], strength: float) -> ModelProto:
    """The same model (changed in place, and returned) with smoothed inputs of its products; same answers up to float rounding.

    Args:
        proto: in the form of ``graph.normalise``, weights not shared with others (``layers.unshare``).
        strength: a of the equation, in (0, 1]: 0.5 splits the difficulty evenly, 1 leaves none in the activations.
    """
    graph = proto.graph
    together: dict[str, list[Layer]] = {}
    transposing = {node.name for node in graph.node if any(a.name == "transA" and a.i for a in node.attribute)}
    for layer in layers(graph, PRODUCTS):
        if layer.name not in transposing:
            together.setdefault(layer.value, []).append(layer)
    rows = min(len(array) for array in samples.values())
    peaks = channel_peaks(proto, list(together), samples, rows)
    for value, readers in together.items():
        if value in peaks:
            _smooth_one(graph, value, readers, _factors(graph, peaks[value], readers, strength))
    return proto


def _factors(graph: GraphProto, peaks: np.ndarray, readers: Sequence[Layer], strength: float) -> np.ndarray:
    fixed = initializers(graph)
    weights = np.max([np.abs(numpy_helper.to_array(fixed[layer.weight])).max(axis=layer.axis) for layer in readers], axis=0)
    factors = np.maximum(peaks, _SMALLEST) ** strength / np.maximum(weights, _SMALLEST) ** (1 - strength)
    factors = np.where((peaks > 0) & (weights > 0), factors, 1.0)
    return np.asarray(factors / np.exp(np.log(factors).mean()), np.float32)


def _smooth_one(graph: GraphProto, value: str, readers: Sequence[Layer], factors: np.ndarray) -> None:
    fixed, nodes = initializers(graph), {node.name: node for node in graph.node}
    for name, axis in {layer.weight: layer.axis for layer in readers}.items():
        weight = numpy_helper.to_array(fixed[name])
        scaled = weight * (factors[None, :] if axis == 0 else factors[:, None])
        fixed[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(scaled), name))
    norm = producers(graph).get(value)
    names = {layer.name for layer in readers}
    alone = {node.name for node in consumers(graph)[value]} == names and value not in {item.name for item in graph.output}
    if norm is not None and alone and _foldable(graph, norm, len(factors)):
        for name in norm.input[1:3]:
            fixed[name].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(fixed[name]) / factors, name))
        return
    taken = value_names(graph)
    constant, made = (fresh_name(f"{value}_{part}", taken) for part in ("smoothing", "smooth"))
    graph.initializer.append(numpy_helper.from_array((1 / factors).astype(np.float32), constant))
    for name in names:
        rename_reads(nodes[name], value, made)
    first = min(index for index, node in enumerate(graph.node) if node.name in names)
    rest = list(graph.node)
    replace(graph.node, [*rest[:first], helper.make_node("Mul", [value, constant], [made], made), *rest[first:]])


def _foldable(graph: GraphProto, norm: NodeProto, width: int) -> bool:
    fixed, read_by = initializers(graph), consumers(graph)
    last = not any(attribute.name == "axis" and attribute.i != -1 for attribute in norm.attribute)
    names = [name for name in norm.input[1:3] if name]
    constant = all(name in fixed and list(fixed[name].dims) == [width] and len(read_by[name]) == 1 for name in names)
    return norm.op_type == "LayerNormalization" and last and constant and len(set(names)) == len(names)

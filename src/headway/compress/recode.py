"""The whole-number weights of a quantized graph chosen anew, so that each layer's answers move least; scales stay as they are.

Nearest rounding moves each weight least, not the answer (Nagel et al., AdaRound, arXiv 2004.10568, section 3). The layer's own problem there
is a quadratic form in the rounding error with X^T X; it is solved here as in GPTQ (``rounding.second_order``): one pass, no step sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

from headway.compress.graph import initializers, producers
from headway.compress.layer_products import flat_weight, own_shape
from headway.compress.layers import Layer
from headway.compress.rounding import second_order


def recode(narrow: ModelProto, reference: ModelProto, own: Sequence[Layer], seen: Mapping[str, np.ndarray], bits: int) -> ModelProto:
    """The quantized model (changed in place, and returned) with weights rounded by what its layers see.

    Args:
        narrow: quantized with one scale per output channel or tensor, zero points of zero, node names kept.
        reference: the float model; layers are found in both by name.
        own: the layers whose codes are chosen anew; those that stayed float in ``narrow`` are left alone.
        seen: ``layer_products`` of the float model; layers that share codes are taken together, others without an entry are left alone.
        bits: what the codes may take.
    """
    fixed, floats = initializers(narrow.graph), initializers(reference.graph)
    sharing: dict[str, list[Layer]] = {}
    scales: dict[str, TensorProto] = {}
    made_by, nodes = producers(narrow.graph), {node.name: node for node in narrow.graph.node}
    for layer in own:
        source = made_by.get(nodes[layer.name].input[1]) if layer.name in nodes and layer.name in seen else None
        if source is not None and source.op_type == "DequantizeLinear" and source.input[0] in fixed:
            sharing.setdefault(source.input[0], []).append(layer)
            scales[source.input[0]] = fixed[source.input[1]]
    for codes, sharers in sharing.items():
        layer, before = sharers[0], numpy_helper.to_array(fixed[codes])
        products = np.sum([seen[sharer.name] for sharer in sharers], axis=0)
        weight = flat_weight(layer, numpy_helper.to_array(floats[layer.weight]))
        by_output = np.broadcast_to(numpy_helper.to_array(scales[codes]).reshape(-1, 1), (len(weight), 1))
        rounded = np.concatenate(
            [
                second_order(part, scale, bits, part.shape[1], product)
                for part, scale, product in zip(np.split(weight, len(products)), np.split(by_output, len(products)), products, strict=True)
            ]
        )
        fixed[codes].CopyFrom(numpy_helper.from_array(own_shape(layer, rounded, before), codes))
    return narrow

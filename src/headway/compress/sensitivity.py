"""Which layers cost the answers most in 8 bits, measured: each group of layers is quantized alone and the model's outputs are compared.

On EfficientNet-Lite0 the squares of these errors add up to the square of the whole model's error (0.109 against 0.114), so leaving
the worst layers in float buys what the list says. The cheaper measure, the error at each layer's own output, did not rank them there
at all (rank correlation 0.04). At most 64 groups are run, each on 8 samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from onnx import ModelProto

from headway.compress.layers import Layer
from headway.compress.session import answers, relative_error

ROWS = 8
MOST_RUNS = 64
BOUND_ROWS = 32


def output_errors(
    reference: ModelProto,
    own: Sequence[Layer],
    samples: Mapping[str, np.ndarray],
    quantize_alone: Callable[[Sequence[Layer]], ModelProto],
) -> dict[str, float]:
    """Relative L2 error of the outputs when only that layer is quantized, by layer name.

    Args:
        reference: the float model.
        own: its layers in graph order; with more than 64, neighbours are measured together and share the square of the error.
        samples: 8 of them are used, evenly spread.
        quantize_alone: the model with only the given layers quantized.
    """
    few = spread(samples, ROWS)
    exact = answers(reference, few, ROWS)
    size = math.ceil(len(own) / MOST_RUNS)
    errors: dict[str, float] = {}
    for start in range(0, len(own), size):
        group = own[start : start + size]
        error = relative_error(exact, answers(quantize_alone(group), few, ROWS))
        errors |= {layer.name: error / math.sqrt(len(group)) for layer in group}
    return errors


def spread(samples: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    """``rows`` samples, evenly spread over all."""
    total = min(len(array) for array in samples.values())
    chosen = np.unique(np.linspace(0, total - 1, min(rows, total)).astype(int))
    return {name: array[chosen] for name, array in samples.items()}


def worst(errors: Mapping[str, float], share: float) -> frozenset[str]:
    """Names of the layers with the largest errors: ``share`` of all, rounded up; ties by name."""
    count = math.ceil(share * len(errors))
    return frozenset(sorted(errors, key=lambda name: (-errors[name], name))[:count])


def within(
    own: Sequence[Layer],
    errors: Mapping[str, float],
    reference: ModelProto,
    samples: Mapping[str, np.ndarray],
    quantize: Callable[[Sequence[Layer]], ModelProto],
    bound: float,
) -> tuple[Layer, ...]:
    """The most layers that can be quantized with the outputs' relative L2 error within ``bound``; empty when even one is too much.

    The worst go back to float first; how many is found by halving, as if the error fell with each. What is returned was measured.

    Args:
        own, errors: the layers and what each costs alone.
        samples: 32 of them are used, evenly spread.
        quantize: the model with only the given layers quantized.
    """
    some = spread(samples, BOUND_ROWS)
    exact = answers(reference, some, BOUND_ROWS)
    ranked = sorted(own, key=lambda layer: (-errors[layer.name], layer.name))

    def left(count: int) -> tuple[Layer, ...]:
        kept = {layer.name for layer in ranked[:count]}
        return tuple(layer for layer in own if layer.name not in kept)

    low, high = 0, len(ranked)  # with ``high`` in float the error is within the bound
    while low < high:
        middle = (low + high) // 2
        if relative_error(exact, answers(quantize(left(middle)), some, BOUND_ROWS)) <= bound:
            high = middle
        else:
            low = middle + 1
    return left(high)

"""Inner values that a model and its teacher have in common, as pairs for feature distillation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from headway.lift import lift
from headway.model import Model
from headway.train.rows import Array, check
from headway.train.settings import FeaturePair

TELLING = frozenset(
    {
        "Add", "Clip", "Concat", "Conv", "Elu", "Gelu", "Gemm", "GlobalAveragePool", "HardSwish", "LayerNormalization", "LeakyRelu",
        "MatMul", "MaxPool", "AveragePool", "Mul", "PRelu", "Relu", "Selu", "Sigmoid", "Tanh", "LSTM", "GRU", "RNN",
    }
)  # fmt: skip
ROWS = 2


def matching_values(
    model: Model, teacher: Model, inputs: Mapping[str, Array], *, count: int = 4, loss: str = "mse", weight: float = 1.0
) -> tuple[FeaturePair, ...]:
    """At most ``count`` pairs of values with one name, one operator and one shape in both graphs, spread evenly over the depth.

    Args:
        inputs: rows to run both on; the first few tell the shapes.
        loss: of each pair.
        weight: of all pairs together.

    Raises:
        Unsupported: a graph cannot be lifted.
        DataError: the inputs do not fit.
    """
    theirs = _values(teacher)
    names = [name for name, operator in _values(model).items() if theirs.get(name) == operator]
    rows = check(model, inputs, None, "rows")
    feeds = rows.feeds(np.arange(min(rows.fixed or ROWS, rows.count)))
    with torch.no_grad():
        mine = lift(model).eval()(feeds, keep=names)
        own = lift(teacher).eval()({spec.name: feeds[spec.name] for spec in teacher.inputs}, keep=names)
    alike = [name for name in names if mine[name].shape == own[name].shape and mine[name].is_floating_point() and mine[name].ndim > 1]
    places = np.unique(np.linspace(0, len(alike) - 1, min(count, len(alike))).round().astype(int)) if alike else []
    chosen = [alike[place] for place in places]
    return tuple(FeaturePair(student=name, teacher=name, loss=loss, weight=weight / len(chosen)) for name in chosen)


def _values(model: Model) -> dict[str, str]:
    graph = model.to_proto().graph
    outputs = {value.name for value in graph.output}
    return {
        node.output[0]: node.op_type for node in graph.node if node.op_type in TELLING and node.output and node.output[0] not in outputs
    }

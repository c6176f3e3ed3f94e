"""Operators that work channel by channel: activations, broadcasts, batch normalisation, pooling, softmax, reductions."""

from __future__ import annotations

from onnx import NodeProto

from headway.compress.coupling.walk import Axes, Rule, Walk

SAME = (
    "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Softplus", "Softsign", "Mish", "Gelu",
    "ThresholdedRelu", "Erf", "Abs", "Neg", "Exp", "Log", "Sqrt", "Reciprocal", "Ceil", "Floor", "Round", "Sign", "Sin", "Cos", "Not",
    "Identity", "Cast", "Dropout", "Clip", "QuickGelu", "FastGelu", "IsNaN", "Shrink",
)  # fmt: skip
BROADCAST = (
    "Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Mean", "Sum", "PRelu", "Where", "Equal", "Greater", "Less", "GreaterOrEqual",
    "LessOrEqual", "And", "Or", "Mod",
)  # fmt: skip
POOLS = ("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
REDUCTIONS = (
    "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp",
    "ReduceLogSum", "ArgMax", "ArgMin",
)  # fmt: skip


def same(walk: Walk, node: NodeProto) -> None:
    """Every axis passes; further inputs must hold no channels."""
    for name in node.input[1:]:
        walk.pin(node, "reads them as a parameter", *walk.read(name) if name else ())
        if name in walk.fixed:
            walk.use(name, {})
    if len(node.input) > 1 and any(len(walk.shape(name)) and max(walk.shape(name)) > 1 for name in node.input[1:] if name):
        walk.pin_inputs(node, "has parameters by channel")
        return
    for name in node.output:
        if name and walk.shapes.get(name) == walk.shape(node.input[0]):
            walk.write(name, walk.read(node.input[0]))


def broadcast(walk: Walk, node: NodeProto) -> None:
    """Channels of all inputs that are not stretched go together; constants along them are cut too."""
    shape = walk.shape(node.output[0])
    rank = len(shape)
    rows: dict[str, Axes] = {name: [*[None] * (rank - len(walk.shape(name))), *walk.read(name)] for name in node.input}
    result: Axes = []
    for axis, size in enumerate(shape):
        full = [n for n in node.input if axis - rank + len(walk.shape(n)) >= 0 and walk.shape(n)[axis - rank] == size]
        row = next((rows[name][axis] for name in full if rows[name][axis] is not None), None)
        for name in node.input:
            other = rows[name][axis]
            if name not in full:
                walk.pin(node, "stretches them", other)
            elif row is not None and other is None and name not in walk.fixed:
                walk.pin(node, "joins them with channels that stay", row)
            elif row is not None and other is not None:
                walk.unite(node, row, other)
        result.append(row)
    for name in node.input:
        if name in walk.fixed:
            own = walk.shape(name)
            lead = rank - len(own)
            walk.use(name, {axis: result[axis + lead] for axis, size in enumerate(own) if size == shape[axis + lead]})
    walk.write(node.output[0], result)


def batch_norm(walk: Walk, node: NodeProto) -> None:
    """Scale, shift, mean and variance follow axis 1; instance normalisation has the first two only."""
    axes = walk.read(node.input[0])
    for name in node.input[1:]:
        if name in walk.fixed:
            walk.use(name, {0: axes[1]})
        else:
            walk.pin(node, "takes its parameters from the graph", axes[1])
    walk.pin(node, "normalises over them", *axes[2:])
    walk.write(node.output[0], [axes[0], axes[1], *[None] * (len(axes) - 2)])


def pool(walk: Walk, node: NodeProto) -> None:
    """Axis 1 passes; the space is pooled."""
    axes = walk.read(node.input[0])
    walk.pin(node, "pools over them", *axes[2:])
    for name in node.output:
        if name:
            walk.write(name, [axes[0], axes[1], *[None] * (len(axes) - 2)])


def softmax(walk: Walk, node: NodeProto) -> None:
    """The axis that is normalised stays; the others pass."""
    axes = walk.read(node.input[0])
    axis = walk.integer(node, "axis", -1 if walk.opset >= 13 else 1) % max(len(axes), 1)
    summed = [axis] if walk.opset >= 13 else list(range(axis, len(axes)))
    walk.pin(node, "normalises over them", *(axes[item] for item in summed))
    walk.write(node.output[0], axes)


def normalise(walk: Walk, node: NodeProto) -> None:
    """Layer normalisation mixes the normalised axes: they stay. Axes before them pass."""
    axes = walk.read(node.input[0])
    axis = walk.integer(node, "axis", -1) % len(axes)
    walk.pin(node, "normalises over them", *axes[axis:])
    walk.write(node.output[0], [*axes[:axis], *[None] * (len(axes) - axis)])


def reduction(walk: Walk, node: NodeProto) -> None:
    """Axes that are reduced stay; the others pass."""
    axes = walk.read(node.input[0])
    if node.op_type in ("ArgMax", "ArgMin"):
        given: list[int] | None = [walk.integer(node, "axis", 0)]
    else:
        given = walk.integers(node, "axes", 1)
        if given is None and len(node.input) > 1 and node.input[1]:
            walk.pin_inputs(node, "has axes that are not constant")
            return
    reduced = {item % len(axes) for item in given} if given else set(range(len(axes)))
    walk.pin(node, "reduces over them", *(axes[item] for item in reduced))
    keep = walk.integer(node, "keepdims", 1)
    walk.write(node.output[0], [None if i in reduced else row for i, row in enumerate(axes) if keep or i not in reduced])


RULES: dict[str, Rule] = {
    **dict.fromkeys(SAME, same),
    **dict.fromkeys(BROADCAST, broadcast),
    **dict.fromkeys(POOLS, pool),
    **dict.fromkeys(REDUCTIONS, reduction),
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), batch_norm),
    **dict.fromkeys(("Softmax", "LogSoftmax"), softmax),
    "LayerNormalization": normalise,
}

"""Operators with a fixed amount of work for each element, and those that only move data."""

from __future__ import annotations

from collections.abc import Callable

from headway.model.flop.view import NodeView

# FLOP for each output element, by the operator's definition in the ONNX specification
PER_ELEMENT = {
    1: """Abs Acos Acosh Add Asin Asinh Atan Atanh BitShift Ceil Cos Cosh Div Erf Exp Floor Log Max Min Mod Mul Neg Pow PRelu
    Reciprocal Relu Round
        Sign Sin Sinh Sqrt Sub Sum Tan Tanh ThresholdedRelu Mean QLinearAdd QLinearMul CumSum CumProd Shrink""",
    2: "Clip DequantizeLinear Elu LeakyRelu QuantizeLinear Softsign Celu QLinearLeakyRelu",
    3: "HardSigmoid Selu Sigmoid Softplus QLinearSigmoid BiasAdd",
    4: "DynamicQuantizeLinear HardSwish Swish QuickGelu",
    5: "Mish Gelu",
    6: "BiasGelu",
    8: "FastGelu",
}
VARIADIC = {"Add", "Max", "Min", "Sum", "Mean", "Mul"}
# no arithmetic on elements: shapes, copies, choices, comparisons, logic, random numbers
FREE = """
    And ArgMax ArgMin ArrayFeatureExtractor BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Compress Concat
    ConcatFromSequence Constant ConstantOfShape DepthToSpace Dropout Equal Expand EyeLike Flatten Gather GatherElements GatherND
    Greater GreaterOrEqual Hardmax Identity IsInf IsNaN Less LessOrEqual MaxUnpool Multinomial NonZero Not OneHot Optional
    OptionalGetElement OptionalHasElement Or Pad QLinearConcat RandomNormal RandomNormalLike RandomUniform RandomUniformLike
    Bernoulli Range Reshape ReverseSequence Scatter ScatterElements ScatterND SequenceAt SequenceConstruct SequenceEmpty
    SequenceErase SequenceInsert SequenceLength Shape Size Slice SpaceToDepth Split SplitToSequence Squeeze TensorScatter Tile
    TopK Transpose Trilu Unique Unsqueeze Where Xor ReorderInput ReorderOutput
"""

# the output lies where the input lies: nothing is moved
VIEWS = frozenset(
    [
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Identity",
        "Dropout",
        "Shape",
        "Size",
        "Constant",
        "ConstantOfShape",
        "Range",
        "Optional",
        "OptionalGetElement",
    ]
)
# only what comes out is read, not the whole first input
LOOKUPS = frozenset(["Gather", "GatherElements", "GatherND", "Slice"])


def _per_element(flop: int) -> Callable[[NodeView], int]:
    def rule(node: NodeView) -> int:
        times = max(1, sum(node.given) - 1) if node.op_type in VARIADIC else 1
        return flop * times * node.elements_out()

    return rule


RULES: dict[str, Callable[[NodeView], int]] = {
    **{name: _per_element(flop) for flop, names in PER_ELEMENT.items() for name in names.split()},
    **{name: lambda node: 0 for name in FREE.split()},
}

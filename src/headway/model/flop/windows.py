"""Reductions, pooling, normalisation, softmax, resampling."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import log2, prod

from headway.model.flop.view import NodeView


def _reduce(per_input: int, per_output: int = 0) -> Callable[[NodeView], int]:
    return lambda node: per_input * node.elements_in(0) + per_output * node.elements_out()


def _pool(node: NodeView) -> int:
    """One operation for each element under the window, for each output."""
    return node.elements_out() * prod(_sizes(node.attributes["kernel_shape"]))


def _per_input(flop: int) -> Callable[[NodeView], int]:
    return lambda node: flop * node.elements_in(0)


def _lrn(node: NodeView) -> int:
    """Square and sum over ``size`` channels, then scale, power, divide."""
    return node.elements_in(0) * (2 * int(node.attributes["size"]) + 4)


def _resize(node: NodeView) -> int:
    """Nearest copies; linear blends 2 and cubic 4 neighbours along each dimension that changes, two FLOP a neighbour."""
    taps = {"nearest": 0, "linear": 2, "cubic": 4}[_text(node.attributes.get("mode", "nearest"))]
    changed = sum(before != after for before, after in zip(node.input(0), node.output(), strict=True))
    return node.elements_out() * 2 * taps**changed if taps and changed else 0


def _grid_sample(node: NodeView) -> int:
    mode = _text(node.attributes.get("mode", "linear"))
    taps = 0 if mode == "nearest" else 4 if "cubic" in mode else 2
    return node.elements_out() * 2 * taps ** (len(node.output()) - 2) if taps else 0


def _affine_grid(node: NodeView) -> int:
    dims = node.output()[-1]
    return node.elements_out() * (2 * dims + 1)


def _dft(node: NodeView) -> int:
    """5 n log2 n for each transform of length n (the usual count for a fast Fourier transform)."""
    axis = int(node.constants[2].item()) if 2 in node.constants else node.attributes.get("axis", 1)
    length = node.output()[axis]
    return int(5 * prod(node.output()[:-1]) * max(1.0, log2(max(1, length))))


def _stft(node: NodeView) -> int:
    """For each frame a window (one FLOP a sample) and a transform."""
    frames = node.output()[0] * node.output()[1]
    length = int(node.constants[3].item()) if 3 in node.constants else node.input(2)[0]
    return int(frames * length * (1 + 5 * max(1.0, log2(max(1, length)))))


def _sizes(value: Iterable[int]) -> list[int]:
    return [int(size) for size in value]


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


RULES: dict[str, Callable[[NodeView], int]] = {
    **{name: _reduce(1) for name in ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd")},
    "ReduceMean": _reduce(1, 1),
    "ReduceL1": _reduce(2),
    "ReduceSumSquare": _reduce(2),
    "ReduceL2": _reduce(2, 1),
    "ReduceLogSum": _reduce(1, 1),
    "ReduceLogSumExp": _reduce(3, 1),
    "QLinearReduceMean": _reduce(1, 3),
    **dict.fromkeys(("AveragePool", "MaxPool", "LpPool", "QLinearAveragePool", "NhwcMaxPool"), _pool),
    "GlobalAveragePool": _reduce(1, 1),
    "GlobalMaxPool": _reduce(1),
    "GlobalLpPool": _reduce(2, 1),
    "QLinearGlobalAveragePool": _reduce(1, 3),
    "MaxRoiPool": _reduce(1),
    # largest, subtract, exp, sum, divide
    **{name: _per_input(5) for name in ("Softmax", "LogSoftmax", "QLinearSoftmax")},
    "BatchNormalization": _per_input(2),  # scale and shift, the rest is known beforehand
    # mean; subtract; square and sum; divide; scale; shift
    **{name: _per_input(7) for name in ("LayerNormalization", "InstanceNormalization", "GroupNormalization", "GroupNorm")},
    "SkipLayerNormalization": _per_input(8),
    **{name: _per_input(4) for name in ("RMSNormalization", "SimplifiedLayerNormalization")},
    "SkipSimplifiedLayerNormalization": _per_input(5),
    "MeanVarianceNormalization": _per_input(5),
    "LpNormalization": _per_input(3),
    "LRN": _lrn,
    "Resize": _resize,
    "Upsample": _resize,
    "GridSample": _grid_sample,
    "AffineGrid": _affine_grid,
    "DFT": _dft,
    "STFT": _stft,
}

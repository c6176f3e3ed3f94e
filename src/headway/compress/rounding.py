"""Float weights to whole numbers at one scale a block: by nearest, by least squared error, or so that the layer's answers move least.

A matrix is [outputs, inputs] here; a block is ``block`` neighbouring inputs of one output. Codes are symmetric: -2^(b-1) to 2^(b-1) - 1.
"""

from __future__ import annotations

import numpy as np

ROUNDINGS = ("nearest", "clipped", "second_order")
_FRACTIONS = np.linspace(0.6, 1.0, 21)
_DAMPING = 0.01
_AT_ONCE = 64


def scales(weight: np.ndarray, bits: int, block: int, *, clipped: bool) -> np.ndarray:
    """One positive scale a block, float32 [outputs, blocks]; the last block may be short.

    ``clipped``: the one of 21 fractions of the block's largest magnitude with the least squared error (Choukroun et al., arXiv
    1902.06822, section 3, on weights); otherwise the largest magnitude becomes the largest code, and nothing is cut off.
    """
    parts = _blocks(weight, block)
    peak = np.abs(parts).max(axis=2)
    whole = np.where(peak > 0, peak, 1.0) / (2 ** (bits - 1) - 1)
    if not clipped:
        return whole.astype(np.float32)
    errors = np.stack([np.square(_rounded(parts, (whole * share)[..., None], bits) - parts).sum(axis=2) for share in _FRACTIONS[::-1]])
    return (whole * _FRACTIONS[::-1][errors.argmin(axis=0)]).astype(np.float32)


def nearest(weight: np.ndarray, by_block: np.ndarray, bits: int, block: int) -> np.ndarray:
    """Codes int8 [outputs, inputs], each the nearest to its weight."""
    wide = np.repeat(by_block.astype(np.float64), block, axis=1)[:, : weight.shape[1]]
    return np.clip(np.round(weight / wide), *_limits(bits)).astype(np.int8)


def second_order(weight: np.ndarray, by_block: np.ndarray, bits: int, block: int, products: np.ndarray) -> np.ndarray:
    """Codes int8 [outputs, inputs] by GPTQ: inputs are rounded one after another, and those to come make up for what was lost.

    Frantar et al., "GPTQ" (arXiv 2210.17323, algorithm 1, with static groups and inputs in the order of their energy). ``products`` is
    X^T X of the layer's inputs [inputs, inputs]; 1% of its mean diagonal is added to each entry of the diagonal, as in the paper.
    """
    energy = np.diag(products).copy()
    damped = products + np.eye(len(products)) * max(_DAMPING * energy.mean(), 1e-12)
    order = np.argsort(-energy, kind="stable")
    upper = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T
    left, codes = weight[:, order].astype(np.float64), np.empty(weight.shape, np.int8)
    for start in range(0, len(order), _AT_ONCE):
        stop = min(start + _AT_ONCE, len(order))
        losses = np.empty((len(weight), stop - start))
        for place in range(start, stop):
            scale = by_block[:, order[place] // block].astype(np.float64)
            code = np.clip(np.round(left[:, place] / scale), *_limits(bits))
            codes[:, order[place]] = code
            losses[:, place - start] = loss = (left[:, place] - code * scale) / upper[place, place]
            left[:, place + 1 : stop] -= np.outer(loss, upper[place, place + 1 : stop])
        left[:, stop:] -= losses @ upper[start:stop, stop:]
    return codes


def restored(codes: np.ndarray, by_block: np.ndarray, block: int) -> np.ndarray:
    """The weights that codes stand for, float32 [outputs, inputs]."""
    return (codes * np.repeat(by_block, block, axis=1)[:, : codes.shape[1]]).astype(np.float32)


def _limits(bits: int) -> tuple[int, int]:
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def _rounded(values: np.ndarray, scale: np.ndarray, bits: int) -> np.ndarray:
    return np.clip(np.round(values / scale), *_limits(bits)) * scale


def _blocks(weight: np.ndarray, block: int) -> np.ndarray:
    """[outputs, blocks, block], the last block filled with zeros."""
    outputs, inputs = weight.shape
    padded = np.zeros((outputs, -(-inputs // block) * block))
    padded[:, :inputs] = weight
    return padded.reshape(outputs, -1, block)

"""Attention, whole: scores Q K^T, softmax (5 FLOP a score) and the weighted sum of V (Vaswani et al. 2017, equation 1).

With L queries, S keys, h heads of width E (values F): 2 h L S E + 5 h L S + h L S (scaling) + 2 h L S F for each row. Causal attention
counts the whole square, as most kernels compute it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from headway.model.flop.view import NodeView, ShapeUnknown


def _core(rows: int, heads: int, queries: int, keys: int, *, width: int, value_width: int) -> int:
    return rows * heads * queries * keys * (2 * width + 2 * value_width + 6)


def _attention(node: NodeView) -> int:
    """The standard operator (opset 23) or ONNX Runtime's, which also projects its input to Q, K and V."""
    if node.domain == "com.microsoft":
        rows, length, width = node.input(0)
        projected = node.input(1)[-1]
        heads = node.attributes["num_heads"]
        third = projected // 3
        return rows * length * projected * (2 * width + node.has(2)) + _core(
            rows, heads, length, length, width=third // heads, value_width=third // heads
        )
    query, key, value = node.input(0), node.input(1), node.input(2)
    past = (node.input(4)[2]) if node.has(4) else 0
    if len(query) == 4:
        return _core(query[0], query[1], query[2], key[2] + past, width=query[3], value_width=value[3])
    heads, kept = node.attributes["q_num_heads"], node.attributes["kv_num_heads"]
    return _core(query[0], heads, query[1], key[1] + past, width=query[2] // heads, value_width=value[2] // kept)


def _quantized_attention(node: NodeView) -> int:
    """ONNX Runtime's QAttention: the projection in integers; its bias is always there."""
    rows, length, width = node.input(0)
    projected = node.input(1)[-1]
    heads = node.attributes["num_heads"]
    third = projected // 3
    return rows * length * projected * (2 * width + 3) + _core(
        rows, heads, length, length, width=third // heads, value_width=third // heads
    )


def _multi_head(node: NodeView) -> int:
    """ONNX Runtime's MultiHeadAttention on separate Q, K, V of shape (rows, length, heads * width)."""
    query, key, value = node.input(0), node.input(1), node.input(2)
    if len(query) != 3 or len(key) != 3 or len(value) != 3:
        raise ShapeUnknown("MultiHeadAttention: packed layout")
    heads = node.attributes["num_heads"]
    return _core(query[0], heads, query[1], key[1], width=query[2] // heads, value_width=value[2] // heads)


def _grouped(node: NodeView) -> int:
    """ONNX Runtime's GroupQueryAttention with separate Q, K, V."""
    query, key = node.input(0), node.input(1)
    past = node.input(3)[2] if node.has(3) else 0
    width = query[2] // node.attributes["num_heads"]
    return _core(query[0], node.attributes["num_heads"], query[1], key[1] + past, width=width, value_width=width)


def _embed_layer_norm(node: NodeView) -> int:
    """Two or three looked-up rows added, then layer normalisation (7 an element)."""
    return 9 * prod(node.output())


RULES: dict[str, Callable[[NodeView], int]] = {
    "Attention": _attention,
    "QAttention": _quantized_attention,
    "MultiHeadAttention": _multi_head,
    "GroupQueryAttention": _grouped,
    "EmbedLayerNormalization": _embed_layer_norm,
    "RotaryEmbedding": lambda node: 3 * node.elements_in(0),
}

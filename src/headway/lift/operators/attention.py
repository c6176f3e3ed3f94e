"""Attention with grouped heads, caches and masks; rotary position embedding."""

from __future__ import annotations

import torch
from torch import Tensor

from headway.lift.node import Node
from headway.lift.registry import Run, operator


def _heads(x: Tensor, count: int) -> Tensor:
    return x.reshape(x.shape[0], x.shape[1], count, -1).transpose(1, 2) if x.dim() == 3 else x


@operator("Attention", since=23)
def _attention(node: Node) -> Run:
    def run(
        q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, past_k: Tensor | None = None, past_v: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor | None, ...]:  # fmt: skip
        flat = q.dim() == 3
        q = _heads(q, node.get("q_num_heads", 1))
        k, v = (_heads(each, node.get("kv_num_heads", 1)) for each in (k, v))
        past = 0 if past_k is None else past_k.shape[2]
        if past_k is not None and past_v is not None:
            k, v = torch.cat((past_k, k), 2), torch.cat((past_v, v), 2)
        groups = q.shape[1] // k.shape[1]
        keys, values = (each.repeat_interleave(groups, 1) if groups > 1 else each for each in (k, v))
        scale = node.get("scale") or q.shape[-1] ** -0.5
        scores = (q * scale**0.5) @ (keys * scale**0.5).transpose(-1, -2)
        bias = _bias(node, scores, mask, past, lengths)
        softcap = node.get("softcap", 0.0)
        capped = torch.tanh(scores / softcap) * softcap if softcap else scores
        biased = capped if bias is None else capped + bias.to(capped.dtype)
        stages = {0: scores, 1: capped, 2: biased}
        shares = _shares(biased, biased is not capped)
        stages[3] = shares
        made = (shares @ values).to(q.dtype)
        if flat:
            made = made.transpose(1, 2).reshape(made.shape[0], made.shape[2], -1)
        return (made, k, v, stages[node.get("qk_matmul_output_mode", 0)])[: len(node.proto.output)]

    return run


def _shares(scores: Tensor, masked: bool) -> Tensor:
    """Softmax; a row in which everything is masked gives zeros, with zero gradients."""
    if not masked:
        return torch.softmax(scores, -1)
    empty = (scores == -float("inf")).all(-1, keepdim=True)
    return torch.softmax(scores.masked_fill(empty, 0.0), -1).masked_fill(empty, 0.0)


def _bias(node: Node, scores: Tensor, mask: Tensor | None, past: int, lengths: Tensor | None) -> Tensor | None:
    width, low = scores.shape[-1], -float("inf")
    rows, columns = torch.arange(scores.shape[-2], device=scores.device).unsqueeze(1), torch.arange(width, device=scores.device)
    start = past if lengths is None or past else lengths.reshape(-1, 1, 1, 1) - scores.shape[-2]
    left, right = node.get("left_window_size", -1), node.get("right_window_size", -1)
    hidden = [columns > rows + start] if node.get("is_causal", 0) else []
    hidden += [columns < rows + start - left] if left >= 0 else []
    hidden += [columns > rows + start + right] if right >= 0 else []
    hidden += [columns >= lengths.reshape(-1, 1, 1, 1)] if lengths is not None else []
    if mask is not None and mask.shape[-1] < width:
        mask = torch.nn.functional.pad(mask, (0, width - mask.shape[-1]), value=False if mask.dtype == torch.bool else low)
    if mask is not None and mask.dtype == torch.bool:
        hidden, mask = [*hidden, ~mask], None
    for each in hidden:
        empty = torch.zeros((), dtype=scores.dtype, device=scores.device) if mask is None else mask
        mask = torch.where(each, low, empty)
    return mask


@operator("RotaryEmbedding")
def _rotary(node: Node) -> Run:
    width, mixed = node.get("rotary_embedding_dim", 0), node.get("interleaved", 0)

    def run(x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None = None) -> Tensor:
        shape = x.shape
        if x.dim() == 4:
            x = x.transpose(1, 2)
        else:
            x = x.reshape(*shape[:2], node.get("num_heads"), -1)
        size = width or x.shape[-1]
        turned, rest = x[..., :size], x[..., size:]
        if positions is not None:
            cos, sin = cos[positions], sin[positions]
        cos, sin = (each[..., : size // 2].unsqueeze(2) for each in (cos, sin))
        one, two = (turned[..., 0::2], turned[..., 1::2]) if mixed else turned.chunk(2, -1)
        real, imaginary = cos * one - sin * two, sin * one + cos * two
        made = torch.stack((real, imaginary), -1).flatten(-2) if mixed else torch.cat((real, imaginary), -1)
        made = torch.cat((made, rest), -1)
        return made.transpose(1, 2) if len(shape) == 4 else made.reshape(shape)

    return run


@operator("LinearAttention")
def _linear(node: Node) -> Run:
    """Token by token: the state is decayed, moved towards the new value (by the delta rule or by adding), and read by the query."""
    rule = node.get("update_rule", "gated_delta")
    queries, heads = node.get("q_num_heads"), node.get("kv_num_heads")

    def run(
        q: Tensor, k: Tensor, v: Tensor, state: Tensor | None = None, decay: Tensor | None = None, beta: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        kind, length = q.dtype, q.shape[1]
        q = _heads(q, queries).float()
        k, v = (_heads(each, heads).float() for each in (k, v))
        scale = node.get("scale") or q.shape[-1] ** -0.5
        memory = q.new_zeros(k.shape[0], heads, k.shape[-1], v.shape[-1]) if state is None else state.float()
        gates = None if decay is None else _heads(decay, heads).float().exp()
        rates = None if beta is None else beta.float().unsqueeze(1) if beta.shape[-1] == 1 else _heads(beta, heads).float()
        rows = []
        for turn in range(length):
            key, value = k[:, :, turn], v[:, :, turn]
            if gates is not None and "gated" in rule:
                memory = memory * gates[:, :, turn].unsqueeze(-1)
            if "delta" in rule:
                value = value - (key.unsqueeze(-2) @ memory).squeeze(-2)
                value = value if rates is None else value * rates[:, :, turn]
            memory = memory + key.unsqueeze(-1) * value.unsqueeze(-2)
            shared = memory.repeat_interleave(queries // heads, 1)
            rows.append(scale * (q[:, :, turn].unsqueeze(-2) @ shared).squeeze(-2))
        made = torch.stack(rows, 1).flatten(2).to(kind)
        return made, memory.to(kind if state is None else state.dtype)

    return run

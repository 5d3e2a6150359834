"""Causal softmax attention between projections, in the layout that the projections have.

Vaswani et al. 2017 (arXiv 1706.03762), eq. 1: y_t = sum_{s<=t} softmax_s(q_t . k_s / sqrt(K)) v_s.
Shape letters: R runs, B batch, L length, D width, H heads, K head dim; D = H K.
qkv is one tensor [R, B, L, 3 D] with q, k and v behind each other in the last axis, as one
projection makes them, or three tensors [R, B, L, D]; a head is K neighbouring features. `bias`, of
the projections, is added here: [R, 3 D], or three of [R, D].
`attention_triton` computes the same on CUDA in this layout from end to end.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from ..dropout import Dropped, dropout

QKV = Tensor | Sequence[Tensor]


def attention_reference(
    qkv: QKV, num_heads: int, bias: QKV | None = None, dropped: Dropped | None = None
) -> Tensor:
    """The definition: y [R, B, L, D] in q's dtype; half precision is computed in float32. In
    training, weights are `dropped`."""
    q, k, v = heads_first(with_bias(qkv, bias), num_heads)
    wide = torch.promote_types(q.dtype, torch.float32)
    L, K = q.shape[-2:]
    scores = (q.to(wide) @ k.to(wide).mT) * K**-0.5
    future = torch.ones(L, L, dtype=torch.bool, device=q.device).triu(1)
    weights = scores.masked_fill(future, float("-inf")).softmax(-1)
    if dropped is not None:
        weights = dropout(weights, *dropped)
    y = weights @ v.to(wide)
    return rearrange(y, "r b h l k -> r b l (h k)").to(q.dtype)


def attention_step(
    q: Tensor, keys: Tensor, values: Tensor, position: Tensor, num_heads: int
) -> Tensor:
    """One position: y_t [R, B, D] in q's dtype, of q [R, B, D] and of the keys and values
    [R, B, L, D] at positions up to and with `position` [R, B]."""
    wide = torch.promote_types(q.dtype, torch.float32)
    heads, keys, values = (t.to(wide).unflatten(-1, (num_heads, -1)) for t in (q, keys, values))
    scores = torch.einsum("rbhk,rblhk->rbhl", heads, keys) * heads.shape[-1] ** -0.5
    future = torch.arange(keys.shape[2], device=q.device) > position[..., None]  # [R, B, L]
    weights = scores.masked_fill(future.unsqueeze(2), float("-inf")).softmax(-1)
    return torch.einsum("rbhl,rblhk->rbhk", weights, values).flatten(-2).to(q.dtype)


def with_bias(qkv: QKV, bias: QKV | None) -> QKV:
    """q, k and v with their bias added."""
    if bias is None:
        return qkv
    if isinstance(qkv, Tensor):
        assert isinstance(bias, Tensor)
        return qkv + bias[:, None, None].to(qkv.dtype)
    return [x + b[:, None, None].to(x.dtype) for x, b in zip(qkv, bias, strict=True)]


def heads_first(qkv: QKV, num_heads: int) -> list[Tensor]:
    """q, k and v, each [R, B, H, L, K]."""
    parts = qkv.chunk(3, dim=-1) if isinstance(qkv, Tensor) else qkv
    return [rearrange(x, "r b l (h k) -> r b h l k", h=num_heads) for x in parts]

"""Gated linear attention: a linear recurrence in which each feature of the key has its own decay.

    S_t = diag(e^{g_t}) S_{t-1} + k_t v_t^T,    o_t = S_t^T q_t / sqrt(K)

Yang et al. 2023 (arXiv 2312.06635). Shape letters: R runs, B batch, L length, H heads,
K key dim, V value dim. q, k, g: [R, B, L, H, K]; v: [R, B, L, H, V].
g is the log decay, at most 0. Half precision is computed in float32.
"""

import torch
from torch import Tensor


def gated_linear_attention_recurrent(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
    """The definition, one position after the other: [R, B, L, H, V] in v's dtype."""
    R, B, _, H, K = q.shape
    wide = torch.promote_types(v.dtype, torch.float32)
    state = v.new_zeros(R, B, H, K, v.shape[-1], dtype=wide)
    outputs = []
    for q_t, k_t, v_t, g_t in zip(*(t.unbind(2) for t in (q, k, v, g)), strict=True):
        y, state = gated_linear_attention_step(q_t, k_t, v_t, g_t, state)
        outputs.append(y)
    return torch.stack(outputs, dim=2)


def gated_linear_attention_step(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """One position: o_t [R, B, H, V] in v's dtype and S_t, of tensors without L and S_{t-1}
    [R, B, H, K, V]."""
    dtype = v.dtype
    q, k, v, g = (t.to(state.dtype) for t in (q, k, v, g))
    state = torch.exp(g)[..., None] * state + k[..., None] * v[..., None, :]
    y = torch.einsum("...kv,...k->...v", state, q) * q.shape[-1] ** -0.5
    return y.to(dtype), state

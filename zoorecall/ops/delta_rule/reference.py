"""The delta rule: a linear recurrence that overwrites what its state returns for a key.

    S_t = S_{t-1} + k_t [beta_t (v_t - S_{t-1}^T k_t)]^T,    o_t = S_t^T q_t / sqrt(K)

Schlag et al. 2021 (arXiv 2102.11174, section 4.2). Shape letters: R runs, B batch, L length,
H heads, K key dim, V value dim. q, k: [R, B, L, H, K]; v: [R, B, L, H, V]; beta: [R, B, L, H].
Half precision is computed in float32.
"""

import torch
from torch import Tensor


def delta_rule_recurrent(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    """The definition, one position after the other: [R, B, L, H, V]."""
    R, B, _, H, K = q.shape
    wide = torch.promote_types(v.dtype, torch.float32)
    state = v.new_zeros(R, B, H, K, v.shape[-1], dtype=wide)
    outputs = []
    for q_t, k_t, v_t, beta_t in zip(*(t.unbind(2) for t in (q, k, v, beta)), strict=True):
        y, state = delta_rule_step(q_t, k_t, v_t, beta_t, state)
        outputs.append(y)
    return torch.stack(outputs, dim=2)


def delta_rule_step(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """One position: o_t [R, B, H, V] in v's dtype and S_t, of tensors without L and S_{t-1}
    [R, B, H, K, V]."""
    dtype = v.dtype
    q, k, v, beta = (t.to(state.dtype) for t in (q, k, v, beta))
    error = v - torch.einsum("...kv,...k->...v", state, k)
    state = state + torch.einsum("...k,...v->...kv", k, beta[..., None] * error)
    y = torch.einsum("...kv,...k->...v", state, q) * q.shape[-1] ** -0.5
    return y.to(dtype), state

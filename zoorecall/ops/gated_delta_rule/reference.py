"""The gated delta rule: the delta rule on a state that first decays, all of it by one factor.

    S = e^{g_t} S_{t-1};  S_t = S + k_t [beta_t (v_t - S^T k_t)]^T;  o_t = S_t^T q_t / sqrt(K)

Yang, Kautz and Hatamizadeh 2024 (arXiv 2412.06464). Shape letters: R runs, B batch, L length,
H heads, K key dim, V value dim. q, k: [R, B, L, H, K]; v: [R, B, L, H, V]; beta and the
log decay g, which is not positive: [R, B, L, H]. Half precision is computed in float32.
"""

import torch
from torch import Tensor

from ..delta_rule.reference import delta_rule_step


def gated_delta_rule_recurrent(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor) -> Tensor:
    """The definition, one position after the other: [R, B, L, H, V] in v's dtype."""
    R, B, _, H, K = q.shape
    wide = torch.promote_types(v.dtype, torch.float32)
    state = v.new_zeros(R, B, H, K, v.shape[-1], dtype=wide)
    outputs = []
    for q_t, k_t, v_t, beta_t, g_t in zip(*(t.unbind(2) for t in (q, k, v, beta, g)), strict=True):
        y, state = gated_delta_rule_step(q_t, k_t, v_t, beta_t, g_t, state)
        outputs.append(y)
    return torch.stack(outputs, dim=2)


def gated_delta_rule_step(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    """One position: o_t [R, B, H, V] in v's dtype and S_t, of tensors without L and S_{t-1}
    [R, B, H, K, V]."""
    decay = g.to(state.dtype).exp()[..., None, None]
    return delta_rule_step(q, k, v, beta, decay * state)

"""Linear attention with the second-order Taylor polynomial of softmax's exponential as its kernel.

    y_t = sum_{s<=t} p(q_t . k_s / sqrt(K)) v_s / sum_{s<=t} p(...),    p(x) = 1 + x + x^2 / 2

Arora et al. 2024 (arXiv 2402.18668): p(q . k) is the product of features of q and of k,
so a recurrence with a state of `num_features` vectors computes it, too. Shape letters: R runs,
B batch, L length, H heads, K key dim, V value dim. q, k: [R, B, L, H, K]; v: [R, B, L, H, V].
Half precision is computed in float32.
"""

import torch
from torch import Tensor


def taylor_attention_recurrent(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The definition as a recurrence, one position after the other: [R, B, L, H, V]."""
    R, B, _, H, K = q.shape
    wide = torch.promote_types(v.dtype, torch.float32)
    state = v.new_zeros(R, B, H, num_features(K), v.shape[-1] + 1, dtype=wide)
    outputs = []
    for q_t, k_t, v_t in zip(*(t.unbind(2) for t in (q, k, v)), strict=True):
        y, state = taylor_attention_step(q_t, k_t, v_t, state)
        outputs.append(y)
    return torch.stack(outputs, dim=2)


def taylor_attention_step(q: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One position: y_t [R, B, H, V] in v's dtype and the next state, of tensors without L.

    The state [R, B, H, num_features(K), V + 1] holds the sum of the values under each feature, and
    last the sum of the feature itself.
    """
    dtype = v.dtype
    q, k, v = (t.to(state.dtype) for t in (q, k, v))
    v = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)
    state = state + features(k)[..., None] * v[..., None, :]
    read = (features(q)[..., None] * state).sum(-2)
    return (read[..., :-1] / read[..., -1:]).to(dtype), state


def features(x: Tensor) -> Tensor:
    """[..., K] -> [..., num_features(K)] so that features(q) . features(k) = p(q . k / sqrt(K))."""
    K = x.shape[-1]
    rows, columns = torch.tril_indices(K, K, -1, device=x.device)
    mixed = x[..., rows] * x[..., columns]  # each pair once, so it counts twice
    parts = [x.square() / 2**0.5, mixed]
    return torch.cat([torch.ones_like(x[..., :1]), x / K**0.25, *(p / K**0.5 for p in parts)], -1)


def num_features(K: int) -> int:
    """How many different features there are: 1, K of first and K (K + 1) / 2 of second order."""
    return 1 + K + K * (K + 1) // 2

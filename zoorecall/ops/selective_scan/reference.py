"""Mamba's selective scan: a diagonal linear recurrence whose step size depends on the input.

    h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t,    y_t = <C_t, h_t> + D u_t

Gu and Dao 2023 (arXiv 2312.00752), eq. 2: zero-order hold for A and, as in the official code, the
Euler step for B. Shape letters: R runs, B batch, L length, C channels, N state.
u, delta: [R, B, L, C]; A: [R, C, N]; B, C: [R, B, L, N]; D: [R, C]. delta is positive, A negative.
Half precision is computed in float32.
"""

import torch
from torch import Tensor


def selective_scan_recurrent(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor
) -> Tensor:
    """The definition, one position after the other: y [R, B, L, C] in u's dtype."""
    R, batch, _, channels = u.shape
    wide = torch.promote_types(u.dtype, torch.float32)
    h = u.new_zeros(R, batch, channels, A.shape[-1], dtype=wide)
    outputs = []
    for u_t, delta_t, B_t, C_t in zip(*(x.unbind(2) for x in (u, delta, B, C)), strict=True):
        y, h = selective_scan_step(u_t, delta_t, A, B_t, C_t, D, h)
        outputs.append(y)
    return torch.stack(outputs, dim=2)


def selective_scan_step(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, h: Tensor
) -> tuple[Tensor, Tensor]:
    """One position: y_t [R, B, C] in u's dtype and h_t, of u, delta, B and C without L and h_{t-1}
    [R, B, C, N]."""
    dtype = u.dtype
    u, delta, B, C = (x.to(h.dtype) for x in (u, delta, B, C))
    decay = torch.exp(delta[..., None] * A[:, None])
    h = decay * h + (delta * u)[..., None] * B[..., None, :]
    y = (h * C[..., None, :]).sum(-1) + D[:, None] * u
    return y.to(dtype), h

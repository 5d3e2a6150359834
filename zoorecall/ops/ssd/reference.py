"""Mamba2's state space duality (SSD): with one decay a head, a chunk is a masked matrix product.

    h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t^T,    y_t = h_t^T C_t

Dao and Gu 2024 (arXiv 2405.21060), section 6. Shape letters: R runs, B batch, L length, H heads,
P head dim, G groups of heads that share B and C, N state.
x: [R, B, L, H, P]; dt: [R, B, L, H]; A: [R, H]; B, C: [R, B, L, G, N]. dt is positive, A negative.
Half precision is computed in float32. `ssd_triton` and, for several chunks, `ssd_chunks_triton`
are the forms for CUDA.
"""

import torch
from einops import repeat
from torch import Tensor


def ssd_recurrent(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The definition, one position after the other: y [R, B, L, H, P] in x's dtype."""
    R, batch, _, H, P = x.shape
    wide = torch.promote_types(x.dtype, torch.float32)
    h = x.new_zeros(R, batch, H, B.shape[-1], P, dtype=wide)
    outputs = []
    for x_t, dt_t, B_t, C_t in zip(*(t.unbind(2) for t in (x, dt, B, C)), strict=True):
        y, h = ssd_step(x_t, dt_t, A, B_t, C_t, h)
        outputs.append(y)
    return torch.stack(outputs, dim=2)


def ssd_step(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor
) -> tuple[Tensor, Tensor]:
    """One position: y_t [R, B, H, P] in x's dtype and h_t, of x, dt, B and C without L and h_{t-1}
    [R, B, H, N, P]."""
    dtype, H = x.dtype, x.shape[2]
    x, dt, B, C = (t.to(h.dtype) for t in (x, dt, B, C))
    B, C = (repeat(t, "r b g n -> r b (g j) n", j=H // t.shape[2]) for t in (B, C))
    decay = torch.exp(dt * A[:, None])[..., None, None]
    h = decay * h + B[..., None] * (dt[..., None] * x)[..., None, :]
    return (h * C[..., None]).sum(-2).to(dtype), h


def split_xBC(
    xBC: Tensor, num_heads: int, num_groups: int, d_state: int
) -> tuple[Tensor, Tensor, Tensor]:
    """x [..., H, P], B and C [..., G, N] of what is side by side: [..., H P + 2 G N]."""
    GN = num_groups * d_state
    x, B, C = xBC.split([xBC.shape[-1] - 2 * GN, GN, GN], dim=-1)
    B, C = (t.unflatten(-1, (num_groups, -1)) for t in (B, C))
    return x.unflatten(-1, (num_heads, -1)), B, C

"""Mamba2's SSD as masked matrix products. See `reference` for the definition and shapes.

The length is K chunks of T positions; J = H / G heads share a B and a C. As in the official
kernels, and unlike the paper's listing, a sum of log decays is a difference of cumulative sums, so
a decay has the absolute precision of the chunk's whole sum. Unlike both, a sequence of up to two
chunks is one chunk: at that length a square of positions is cheaper than states.

In half precision, decays and the states between chunks are float32; products are not.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .reference import split_xBC


def ssd(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk_size: int = 64) -> Tensor:
    """The definition, parallel over the length: y [R, B, L, H, P] in x's dtype."""
    dtype, wide = x.dtype, torch.promote_types(x.dtype, torch.float32)
    L, P, G = x.shape[2], x.shape[4], B.shape[3]
    T = chunk_size if 2 * chunk_size < L else L
    if L % T:  # a position with dt = 0 leaves the state as it is
        x, dt, B, C = (F.pad(t, (0, 0) * (t.ndim - 3) + (0, T - L % T)) for t in (x, dt, B, C))
    log_decay = dt.to(wide) * A[:, None, None]
    log_decay = rearrange(log_decay, "r b (k t) (g j) -> r b k g j t", t=T, g=G)
    x = rearrange(x * dt[..., None], "r b (k t) (g j) p -> r b k g t j p", t=T, g=G)
    B, C = (rearrange(t, "r b (k t) g n -> r b k g t n", t=T) for t in (B, C))

    scores = (C @ B.mT).unsqueeze(4) * masked_decay(log_decay)  # [R, B, K, G, J, T, T]
    y = torch.einsum("...jts,...sjp->...tjp", scores.to(dtype), x.to(dtype))
    if x.shape[2] > 1:
        since_start = log_decay.cumsum(-1).mT.unsqueeze(-1)  # [R, B, K, G, T, J, 1]
        to_end = torch.exp(since_start[..., -1:, :, :] - since_start)
        written = B.mT @ (x * to_end).to(dtype).flatten(-2)  # [R, B, K, G, N, J P]
        total = rearrange(log_decay.sum(-1), "r b k g j -> r b g j k")
        ends = torch.einsum(
            "rbgjks,rbsgnjp->rbkgnjp",
            masked_decay(total[..., :-1]),
            written[:, :, :-1].to(wide).unflatten(-1, (-1, P)),
        )
        read = (C[:, :, 1:] @ ends.to(dtype).flatten(-2)).unflatten(-1, (-1, P))
        later = y[:, :, 1:] + (read * torch.exp(since_start[:, :, 1:])).to(dtype)
        y = torch.cat([y[:, :, :1], later], dim=2)
    return rearrange(y, "r b k g t j p -> r b (k t) (g j) p")[:, :, :L]


def ssd_with_skip(
    xBC: Tensor, dt: Tensor, A: Tensor, D: Tensor, num_groups: int, d_state: int
) -> Tensor:
    """SSD + D x of x, B and C side by side: [R, B, L, H P + 2 G N] -> [R, B, L, H P]; D: [R, H]."""
    x, B, C = split_xBC(xBC, D.shape[-1], num_groups, d_state)
    return (ssd(x, dt, A, B, C) + D.to(x.dtype)[:, None, None, :, None] * x).flatten(-2)


def masked_decay(log_decay: Tensor) -> Tensor:
    """[..., T] -> [..., T, T]: the share of s that is left at t, exp(sum_{s<i<=t}); 0 for s > t."""
    T = log_decay.shape[-1]
    # added, not filled in: an added constant costs nothing in the backward pass
    future = torch.full((T, T), -torch.inf, dtype=log_decay.dtype, device=log_decay.device).triu(1)
    total = log_decay.cumsum(-1)
    return torch.exp(total.unsqueeze(-1) + (-total).unsqueeze(-2) + future)

"""The gated delta rule in parallel inside chunks. See `reference` for the definition and shapes.

C is a chunk's length. As in `delta_rule`, and unlike the published code, a chunk is solved as a
triangular system instead of by an inverse. As in `ssd`, a decay is a difference of cumulative sums
of g and so has the absolute precision of the chunk's whole sum.
"""

import torch
from einops import rearrange
from torch import Tensor

from ..ssd.fast import masked_decay


def gated_delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor, chunk_size: int = 64
) -> Tensor:
    """The definition, parallel inside chunks of `chunk_size` positions: [R, B, L, H, V].

    With G_t the sum of g from the chunk's start to t and u_t the value that position t writes, the
    recurrence inside a chunk is the unit lower triangular system
    u_t + sum_{s<t} beta_t e^{G_t - G_s} (k_t . k_s) u_s = beta_t (v_t - e^{G_t} S^T k_t).
    """
    wide, scale = torch.promote_types(v.dtype, torch.float32), q.shape[-1] ** -0.5
    heads_first = (
        rearrange(t.to(wide), "r b l h d -> r b h l d")
        for t in (q, k, v, beta[..., None], g[..., None])
    )
    chunks = zip(*(t.split(chunk_size, dim=3) for t in heads_first), strict=True)
    outputs, state = [], None
    for q_c, k_c, v_c, beta_c, g_c in chunks:  # [R, B, H, C, ...]
        q_c = q_c * scale
        decay = masked_decay(g_c.squeeze(-1))  # [R, B, H, C, C]; 0 above the diagonal
        from_start = g_c.cumsum(-2).exp()  # [R, B, H, C, 1]
        error = v_c if state is None else v_c - from_start * (k_c @ state)
        system = beta_c * decay * (k_c @ k_c.mT)  # only what is below the diagonal counts
        written = torch.linalg.solve_triangular(
            system, beta_c * error, upper=False, unitriangular=True
        )
        read = (decay * (q_c @ k_c.mT)) @ written
        outputs.append(read if state is None else read + from_start * (q_c @ state))
        kept = (decay[..., -1, :, None] * k_c).mT @ written
        state = kept if state is None else from_start[..., -1:, :] * state + kept
    return rearrange(torch.cat(outputs, dim=3), "r b h l d -> r b l h d").to(v.dtype)

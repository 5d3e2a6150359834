"""Gated linear attention in parallel inside chunks. See `reference` for the definition and shapes.

There are N chunks of C positions. Inside a chunk the paper divides by cumulative products of
decays, which overflows where a feature decays fast; so it needs chunks inside of chunks. Here
blocks of positions are merged two by two: what the first block wrote decays to its end, then from
the start of the second to each query in it. Nothing is divided and no factor exceeds 1, so decays
of any strength are exact to rounding.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def gated_linear_attention(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, chunk_size: int = 32
) -> Tensor:
    """The definition, parallel inside chunks of `chunk_size` positions, a power of two."""
    L, dtype, wide = q.shape[2], v.dtype, torch.promote_types(v.dtype, torch.float32)
    C = min(chunk_size, 2 ** (L - 1).bit_length())
    if L % C:  # a position with k = 0 and g = 0 leaves the state as it is
        q, k, v, g = (F.pad(t, (0, 0, 0, 0, 0, -L % C)) for t in (q, k, v, g))
    q, k, v, g = (rearrange(t.to(wide), "r b (n c) h d -> r b h n c d", c=C) for t in (q, k, v, g))
    scores, q, k, decay = merge_blocks(q * q.shape[-1] ** -0.5, k, torch.exp(g))
    y = scores @ v
    if y.shape[3] > 1:
        written = (k.mT @ v).unbind(3)
        states = [written[0]]  # at the ends of all chunks but the last
        for n in range(1, len(written) - 1):
            states.append(decay[:, :, :, n].mT * states[-1] + written[n])
        later = y[:, :, :, 1:] + q[:, :, :, 1:] @ torch.stack(states, dim=3)
        y = torch.cat([y[:, :, :, :1], later], dim=3)
    return rearrange(y, "r b h n c v -> r b (n c) h v")[:, :, :L].to(dtype)


def merge_blocks(q: Tensor, k: Tensor, decay: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of a chunk's q, k and decays e^g, [..., C, K]: the causal scores [..., C, C], q decayed since
    the chunk's start, k decayed to its end, [..., C, K], and the decay over it, [..., 1, K].

    The same four of blocks of 1, 2, 4, ... positions: [..., C / block, block or 1, block or K].
    """
    scores = (q * k).sum(-1)[..., None, None]
    q, k, decay = (t.unsqueeze(-2) for t in (q * decay, k, decay))
    while q.shape[-3] > 1:
        pairs = (t.unflatten(-3, (-1, 2)).unbind(-3) for t in (scores, q, k, decay))
        (scores_1, scores_2), (q_1, q_2), (k_1, k_2), (decay_1, decay_2) = pairs
        above = F.pad(scores_1, (0, scores_1.shape[-1]))
        scores = torch.cat([above, torch.cat([q_2 @ k_1.mT, scores_2], dim=-1)], dim=-2)
        q = torch.cat([q_1, q_2 * decay_1], dim=-2)
        k = torch.cat([k_1 * decay_2, k_2], dim=-2)
        decay = decay_1 * decay_2
    return scores.squeeze(-3), q.squeeze(-3), k.squeeze(-3), decay.squeeze(-3)

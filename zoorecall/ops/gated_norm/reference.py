"""Root-mean-square normalization of a gated sequence, as Mamba2 ends with.

    out = g / sqrt(mean(g^2) + eps) * weight,    g = y * SiLU(z)

Dao and Gu 2024 (arXiv 2405.21060), section 7. Shape letters: R runs, B batch, L length, E channels,
G groups of channels, each of which has a mean of its own. y, z: [R, B, L, E]; weight: [R, E].
`gated_rms_norm_triton` is the form for CUDA.
"""

import torch.nn.functional as F
from torch import Tensor


def gated_rms_norm(
    y: Tensor, z: Tensor, weight: Tensor, num_groups: int, eps: float = 1e-5
) -> Tensor:
    """The definition: [R, B, L, E] in y's dtype."""
    gated = (y * F.silu(z)).unflatten(-1, (num_groups, -1))
    normed = F.rms_norm(gated, gated.shape[-1:], eps=eps).flatten(-2)
    return normed * weight.to(y.dtype)[:, None, None]

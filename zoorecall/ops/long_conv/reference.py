"""Causal convolution with filters as long as the sequence, one filter a run and channel:

    y_t = sum_{s=0}^{t} h_{t-s} u_s

u: [R, B, L, C], h: [R, L, C] (R runs, B batch, L length, C channels). The result has u's dtype.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def with_skip(h: Tensor, D: Tensor) -> Tensor:
    """The filter that adds D u to what h makes of u: [R, L, C], [R, C] -> [R, L, C]."""
    # D joins the first tap, which is cheaper than a second pass over [R, B, L, C]
    return torch.cat([h[:, :1] + D.unsqueeze(1), h[:, 1:]], dim=1)


def long_conv_flops(length: int) -> int:
    """Of one sequence and channel, whichever form runs, by FFT: two real transforms of 2L points
    (2.5 n log2 n each) and a complex product."""
    return round(10 * length * math.log2(2 * length)) + 6 * (length + 1)


def long_conv_direct(u: Tensor, h: Tensor) -> Tensor:
    """The definition, one lag after the other: [R, B, L, C]."""
    L = u.shape[2]
    lags = (F.pad(h[:, None, s : s + 1] * u[:, :, : L - s], (0, 0, s, 0)) for s in range(L))
    return sum(lags, torch.zeros_like(u)).to(u.dtype)

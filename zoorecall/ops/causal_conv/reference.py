"""Short causal depthwise convolution along the length, with an optional bias and SiLU.

    y_t = act(bias + sum_j weight[:, j] * x_{t - (T-1) + j}),    act the identity or SiLU

Shape letters: R runs, B batch, L length, C channels, T taps. x: [R, B, L, C]; weight: [R, C, T];
bias: [R, C]. Half precision is computed in float32. `causal_conv_triton` is the form for CUDA.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def causal_conv_reference(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, silu: bool = False
) -> Tensor:
    """The definition as shifted products: [R, B, L, C] in x's dtype."""
    wide = torch.promote_types(x.dtype, torch.float32)
    L, taps = x.shape[2], weight.to(wide)[:, None, None].unbind(-1)
    padded = F.pad(x.to(wide), (0, 0, len(taps) - 1, 0))
    y = padded.new_zeros(()) if bias is None else bias.to(wide)[:, None, None]
    for j, tap in enumerate(taps):
        y = y + padded[:, :, j : j + L] * tap
    return (F.silu(y) if silu else y).to(x.dtype)


def causal_conv_step(
    x: Tensor, window: Tensor, weight: Tensor, bias: Tensor | None = None, silu: bool = False
) -> tuple[Tensor, Tensor]:
    """One position: y_t [R, B, C] in x's dtype and the next window, of x_t [R, B, C] and the
    window [R, B, T - 1, C] of inputs before it, zeros at first."""
    seen = torch.cat([window, x.unsqueeze(2).to(window.dtype)], dim=2)
    y = (seen * weight.to(window.dtype).mT.unsqueeze(1)).sum(2)
    if bias is not None:
        y = y + bias.to(window.dtype).unsqueeze(1)
    return (F.silu(y) if silu else y).to(x.dtype), seen[:, :, 1:]

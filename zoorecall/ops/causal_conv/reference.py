"""Short causal depthwise convolution along the length, with an optional bias and SiLU.

    y_t = act(bias + sum_j weight[:, j] * x_{t - (T-1) + j}),    act the identity or SiLU

Shape letters: R runs, B batch, L length, C channels, T taps. x: [R, B, L, C]; weight: [R, C, T];
bias: [R, C]. Half precision is computed in float32. `causal_conv_triton` is the form for CUDA.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def causal_conv_reference(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, silu: bool = False
) -> Tensor:
    """The definition as shifted products: [R, B, L, C] in x's dtype. A compiler fuses these."""
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


def causal_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, silu: bool = False
) -> Tensor:
    """The same; without a compiler at hand it adds in place instead of making a tensor a tap."""
    if x.is_cuda or torch.compiler.is_compiling():
        return causal_conv_reference(x, weight, bias, silu)
    wide = torch.promote_types(x.dtype, torch.float32)
    parameters = (p if p is None else p.to(wide) for p in (weight, bias))
    y = _InPlace.apply(x.to(wide), *parameters)
    return (F.silu(y) if silu else y).to(x.dtype)


class _InPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        L, last, *earlier = x.shape[2], *_taps(weight)
        y = x * last if bias is None else torch.addcmul(bias[:, None, None], x, last)
        for shift, tap in enumerate(earlier[: L - 1], start=1):
            y[:, :, shift:].addcmul_(x[:, :, : L - shift], tap)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        L, last, *earlier = x.shape[2], *_taps(weight)
        grad_x, grad_weight = grad * last, torch.zeros_like(weight)
        grad_weight[..., -1] = (grad * x).sum((1, 2))
        for shift, tap in enumerate(earlier[: L - 1], start=1):
            grad_x[:, :, : L - shift].addcmul_(grad[:, :, shift:], tap)
            grad_weight[..., -1 - shift] = (grad[:, :, shift:] * x[:, :, : L - shift]).sum((1, 2))
        return grad_x, grad_weight, grad.sum((1, 2)) if ctx.has_bias else None


def _taps(weight: Tensor) -> tuple[Tensor, ...]:
    """The taps from the present one to the earliest, each [R, 1, 1, C]."""
    # with neighbouring channels side by side, which makes the products four times as fast
    return weight.movedim(-1, 0).contiguous()[:, :, None, None].unbind()[::-1]

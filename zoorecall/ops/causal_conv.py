"""Short causal depthwise convolution along the length.

    y_t = sum_j weight[:, j] * x_{t - (T-1) + j}

Shape letters: R runs, B batch, L length, C channels, T taps. x: [R, B, L, C]; weight: [R, C, T].
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def causal_conv_reference(x: Tensor, weight: Tensor) -> Tensor:
    """The definition as shifted products: [R, B, L, C]. A compiler fuses these into one kernel."""
    L, taps = x.shape[2], weight.shape[-1]
    padded = F.pad(x, (0, 0, taps - 1, 0))
    return sum(padded[:, :, j : j + L] * weight[:, None, None, :, j] for j in range(taps))


def causal_conv(x: Tensor, weight: Tensor) -> Tensor:
    """The same; without a compiler at hand it adds in place instead of making a tensor a tap."""
    if x.is_cuda or torch.compiler.is_compiling():
        return causal_conv_reference(x, weight)
    return _InPlace.apply(x, weight)


class _InPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        L, last, *earlier = x.shape[2], *_taps(weight)
        y = x * last
        for shift, tap in enumerate(earlier[: L - 1], start=1):
            y[:, :, shift:].addcmul_(x[:, :, : L - shift], tap)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        L, last, *earlier = x.shape[2], *_taps(weight)
        grad_x, grad_weight = grad * last, torch.zeros_like(weight)
        grad_weight[..., -1] = (grad * x).sum((1, 2))
        for shift, tap in enumerate(earlier[: L - 1], start=1):
            grad_x[:, :, : L - shift].addcmul_(grad[:, :, shift:], tap)
            grad_weight[..., -1 - shift] = (grad[:, :, shift:] * x[:, :, : L - shift]).sum((1, 2))
        return grad_x, grad_weight


def _taps(weight: Tensor) -> list[Tensor]:
    """The taps from the present one to the earliest, each [R, 1, 1, C]."""
    return [tap[:, None, None] for tap in weight.unbind(-1)][::-1]

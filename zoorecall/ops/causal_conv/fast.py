"""The short causal convolution without a tensor a tap, for a CPU without a compiler.

See `reference` for the definition and shapes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def causal_conv_in_place(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, silu: bool = False
) -> Tensor:
    """The definition, adding in place instead of making a tensor a tap."""
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

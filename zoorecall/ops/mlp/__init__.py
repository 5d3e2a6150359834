"""Norm, MLP and residual in one operation."""

import torch
from torch import Tensor

from ..forms import HAS_TRITON, call, tf32
from .reference import Activation, mlp_reference

__all__ = ["Activation", "mlp"]

if HAS_TRITON:
    from .triton import fits, mlp_triton


def mlp(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    eps: float,
    activation: Activation = "gelu",
) -> Tensor:
    """Norm, MLP and residual of x [R, ..., D], as `mlp_reference` defines them."""
    tokens, parameters = x.flatten(1, -2), (norm_weight, norm_bias, w1, b1, w2, b2)
    fused = HAS_TRITON and x.is_cuda and w1.dtype == torch.float32 and activation == "gelu"
    if fused and fits(x.dtype, x.shape[-1]):
        return call(mlp_triton, tokens, *parameters, eps, tf32()).view(x.shape)
    return call(mlp_reference, tokens, *parameters, eps, activation).view(x.shape)

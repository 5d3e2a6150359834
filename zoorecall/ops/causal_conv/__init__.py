"""The short causal convolution, a filter a feature."""

import torch
from torch import Tensor

from ..forms import HAS_TRITON, call
from .fast import causal_conv_in_place
from .reference import causal_conv_reference, causal_conv_step

if HAS_TRITON:
    from .triton import MAX_TAPS, causal_conv_triton

__all__ = ["causal_conv", "causal_conv_step"]


def causal_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, silu: bool = False
) -> Tensor:
    """Short causal convolution, as `reference.causal_conv_reference` defines it."""
    if HAS_TRITON and x.is_cuda and weight.dtype == torch.float32 and weight.shape[-1] <= MAX_TAPS:
        return call(causal_conv_triton, x, weight, bias, silu)
    # a compiler fuses the products of the definition
    fused = x.is_cuda or torch.compiler.is_compiling()
    form = causal_conv_reference if fused else causal_conv_in_place
    return call(form, x, weight, bias, silu)

"""Layer normalization with one scale and shift a run."""

import torch
from torch import Tensor

from ..forms import HAS_TRITON, call
from .reference import layer_norm_reference

if HAS_TRITON:
    from .triton import fits, layer_norm_triton


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The norm, as `layer_norm_reference` defines it.

    In training the compiler makes one kernel of it and its neighbours, so that on a GPU only
    evaluations take the one of our own.
    """
    if HAS_TRITON and x.is_cuda and not torch.is_grad_enabled() and fits(x.dtype, x.shape[-1]):
        return call(layer_norm_triton, x, weight, bias, eps)
    return call(layer_norm_reference, x, weight, bias, eps)

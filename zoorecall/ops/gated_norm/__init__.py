"""The RMSNorm behind a gate."""

from torch import Tensor

from ..forms import HAS_TRITON, call
from . import reference

if HAS_TRITON:
    from .triton import fits, gated_rms_norm_triton


def gated_rms_norm(y: Tensor, z: Tensor, weight: Tensor, num_groups: int, eps: float) -> Tensor:
    """The gated norm, as `reference.gated_rms_norm` defines it."""
    if HAS_TRITON and y.is_cuda and fits(y.dtype, y.shape[-1], num_groups):
        return call(gated_rms_norm_triton, y, z, weight, num_groups, eps)
    return call(reference.gated_rms_norm, y, z, weight, num_groups, eps)

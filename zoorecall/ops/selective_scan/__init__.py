"""Mamba's selective scan."""

from torch import Tensor

from ..forms import HAS_TRITON, call
from . import fast
from .reference import selective_scan_step

if HAS_TRITON:
    from .triton import selective_scan_triton

__all__ = ["selective_scan", "selective_scan_step"]


def selective_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Mamba's selective scan, as `reference.selective_scan_recurrent` defines it."""
    if HAS_TRITON and u.is_cuda and A.shape[-1] <= 64:
        return call(selective_scan_triton, u, delta, A, B, C, D)
    return call(fast.selective_scan, u, delta, A, B, C, D)

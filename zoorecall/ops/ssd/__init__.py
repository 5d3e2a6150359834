"""Mamba2's state space duality."""

from torch import Tensor

from ..forms import HAS_TRITON, call, tf32
from . import fast
from .reference import split_xBC, ssd_step

if HAS_TRITON:
    from .triton import fits, ssd_triton

__all__ = ["split_xBC", "ssd", "ssd_step"]


def ssd(xBC: Tensor, dt: Tensor, A: Tensor, D: Tensor, num_groups: int, d_state: int) -> Tensor:
    """Mamba2's SSD and skip, as `reference.ssd_recurrent` defines them."""
    head_dim = (xBC.shape[-1] - 2 * num_groups * d_state) // D.shape[-1]
    if HAS_TRITON and xBC.is_cuda and fits(xBC.dtype, xBC.shape[2], head_dim, d_state):
        return call(ssd_triton, xBC, dt, A, D, num_groups, d_state, tf32())
    return call(fast.ssd_with_skip, xBC, dt, A, D, num_groups, d_state)

"""The delta rule."""

from torch import Tensor

from ..forms import HAS_FLA, HAS_TRITON, call
from . import fast, fla
from .reference import delta_rule_step

if HAS_TRITON:
    from .triton import delta_rule_triton, fits

__all__ = ["delta_rule", "delta_rule_step"]


def delta_rule(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    """The delta rule, as `reference.delta_rule_recurrent` defines it."""
    if HAS_TRITON and q.is_cuda and fits(q.dtype, q.shape[2], q.shape[4], v.shape[4]):
        return call(delta_rule_triton, q, k, v, beta)
    if HAS_FLA and q.is_cuda and fla.fits(q.dtype, q.shape[4], v.shape[4]):
        return call(fla.delta_rule_fla, q, k, v, beta)
    return call(fast.delta_rule, q, k, v, beta)

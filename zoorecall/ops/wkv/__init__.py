"""RWKV-4's weighted mean of values."""

from torch import Tensor

from ..forms import HAS_TRITON, call
from . import fast
from .reference import WKVState, wkv_step

if HAS_TRITON:
    from .triton import wkv_triton

__all__ = ["WKVState", "wkv", "wkv_step"]


def wkv(k: Tensor, v: Tensor, w: Tensor, u: Tensor) -> Tensor:
    """RWKV's WKV, as `reference.wkv_recurrent` defines it."""
    if HAS_TRITON and k.is_cuda:
        return call(wkv_triton, k, v, w, u)
    return call(fast.wkv, k, v, w, u)

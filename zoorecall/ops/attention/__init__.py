"""Causal softmax attention."""

from torch import Tensor

from ..dropout import Dropped
from ..forms import HAS_TRITON, call, tf32
from . import fast
from .reference import QKV, attention_reference, attention_step

if HAS_TRITON:
    from ..tiles import fits_on_chip
    from .triton import attention_triton

__all__ = ["attention", "attention_step"]


def attention(
    qkv: QKV, num_heads: int, bias: QKV | None = None, dropped: Dropped | None = None
) -> Tensor:
    """Causal softmax attention, as `reference.attention_reference` defines it."""
    q = qkv if isinstance(qkv, Tensor) else qkv[0]
    head_dim = q.shape[-1] // num_heads // (3 if q is qkv else 1)
    if HAS_TRITON and q.is_cuda and fits_on_chip(q.dtype, q.shape[2], head_dim):
        return call(attention_triton, qkv, num_heads, bias, dropped, tf32())
    if dropped is not None:
        return call(attention_reference, qkv, num_heads, bias, dropped)
    return call(fast.attention, qkv, num_heads, bias)

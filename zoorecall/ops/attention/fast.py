"""Causal softmax attention by torch's own kernels. `reference` has the definition and shapes."""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .reference import QKV, heads_first, with_bias


def attention(qkv: QKV, num_heads: int, bias: QKV | None = None) -> Tensor:
    """The definition: y [R, B, L, D]."""
    qkv = with_bias(qkv, bias)
    # runs are folded into the batch because some of torch's kernels refuse five axes
    q, k, v = (x.flatten(0, 1) for x in heads_first(qkv, num_heads))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    R = qkv.shape[0] if isinstance(qkv, Tensor) else qkv[0].shape[0]
    return rearrange(y, "(r b) h l k -> r b l (h k)", r=R)

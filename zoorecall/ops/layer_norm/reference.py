"""Layer normalization (Ba et al. 2016, arXiv 1607.06450): the plain torch form.

    y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias

over the last axis. x: [R, ..., D]; weight, bias: [R, D] (R runs, D width).
"""

import torch.nn.functional as F
from torch import Tensor


def layer_norm_reference(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The definition: [R, ..., D] in x's dtype, to which the parameters are cast."""
    ones = (1,) * (x.ndim - 2)
    weight, bias = (p.to(x.dtype).view(len(p), *ones, -1) for p in (weight, bias))
    return F.layer_norm(x, x.shape[-1:], eps=eps) * weight + bias

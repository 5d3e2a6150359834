"""The MLP half of a layer, from its norm to its residual: the plain torch form.

y = x + W2 act(W1 LN(x) + b1) + b2 with LN the layer normalization with a scale and a shift, and for
act GELU by the error function (Hendrycks and Gimpel 2016, arXiv 1606.08415) or tanh.
Shape letters: R runs, T tokens, D width, F hidden width.
The hidden activations [R, T, F] are the largest tensors of a layer; `mlp_triton` computes the same
without ever storing them.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layer_norm.reference import layer_norm_reference

Activation = Literal["gelu", "tanh"]


def mlp_reference(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    eps: float,
    activation: Activation = "gelu",
) -> Tensor:
    """y [R, T, D] of x [R, T, D], in x's dtype, to which the parameters are cast.

    norm_weight, norm_bias and b2 are [R, D], b1 [R, F], w1 [R, F, D] and w2 [R, D, F]; eps is added
    to the variance under the norm's root.
    """
    b1, b2 = (p.to(x.dtype).unsqueeze(1) for p in (b1, b2))
    normed = layer_norm_reference(x, norm_weight, norm_bias, eps)
    # not baddbmm: it first writes the bias out to the size of the product
    hidden = torch.bmm(normed, w1.to(x.dtype).mT) + b1
    hidden = F.gelu(hidden) if activation == "gelu" else hidden.tanh()
    return x + (torch.bmm(hidden, w2.to(x.dtype).mT) + b2)

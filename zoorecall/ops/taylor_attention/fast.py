"""Based's polynomial attention by its scores. See `reference` for the definition and shapes.

In half precision, scores and their sums are float32; products are not. The polynomial is at least
1/2, so no sum of scores is near 0, and the constant that the published code adds to it is left out.
"""

import torch
from einops import rearrange
from torch import Tensor


def taylor_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The definition, parallel over the length, by L^2 scores a head: [R, B, L, H, V].

    Up to a length of about `num_features` this takes fewer operations than the state does.
    """
    q, k, v = (rearrange(x, "r b l h d -> r b h l d") for x in (q, k, v))
    wide = torch.promote_types(v.dtype, torch.float32)
    x = ((q * q.shape[-1] ** -0.5) @ k.mT).to(wide)
    scores = (1 + x + x.square() / 2).tril()
    y = (scores.to(v.dtype) @ v) / scores.sum(-1, keepdim=True)
    return rearrange(y, "r b h l v -> r b l h v").to(v.dtype)

"""A mixer of one's own: attention with a short convolution on V, causal or centred.

The study that trains it is `conv_on_values.py`. It stands in a file of its own, as a mixer's source
is a part of its runs' identity.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class ConvOnValues(nn.Module):
    """One head of causal attention whose values see three positions: [B, L, D] -> [B, L, D].

    `centred`: the position before, their own and the next one; else their own and two before.
    """

    def __init__(self, d_model: int, centred: bool):
        super().__init__()
        self.reach = (1, 1) if centred else (2, 0)
        self.conv = nn.Conv1d(d_model, d_model, 3, groups=d_model)
        self.qkv = nn.ModuleList(nn.Linear(d_model, d_model) for _ in range(3))
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.conv(F.pad(x.mT, self.reach)).mT
        q, k, v = (linear(u)[:, None] for linear, u in zip(self.qkv, (x, x, seen), strict=True))
        return self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True)[:, 0])

"""How well a run does on examples.

Shape letters: B batch, Q queries, N slices of the task.
"""

import torch
from torch import Tensor

from ..model.model import Model
from .data import Examples


@torch.no_grad()
def measure(
    model: Model,
    examples: Examples,
    count: int,
    batch_size: int,
    dtype: torch.dtype,
    num_slices: int,
) -> Tensor:
    """Token accuracy, sequence accuracy, loss and the token accuracy of each slice of a model of
    one run on the first `count` examples of one place, float64 [3 + N], where the examples are."""
    device = examples.tokens.device
    totals = torch.zeros(3, dtype=torch.float64, device=device)
    right, asked = totals.new_zeros(2, num_slices)
    for start in range(0, count, batch_size):
        part = slice(start, min(start + batch_size, count))
        tokens, positions = examples.tokens[:, part], examples.positions[:, part]
        x = model.through_layers(model.embed(tokens, dtype), positions.long())
        loss, correct = model.losses(x, examples.targets[:, part])
        sequences = correct.view(tokens.shape[1], -1).double()
        totals[0] += sequences.mean(-1).sum()
        totals[1] += sequences.amin(-1).sum()
        totals[2] += loss.double().view(sequences.shape).mean(-1).sum()
        for i in range(num_slices):
            belongs = examples.slices[0, part] == i  # [B, Q]
            right[i] += (sequences * belongs).sum()
            asked[i] += belongs.sum()
    return torch.cat([totals / count, right / asked])

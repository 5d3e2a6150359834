"""How well the runs of a pack do on examples.

Shape letters: R runs, B batch, Q queries, N slices of the task.
"""

import torch
from torch import Tensor

from ..model.model import Model
from .data import Examples


@torch.no_grad()
def measure(
    model: Model,
    examples: Examples,
    seed_index: Tensor,
    count: int,
    batch_size: int,
    dtype: torch.dtype,
    num_slices: int,
) -> Tensor:
    """Token accuracy, sequence accuracy, loss and the token accuracy of each slice on the first
    `count` examples of each run's seed, [3 + N, R] on the CPU."""
    R, device = len(seed_index), seed_index.device
    totals = torch.zeros(3, R, dtype=torch.float64, device=device)
    right, asked = totals.new_zeros(2, num_slices, R)
    for start in range(0, count, batch_size):
        index = torch.arange(start, min(start + batch_size, count), device=device)
        tokens, positions, targets = examples.batch(seed_index, index.expand(R, -1))
        x = model.through_layers(model.embed(tokens, dtype), positions.long())
        loss, correct = model.losses(x, targets)
        sequences = correct.view(R, len(index), -1).double()
        totals[0] += sequences.mean(-1).sum(-1)
        totals[1] += sequences.amin(-1).sum(-1)
        totals[2] += loss.double().view(sequences.shape).mean(-1).sum(-1)
        for i in range(num_slices):
            belongs = examples.slices[seed_index[:, None], index] == i  # [R, B, Q]
            right[i] += (sequences * belongs).sum((1, 2))
            asked[i] += belongs.sum((1, 2))
    return torch.cat([totals / count, right / asked]).cpu()

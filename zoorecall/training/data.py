"""The examples of a pack's seeds, on the device.

Shape letters: R runs, S seeds, B batch, L length, Q queries, n examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..tasks import Task


@dataclass
class Examples:
    """The examples of all seeds of a pack: tokens [S, n, L], the rest [S, n, Q], but slices
    [S, n, 0] for a task that has none."""

    tokens: Tensor
    positions: Tensor
    targets: Tensor
    slices: Tensor

    def batch(self, seed_index: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Examples `index` [R, B] of the seeds `seed_index` [R]."""
        seeds = seed_index[:, None]
        return self.tokens[seeds, index], self.positions[seeds, index], self.targets[seeds, index]


def make_examples(
    task: Task, seeds: Sequence[int], n: int, split: str, block: int, device: torch.device
) -> Examples:
    """The first n examples of a split for each seed; see `tasks.base.Task.examples`."""
    made = [task.examples(n, seed, split, block) for seed in seeds]
    columns = [np.stack(column) for column in zip(*made, strict=True)]
    return Examples(*(torch.from_numpy(column).to(device) for column in columns))

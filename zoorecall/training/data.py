"""The examples of a pack's seeds, on the device, and the order in which its runs see them.

Shape letters: R runs, S seeds, B batch, L length, Q queries, n examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..config import RunConfig
from ..seeding import Stream
from ..tasks import Task, make_task


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


class Feed:
    """What the runs of a pack train on. Runs with the same seed see the same examples in the same
    order. An epoch's examples take the place of those before, where a captured step finds them."""

    def __init__(self, runs: Sequence[RunConfig], device: torch.device):
        self.train, self.task, self.device = runs[0].train, make_task(runs[0].task), device
        self.seeds = sorted({run.data_seed for run in runs})
        of_run = [self.seeds.index(run.data_seed) for run in runs]
        self.seed_index = torch.tensor(of_run, device=device)
        batches, size = self.train.steps_per_epoch, self.train.batch_size
        shape = (len(self.seeds), batches, size)
        self.order = torch.zeros(shape, dtype=torch.int64, device=device)
        self.weight = None  # of each example in its batch's mean, [batches, B]
        if rest := -self.train.train_examples % size if not self.train.drop_last else 0:
            self.weight = torch.full((batches, size), 1 / size, device=device)
            self.weight[-1] = 1 / (size - rest)
            self.weight[-1, size - rest :] = 0
        self.cursor = torch.zeros(1, dtype=torch.int64, device=device)  # batch of the epoch
        self.epoch = -1

    def make(self, n: int, split: str, block: int = 0) -> Examples:
        """The first n examples of a split for each seed."""
        return make_examples(self.task, self.seeds, n, split, block, self.device)

    def load(self, step: int) -> None:
        """Have the examples and the order of a step's epoch, and stand at its batch."""
        epoch = step // self.train.steps_per_epoch
        if epoch == self.epoch:
            return
        fresh, n = self.train.data == "fresh", self.train.train_examples
        in_order = fresh or self.train.order == "fixed"
        if self.epoch < 0:
            self.examples = self.make(n, "train", epoch if fresh else 0)
        elif fresh:
            for name, values in vars(self.make(n, "train", epoch)).items():
                getattr(self.examples, name).copy_(values)
        for s, seed in enumerate(self.seeds):
            order = np.arange(n) if in_order else Stream(seed, "order", epoch).permutation(n)
            # a short last batch has the first examples again, with a weight of 0
            batches = np.resize(order, self.order[s].numel()).reshape(self.order[s].shape)
            self.order[s].copy_(torch.from_numpy(batches), non_blocking=True)
        self.epoch = epoch
        self.cursor.fill_(step % self.train.steps_per_epoch)

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [R, B, L], query positions and targets [R, B, Q] of the batch at the cursor."""
        index = self.order.index_select(1, self.cursor).squeeze(1)[self.seed_index]  # [R, B]
        return self.examples.batch(self.seed_index, index)

    def weights(self) -> Tensor | None:
        """Of the examples of the batch at the cursor, [B], with a sum of 1; None if all are
        alike."""
        return None if self.weight is None else self.weight.index_select(0, self.cursor).squeeze(0)

"""The examples that the slots of a pack train on, on the device, and in which order.

Shape letters: R slots, S places, B batch, L length, Q queries, n examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..config import RunConfig
from ..seeding import Stream
from ..tasks import Task, make_task


@dataclass
class Examples:
    """The examples of some places, of one seed and epoch each: tokens [S, n, L], the rest
    [S, n, Q], but slices [S, n, 0] for a task that has none."""

    tokens: Tensor
    positions: Tensor
    targets: Tensor
    slices: Tensor

    def batch(self, place: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Examples `index` [R, B] of the places `place` [R]."""
        place = place[:, None]
        return self.tokens[place, index], self.positions[place, index], self.targets[place, index]

    def of_place(self, s: int, n: int) -> "Examples":
        """The first n examples of one place alone."""
        return Examples(*(values[s : s + 1, :n] for values in vars(self).values()))


def make_examples(
    task: Task, seeds: Sequence[int], n: int, split: str, block: int, device: torch.device
) -> Examples:
    """The first n examples of a split for each seed; see `tasks.base.Task.examples`."""
    made = [task.examples(n, seed, split, block) for seed in seeds]
    columns = [np.stack(column) for column in zip(*made, strict=True)]
    return Examples(*(torch.from_numpy(column).to(device) for column in columns))


class Feed:
    """What each slot of a pack trains on: an epoch of its run's examples, in an order of its own.

    Runs with the same seed see the same examples in the same order, and share the place of those
    that they have at the same time. Everything stays where a captured step finds it.
    """

    def __init__(self, run: RunConfig, slots: int, device: torch.device):
        train, self.task, self.device = run.train, make_task(run.task), device
        batches, size = train.steps_per_epoch, train.batch_size
        self._held: list[tuple[int, int] | None] = [None] * slots  # seed and block, by place
        self._of_slot: list[int | None] = [None] * slots  # the place of each slot
        self.place = torch.zeros(slots, dtype=torch.int64, device=device)
        self.order = torch.zeros(slots, batches, size, dtype=torch.int64, device=device)
        self.weight = None  # of each example in its batch's mean, [batches, B]
        if rest := -train.train_examples % size if not train.drop_last else 0:
            self.weight = torch.full((batches, size), 1 / size, device=device)
            self.weight[-1] = 1 / (size - rest)
            self.weight[-1, size - rest :] = 0
        self.cursor = torch.zeros(slots, dtype=torch.int64, device=device)  # batch of the epoch
        self._slots = torch.arange(slots, device=device)
        one = self.make(run.data_seed, 1, "train")
        many = (slots, train.train_examples)
        self.examples = Examples(*(x.new_zeros(*many, *x.shape[2:]) for x in vars(one).values()))
        self._tests: dict[int, Examples] = {}  # by seed

    def make(self, seed: int, n: int, split: str, block: int = 0) -> Examples:
        """The first n examples of a split, in one place."""
        return make_examples(self.task, [seed], n, split, block, self.device)

    def load(self, r: int, run: RunConfig, epoch: int) -> None:
        """Have slot r stand at the first batch of an epoch of a run."""
        train, seed = run.train, run.data_seed
        fresh, n = train.data == "fresh", train.train_examples
        self._of_slot[r] = None
        wanted = (seed, epoch if fresh else 0)
        if wanted in self._held:
            s = self._held.index(wanted)
        else:
            s = next(s for s in range(len(self._held)) if s not in self._of_slot)
            made = make_examples(self.task, [seed], n, "train", wanted[1], torch.device("cpu"))
            for name, values in vars(made).items():
                getattr(self.examples, name)[s].copy_(values[0])
            self._held[s] = wanted
        self._of_slot[r] = s
        self.place[r] = s
        in_order = fresh or train.order == "fixed"
        order = np.arange(n) if in_order else _shuffled(seed, epoch, n)
        # a short last batch has the first examples again, with a weight of 0
        batches = np.resize(order, self.order[r].numel()).reshape(self.order[r].shape)
        self.order[r].copy_(torch.from_numpy(batches), non_blocking=True)
        self.cursor[r] = 0

    def release(self, r: int) -> None:
        """Slot r has no run any more."""
        self._of_slot[r] = None
        self.cursor[r] = 0

    def of_slot(self, r: int, n: int) -> Examples:
        """The first n examples of the epoch at which slot r stands."""
        s = self._of_slot[r]
        assert s is not None
        return self.examples.of_place(s, n)

    def tests(self, run: RunConfig) -> Examples:
        """The test examples of a run that has a slot; there are never those of more runs than have
        room."""
        seed = run.data_seed
        if seed not in self._tests:
            if len(self._tests) == len(self._held):
                held = (self._held[s] for s in self._of_slot if s is not None)
                here = {each[0] for each in held if each}
                self._tests = {x: made for x, made in self._tests.items() if x in here}
            self._tests[seed] = self.make(seed, run.train.test_examples, "test")
        return self._tests[seed]

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [R, B, L], query positions and targets [R, B, Q] of the batches at the cursor."""
        return self.examples.batch(self.place, self.order[self._slots, self.cursor])

    def weights(self) -> Tensor | None:
        """Of the examples of the batches at the cursor, [R, B], with sums of 1; None if all are
        alike."""
        return None if self.weight is None else self.weight[self.cursor]


@lru_cache(maxsize=16)
def _shuffled(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order of an epoch; what runs of one seed are at, mostly the same, is kept."""
    return Stream(seed, "order", epoch).permutation(n)

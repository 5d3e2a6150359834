"""What every task is: examples that are a function of (config, n, seed, split, block) alone.

Shape letters: n examples, L length, Q queries, C candidates of a chunk, W numbers that decide an
example's split, P size of a pool.

Train and test are disjoint by construction, for every seed and size: candidates are drawn without
regard to the split, then the hash of an example's contents says which split it belongs to, and
the others are dropped. One candidate in eight is a test example.

Candidates are drawn a chunk at a time, each chunk from streams of its own and row by row, so
memory stays small and the first m of n examples are the examples that `examples(m)` gives.
Only integer operations and correctly rounded float operations are used on the random words, so
that the bytes do not depend on the machine.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from ..seeding import Stream

Streams = Callable[[str], Stream]
"""A chunk's streams by purpose."""

CHUNK = 256
"""Candidates drawn at once; part of what the examples are, as each chunk has its own streams."""

POOL_ITEMS = 1 << 23
"""A chunk has fewer candidates where their pools together would hold more items than this."""

FRUITLESS = 1 << 16
"""Candidates after which a split that has not given one example is taken to be empty. A split
that is not empty holds a share s of the candidates far above 1 in 1,000 (where there are few
different candidates each is a large share), and (1 - s)^65536 is nothing."""


class TaskConfig(BaseModel):
    """Options of a task; `name` picks the class from the registry. Each config also tells
    `seq_len`, `vocab_size` and `num_queries`, be they options or properties."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True)
    name: str


class Examples(NamedTuple):
    """int32 arrays: the model reads `tokens [n, L]` and must predict `targets [n, Q]` at the
    positions `query_positions [n, Q]`, each from the tokens up to and including that position."""

    tokens: np.ndarray
    query_positions: np.ndarray
    targets: np.ndarray


class Task:
    """The base class of the tasks in this folder: a task says how to draw the contents of a chunk
    of candidates (`draw`) and how to write those that are kept as examples (`write`)."""

    Config: ClassVar[type[TaskConfig]]

    def __init__(self, config: TaskConfig):
        self.config = config

    @property
    def shape(self) -> tuple[int, int, int]:
        """Length, queries an example, items of the pool that `draw` is given."""
        raise NotImplementedError

    def draw(self, pool: "Pool", streams: Streams) -> np.ndarray:
        """The numbers that decide the split of each candidate of a chunk, [C, W]."""
        raise NotImplementedError

    def write(self, out: Examples, contents: np.ndarray, pool: np.ndarray, streams: Streams) -> None:
        """Write the kept candidates, [kept, W] and their rows of the pool, into zeroed arrays."""
        raise NotImplementedError

    def examples(self, n: int, seed: int, split: str, block: int = 0) -> Examples:
        """The first `n` examples of the split "train" or "test".

        Blocks are independent streams of one seed, for training on examples that are always new.
        Examples may repeat within a split, none occurs in both. Raises ValueError where the
        settings allow so few different examples that the split has none.
        """
        if split not in ("train", "test"):
            raise ValueError(f"split {split!r} is neither 'train' nor 'test'")
        L, Q, P = self.shape
        rows = max(1, min(CHUNK, POOL_ITEMS // P))
        pool = Pool(rows, P)
        out = Examples(*(np.zeros((n, size), np.int32) for size in (L, Q, Q)))
        done = chunk = 0
        while done < n:
            if done == 0 and chunk * rows >= FRUITLESS:
                raise ValueError(
                    f"{self.config.name} has no {split} examples at these settings: "
                    f"none of {chunk * rows} drawn belongs to that split"
                )
            streams = partial(Stream, seed, self.config.name, split, block, chunk)
            contents = self.draw(pool, streams)
            kept = np.flatnonzero(is_test(contents) == (split == "test"))[: n - done]
            part = Examples(*(array[done : done + len(kept)] for array in out))
            self.write(part, contents[kept], kept, pool, streams)
            pool.restore()
            done, chunk = done + len(kept), chunk + 1
        return out

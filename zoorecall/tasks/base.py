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
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from ..seeding import Stream

Streams = Callable[[str], Stream]
"""A chunk's streams by purpose."""

CHUNK = 256
"""Candidates drawn at once; part of what the examples are, as each chunk has its own streams."""

POOL_ITEMS = 1 << 23
"""The most items in all pools of a chunk; where 256 pools have more, it has fewer candidates."""

FRUITLESS = 1 << 16
"""A split that has no example after so many candidates is taken to be empty. One that is not empty
gets more than 1 candidate in 1,000 (of many contents an eighth, of few at least one), so it is
missed with a probability below (1 - 1/1000)^65536 = 3e-29."""

SMALL_POOL = 1 << 10
"""From a pool of more items so many contents can be drawn that no split is empty."""


class TaskConfig(BaseModel):
    """Options of a task; `name` picks the class from the registry. Every task's config also tells
    `seq_len`, `vocab_size` and `num_queries`, as options or as properties."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=True)
    name: str

    if TYPE_CHECKING:  # as properties here they would shadow a task's options

        @property
        def seq_len(self) -> int:
            """Tokens of the longest example."""

        @property
        def vocab_size(self) -> int:
            """How many different tokens there are; they count from 0."""

        @property
        def num_queries(self) -> int:
            """Answers asked of an example."""

    @property
    def slices(self) -> tuple[str, ...]:
        """The names of the kinds of queries that are reported apart; most tasks have none."""
        return ()


class Examples(NamedTuple):
    """int32 arrays: a model reads `tokens [n, L]` and predicts `targets [n, Q]` at the positions
    `query_positions [n, Q]`, each from the tokens up to and including that position.

    `slices [n, Q]`, int8, says to which of the config's slices a query belongs, -1 to none of them;
    for a task without slices it is empty, [n, 0].
    """

    tokens: np.ndarray
    query_positions: np.ndarray
    targets: np.ndarray
    slices: np.ndarray


class Task:
    """The base class of the tasks in this folder; a task says how to `draw` a chunk of candidates
    and how to `write` the kept ones as examples."""

    Config: ClassVar[type[TaskConfig]]
    config: Any
    pool_size: int
    """Items of the pool that `draw` takes from."""

    def __init__(self, config: TaskConfig):
        self.config = config

    def draw(self, pool: "Pool", streams: Streams) -> np.ndarray:
        """The contents of a chunk of candidates, which decide their splits: int64 [W, C]. Equal
        examples must have equal contents."""
        raise NotImplementedError

    def write(
        self, out: Examples, contents: np.ndarray, rows: np.ndarray, pool: "Pool", streams: Streams
    ) -> None:
        """Write the candidates `rows` [n], with contents [n, W], into the zeroed arrays `out`."""
        raise NotImplementedError

    def word(self, token: int) -> str:
        """A token as people read it; no two tokens have one word. Here its number."""
        return str(token)

    def check_splits(self) -> None:
        """Raise ValueError where the settings allow so few examples that a split has none."""
        pool, found = self._pool(), set()
        for chunk in range(FRUITLESS // pool.rows if self.pool_size <= SMALL_POOL else 0):
            contents = self.draw(pool, partial(Stream, 0, self.config.name, "test", 0, chunk))
            found.update(is_test(contents).tolist())
            if len(found) == 2:
                return
            pool.restore()
        for split in ("test", "train") if found else ():
            if (split == "test") not in found:
                raise ValueError(self._has_none(split))

    def _has_none(self, split: str) -> str:
        options = {key: x for key, x in self.config.model_dump().items() if type(x) is int}
        given = ", ".join(f"{key} {x}" for key, x in options.items())
        return (
            f"{given} allow so few different examples that none is a {split} example, "
            "should allow more"
        )

    def _pool(self) -> "Pool":
        return Pool(self.pool_size, max(1, min(CHUNK, POOL_ITEMS // self.pool_size)))

    def without_recall(self) -> float | None:
        """The accuracy of the best answers that recall nothing, from what the task gives away
        otherwise; None where it is not known."""
        return None

    def examples(self, n: int, seed: int, split: str, block: int = 0) -> Examples:
        """The first n examples of the split "train" or "test".

        Blocks are independent streams of one seed, for training on ever new examples. Examples
        may repeat within a split, but none occurs in both, whatever the seeds and blocks. Raises
        ValueError where the settings allow so few examples that the split has none.
        """
        if split not in ("train", "test"):
            raise ValueError(f"split {split!r} is neither 'train' nor 'test'")
        L, Q = self.config.seq_len, self.config.num_queries
        tokens, positions, targets = (np.zeros((n, size), np.int32) for size in (L, Q, Q))
        slices = np.zeros((n, Q if self.config.slices else 0), np.int8)
        out = Examples(tokens, positions, targets, slices)
        pool = self._pool()
        done = chunk = 0
        while done < n:
            if done == 0 and chunk * pool.rows >= FRUITLESS:
                raise ValueError(self._has_none(split))
            streams = partial(Stream, seed, self.config.name, split, block, chunk)
            contents = self.draw(pool, streams)
            rows = np.flatnonzero(is_test(contents) == (split == "test"))[: n - done]
            part = Examples(*(array[done : done + len(rows)] for array in out))
            self.write(part, contents[:, rows].T, rows, pool, streams)
            pool.restore()
            done, chunk = done + len(rows), chunk + 1
        return out


class Pool:
    """The numbers 0 to P-1, once for each candidate of a chunk, shuffled only as far as asked.

    The first steps of Fisher and Yates' shuffle draw without repetition, exactly, at a cost that
    does not depend on P or on how much of it is drawn. Filling the pool would cost far more than
    drawing from it, so it is filled once and put in order again after each chunk.
    """

    def __init__(self, size: int, rows: int):
        self.size, self.rows = size, rows
        numbers = np.arange(size, dtype=np.min_scalar_type(size - 1))
        self.items = np.repeat(numbers[:, None], rows, axis=1)  # [P, C]

    def draw(self, stream: Stream, ranges: Sequence[tuple[int, int]]) -> np.ndarray:
        """One number of each range [first, end), none twice: int64 [len(ranges), C].

        A drawn number moves to the `first` place of its range, so ranges over the same numbers
        must begin one after the other; what is not drawn stands behind them. Call `restore` before
        the next draw.
        """
        first, end = np.array(ranges).T
        picks = below(stream.halves(len(first), self.rows), (end - first)[:, None])
        picks += first[:, None]
        flat, offsets = self.items.reshape(-1), picks * self.rows + np.arange(self.rows)
        for position, offset in zip(first, offsets, strict=True):
            drawn = flat[offset]
            flat[offset] = self.items[position]
            self.items[position] = drawn
        self.first, self.picks = first, picks
        return self.items[first].astype(np.int64)

    def take(self, positions: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """What stands at `positions` [n, m] of the candidates `rows` [n]."""
        return self.items.reshape(-1).take(positions * self.rows + rows[:, None])

    def restore(self) -> None:
        """Put every number that `draw` has moved back to its place."""
        self.items[self.first] = self.first[:, None]
        np.put_along_axis(self.items, self.picks, self.picks, axis=0)


def below(words: np.ndarray, bound: int | np.ndarray) -> np.ndarray:
    """Uniform numbers of [0, bound) from uniform 32-bit words, int64. The probabilities of two
    numbers differ by at most 2^-32."""
    product = np.multiply(words, bound, dtype=np.uint64, casting="unsafe")
    product >>= np.uint64(32)
    return product.view(np.int64)


def is_test(contents: np.ndarray) -> np.ndarray:
    """Which candidates [W, C] are test examples: bool [C], one in eight.

    A multilinear hash with fixed random factors, then the finalizer of splitmix64 (Steele et al.
    2014), so that similar contents fall into the splits independently.
    """
    factors = Stream(0, "split").bits(len(contents))
    h = factors @ contents.astype(np.uint64)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (h ^ (h >> np.uint64(31))) % np.uint64(8) == 0

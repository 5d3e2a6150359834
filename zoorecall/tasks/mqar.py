"""MQAR, multi-query associative recall: keys with their values, then each key once more.

Arora et al. 2023 (arXiv 2312.04927, section 4 and appendix). A sequence of L tokens begins with
the K pairs, `k1 v1 k2 v2 ...`. Then each key is asked for once, at one of the even offsets behind
the pairs, and its value is to be predicted at the key's own position:

    position    0   1   2   3   4   5   6   7   8   9  10  11
    token      k1  v1  k2  v2   .   .  k2   .   .   .  k1   .
    target                             v2              v1

The gap g = 1, 2, ... of a key counts the slots (pairs of positions) from the end of the pairs to
its query; there are S = (L - 2K) // 2. Gaps are drawn without repetition, P(g) ~ a g^(a-1), in the
order of the keys, so an earlier key tends to a smaller gap, and its query to follow sooner. Query
i asks for key i: `query_positions` are in the order of the pairs, not in that of the sequence.

What differs from Zoology's generator: a random filler depends on the seed and is never a key of
its example (every key is asked for, so a key in the filler would be a query without a target);
train and test are disjoint; seq_len may be odd and need not be below vocab_size.

Shape letters: n examples, L length, K pairs, S slots, C candidates of a chunk.
"""

from decimal import Context, Decimal
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import Field

from .base import Examples, Pool, Streams, Task, TaskConfig, below

PAIRS = "task.num_kv_pairs"
"""The column of this option."""


class MQARConfig(TaskConfig):
    """`vocabulary` "split": keys are from the lower half of the vocabulary without token 0, values
    from the upper half. "shared": both are drawn together from 1 to vocab_size - 1, all different.
    `filler`: between the queries, token 0 or any tokens but the example's keys, 0 included (there
    are always some: 0 and the values)."""

    name: Literal["mqar"] = "mqar"
    vocab_size: int = Field(8192, ge=2, lt=2**31)
    seq_len: int = Field(64, ge=1, le=2**20)
    num_kv_pairs: int = Field(4, ge=1, le=2**20)
    power_a: float = Field(0.01, gt=0, le=10, description="1: every gap alike; less: short gaps")
    filler: Literal["zero", "random"] = "zero"
    vocabulary: Literal["split", "shared"] = "split"

    def model_post_init(self, context: Any, /) -> None:
        K, V = self.num_kv_pairs, self.vocab_size
        if self.seq_len < 4 * K:
            raise ValueError(
                f"num_kv_pairs {K} needs a seq_len of at least {4 * K} (4 tokens a pair), "
                f"{4 * K - self.seq_len} more than {self.seq_len}"
            )
        if self.vocabulary == "split" and V // 2 - 1 < K:
            raise ValueError(
                f"vocab_size {V} leaves {V // 2 - 1} keys, "
                f"{K - (V // 2 - 1)} fewer than num_kv_pairs {K}"
            )
        if self.vocabulary == "shared" and V - 1 < 2 * K:
            raise ValueError(
                f"vocab_size {V} leaves {V - 1} keys and values, "
                f"{2 * K - (V - 1)} fewer than num_kv_pairs {K} needs"
            )

    @property
    def num_queries(self) -> int:
        return self.num_kv_pairs

    @property
    def num_slots(self) -> int:
        """Where a query can stand."""
        return (self.seq_len - 2 * self.num_kv_pairs) // 2


def mqar_of_length(seq_len: int) -> MQARConfig:
    """The papers' settings up to a length of 256: a pair for every 16 tokens."""
    return MQARConfig(seq_len=seq_len, num_kv_pairs=max(1, round(seq_len / 16)))


class MQAR(Task):
    Config = MQARConfig
    config: MQARConfig

    def __init__(self, config: MQARConfig):
        super().__init__(config)
        self.pool_size = config.vocab_size
        K, V = config.num_kv_pairs, config.vocab_size
        if config.vocabulary == "split":
            half = V // 2
            self.ranges = [(1 + i, half) for i in range(K)] + [(half + i, V) for i in range(K)]
        else:
            self.ranges = [(1 + i, V) for i in range(2 * K)]

    @cached_property
    def gap_scale(self) -> np.ndarray:
        """g^(1 - a) for each slot's gap g: [S]. Decimal powers are the same on every machine, those
        of the C library are not."""
        context = Context(prec=28)
        exponent = context.subtract(Decimal(1), Decimal(self.config.power_a))
        gaps = range(1, self.config.num_slots + 1)
        return np.array([float(context.power(Decimal(g), exponent)) for g in gaps])

    def draw(self, pool: Pool, streams: Streams) -> np.ndarray:
        """Keys, then values: int64 [2K, C]. No list of pairs occurs in both splits."""
        return pool.draw(streams("pairs"), self.ranges)

    def word(self, token: int) -> str:
        """Token 0 is a dot; keys and values that share their tokens cannot be told apart."""
        if token == 0:
            return "."
        if self.config.vocabulary == "shared":
            return str(token)
        return f"{'k' if token < self.config.vocab_size // 2 else 'v'}{token}"

    def write(
        self, out: Examples, contents: np.ndarray, rows: np.ndarray, pool: Pool, streams: Streams
    ) -> None:
        K, L, V = self.config.num_kv_pairs, self.config.seq_len, self.config.vocab_size
        keys, values = contents[:, :K], contents[:, K:]
        out.tokens[:, 0 : 2 * K : 2] = keys
        out.tokens[:, 1 : 2 * K : 2] = values
        if self.config.filler == "random":
            # places 1 to K of the pool hold the keys; let 0 stand in for the last of them, and
            # places K to V-1 hold all that is not a key
            pool.items[K] = 0
            places = K + below(streams("filler").halves(len(rows), L - 2 * K), V - K)
            out.tokens[:, 2 * K :] = pool.take(places, rows)
        slots = race(streams("gaps").halves(len(rows), self.config.num_slots), self.gap_scale, K)
        out.query_positions[:] = 2 * K + 2 * slots
        out.targets[:] = values
        np.put_along_axis(out.tokens, out.query_positions, keys, axis=1)

    def without_recall(self) -> float:
        """The share of queries that are for the likeliest pair of their slot: earlier keys tend to
        be asked for sooner, so that positions alone give it away."""
        pairs = self.config.num_kv_pairs
        return float(order_of_arrival(self.gap_scale, pairs).max(axis=0).sum()) / pairs


def race(words: np.ndarray, scale: np.ndarray, k: int) -> np.ndarray:
    """Draw k of S slots one after the other, without repetition, P(slot) ~ 1 / scale[slot].

    Each slot arrives after an exponentially distributed time of mean `scale`. Of the slots left,
    each is the next with probability proportional to 1 / scale, so the order of arrival is the
    draw. words uint32 [n, S] -> slots int64 [n, k] in the order drawn.
    """
    S = len(scale)
    low_bits = np.uint64((1 << (S - 1).bit_length()) - 1)
    # positive floats sort as the integers of their bits; the lowest of them carry the slot
    order = (exponential(words) * scale).view(np.uint64)
    order &= ~low_bits
    order |= np.arange(S, dtype=np.uint64)
    order.sort(axis=1)
    return (order[:, :k] & low_bits).view(np.int64)


def order_of_arrival(scale: np.ndarray, k: int) -> np.ndarray:
    """The probability that a slot is the i-th of k drawn by `race`, for each i: [k, S].

    A slot of mean time m that arrives at t, with density exp(-t / m) / m, is the i-th if i - 1 of
    the others have arrived by then. Their number is a sum of independent events; the sums that
    leave out one slot each are built by halves, and integrated over log t.
    """
    x = np.linspace(np.log(1e-9), np.log(60 * scale.max()), 256)
    t = np.exp(x)[:, None]  # [T, 1]
    arrived = -np.expm1(-t / scale)  # [T, S]
    found = np.empty((k, len(scale)))

    def leave_out(slots: np.ndarray, counts: np.ndarray) -> None:
        """`counts` [T, k]: how likely so many of all slots but `slots` have arrived."""
        if len(slots) == 1:
            density = t / scale[slots] * np.exp(-t / scale[slots])  # of log t
            found[:, slots[0]] = np.trapezoid(density * counts, x, axis=0)
            return
        for out, rest in ((slots[::2], slots[1::2]), (slots[1::2], slots[::2])):
            more = counts
            for p in arrived[:, rest].T[:, :, None]:
                before = np.concatenate([np.zeros_like(t), more[:, :-1]], axis=1)
                more = more * (1 - p) + before * p
            leave_out(out, more)

    leave_out(np.arange(len(scale)), np.eye(1, k).repeat(len(t), axis=0))
    return found


def exponential(words: np.ndarray) -> np.ndarray:
    """Exponential times of mean 1 from uniform 32-bit words: float64, always positive.

    The logarithm is computed here, with an error below 1e-12, from correctly rounded operations
    alone: the last bits of `np.log` depend on the machine, and so would the order of a race.
    """
    mantissa, exponent = np.frexp((words + 0.5) * 2.0**-32)  # in [1/2, 1)
    root = 0.7071067811865476  # of 1/2; log(mantissa / root) = 2 artanh(s), |s| < 0.172
    s = (mantissa - root) / (mantissa + root)
    square = s * s
    series = np.full_like(s, 1 / 13)
    for odd in (11, 9, 7, 5, 3, 1):
        series *= square
        series += 1 / odd
    return (0.5 - exponent) * 0.6931471805599453 - 2 * s * series

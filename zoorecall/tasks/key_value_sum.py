"""Key-value-sum: add the values of some keys, which are named (AR) or given (non-AR).

Chaudhry, Kulkarni and Pehlevan 2025, section 3. A list of pairs is followed by a question about
the pairs of unique indices a, b, c. The AR variant names their keys, so that the model must recall
and then add; the other names their values, so that it must only add. Here in tokens, with
num_pairs P and num_operands 3:

    AR       K1 V1 K2 V2 ... KP VP  RECALL  Ka Kb Kc  =
    non-AR   K1 V1 K2 V2 ... KP VP  ADD     Va Vb Vc  =

At the `=` the model must predict the sum, a single token. Keys are different from each other,
values need not be. Both variants of one seed have the same lists, indices and answers, and the
same length, which separates errors of recall from errors of arithmetic. With `recall` "both", each
example is of either variant with equal probability, and the variants are slices, reported apart.

The paper asks in words, with integers as text; here a number is a token, from 0 to the largest
sum, and so is a key.

Shape letters: n examples, L length, P pairs, M operands, C candidates of a chunk.
"""

from functools import cache
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ..seeding import Stream
from .base import Examples, Pool, Streams, Task, TaskConfig, below

PAIRS, OPERANDS, VALUES, RECALL = (
    "task.num_pairs", "task.num_operands", "task.num_values", "task.recall",
)  # fmt: skip
"""The columns of this task's options."""

LISTS = 4096
"""Over which the best guess is counted."""


class KeyValueSumConfig(TaskConfig):
    """Tokens: the numbers 0 to the largest sum, the keys, ADD, RECALL, `=`."""

    name: Literal["key_value_sum"] = "key_value_sum"
    num_pairs: int = Field(10, ge=1, le=2**20)
    num_operands: int = Field(3, ge=1, le=2**20)
    num_values: int = Field(10, ge=2, le=2**20, description="values are 0 to num_values - 1")
    num_keys: int = Field(
        100, ge=1, le=2**20, description="how many keys a list's keys are drawn from"
    )
    recall: bool | Literal["both"] = Field(
        True, description="name the keys (AR), not their values (non-AR), or both, half and half"
    )

    def model_post_init(self, context: Any, /) -> None:
        if self.num_operands > self.num_pairs:
            raise ValueError(
                f"num_operands {self.num_operands} needs as many pairs, "
                f"{self.num_operands - self.num_pairs} more than num_pairs {self.num_pairs}"
            )
        if self.num_keys < self.num_pairs:
            raise ValueError(
                f"num_keys {self.num_keys} is "
                f"{self.num_pairs - self.num_keys} fewer than num_pairs {self.num_pairs}"
            )
        if self.vocab_size >= 2**31:
            raise ValueError(
                f"num_values {self.num_values} and num_operands {self.num_operands} come to a "
                f"vocabulary of {self.vocab_size:,} tokens, should be less than {2**31:,}"
            )

    @property
    def num_numbers(self) -> int:
        return self.num_operands * (self.num_values - 1) + 1

    @property
    def vocab_size(self) -> int:
        return self.num_numbers + self.num_keys + 3

    @property
    def seq_len(self) -> int:
        return 2 * self.num_pairs + self.num_operands + 2

    @property
    def num_queries(self) -> int:
        return 1

    @property
    def slices(self) -> tuple[str, ...]:
        return ("AR", "non-AR") if self.recall == "both" else ()


class KeyValueSum(Task):
    Config = KeyValueSumConfig
    config: KeyValueSumConfig

    def __init__(self, config: KeyValueSumConfig):
        super().__init__(config)
        # one pool of keys and, behind them, indices of pairs
        keys, P, M = config.num_keys, config.num_pairs, config.num_operands
        self.pool_size = keys + P
        self.ranges = [(i, keys) for i in range(P)] + [(keys + i, keys + P) for i in range(M)]
        self.add, self.recall, self.equals = range(config.vocab_size - 3, config.vocab_size)

    def draw(self, pool: Pool, streams: Streams) -> np.ndarray:
        """Keys, then values: int64 [2P, C]. No list of pairs occurs in both splits, and both
        variants split alike. (With the indices in it, the non-AR variant could have an example in
        both: where two values are equal, different indices ask the same question.)"""
        P = self.config.num_pairs
        keys = pool.draw(streams("keys and indices"), self.ranges)[:P]
        values = below(streams("values").halves(P, pool.rows), self.config.num_values)
        return np.concatenate([keys, values])

    def word(self, token: int) -> str:
        """Numbers are themselves, keys K0, K1, ..."""
        others = {self.add: "ADD", self.recall: "RECALL", self.equals: "="}
        numbers = self.config.num_numbers
        return others.get(token) or (f"K{token - numbers}" if token >= numbers else str(token))

    def write(
        self, out: Examples, contents: np.ndarray, rows: np.ndarray, pool: Pool, streams: Streams
    ) -> None:
        P, M, num_keys = self.config.num_pairs, self.config.num_operands, self.config.num_keys
        keys, values = contents[:, :P] + self.config.num_numbers, contents[:, P:]
        indices = pool.items[num_keys : num_keys + M, rows].T.astype(np.int64) - num_keys
        operands = np.take_along_axis(values, indices, axis=1)
        names = np.take_along_axis(keys, indices, axis=1)
        if self.config.recall == "both":
            out.slices[:, 0] = below(streams("variant").halves(len(rows)), 2)
            recall = out.slices == 0  # [n, 1]
        else:
            recall = np.full((len(rows), 1), self.config.recall)
        out.tokens[:, 0 : 2 * P : 2] = keys
        out.tokens[:, 1 : 2 * P : 2] = values
        out.tokens[:, 2 * P : 2 * P + 1] = np.where(recall, self.recall, self.add)
        out.tokens[:, 2 * P + 1 : -1] = np.where(recall, names, operands)
        out.tokens[:, -1] = self.equals
        out.query_positions[:] = self.config.seq_len - 1
        out.targets[:, 0] = operands.sum(axis=1)

    def without_recall(self) -> float | None:
        """In AR, the accuracy of the best guess from a list's values; in non-AR, where nothing is
        to be recalled, 1. Asked in both forms, each has its own."""
        config = self.config
        if config.recall == "both":
            return None
        guess = best_guess(config.num_pairs, config.num_operands, config.num_values)
        return guess if config.recall else 1.0


@cache
def best_guess(num_pairs: int, num_operands: int, num_values: int) -> float:
    """The accuracy of the best guess by one who knows a list's values, but not which of them are
    asked for: the likeliest sum of as many of them, over made-up lists. With one operand it is the
    value that the list has most often."""
    lists = Stream(0, "without recall", num_pairs, num_operands, num_values)
    values = (lists.bits(LISTS, num_pairs) % np.uint64(num_values)).astype(int)  # [E, P]
    largest = num_operands * (num_values - 1)
    ways = np.zeros((LISTS, num_operands + 1, largest + 1))  # [E, M + 1, S]
    ways[:, 0, 0] = 1
    for pair in values.T:
        for x in range(num_values):
            those = pair == x
            of_these = ways[those]
            of_these[:, 1:, x:] += ways[those][:, :-1, : largest + 1 - x]
            ways[those] = of_these
    chosen = ways[:, -1]
    return float((chosen.max(axis=1) / chosen.sum(axis=1)).mean())

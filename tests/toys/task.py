"""Echo: two tokens, zeros, and at the last position the first token is to be predicted.

A toy that shows what a task's file must have; `tests/test_adding.py` adds it to a copy of the
package. Shape letters: n examples, L length, C candidates of a chunk.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from .base import Examples, Pool, Streams, Task, TaskConfig


class EchoConfig(TaskConfig):
    name: Literal["echo"] = "echo"
    vocab_size: int = Field(32, ge=6)
    distance: int = Field(6, ge=2, description="positions from the first token to the query")

    @property
    def seq_len(self) -> int:
        return self.distance + 1

    @property
    def num_queries(self) -> int:
        return 1


class Echo(Task):
    Config = EchoConfig
    config: EchoConfig

    def __init__(self, config: EchoConfig):
        super().__init__(config)
        self.pool_size = config.vocab_size

    def draw(self, pool: Pool, streams: Streams) -> np.ndarray:
        """Two different tokens, neither of them 0: int64 [2, C]."""
        V = self.config.vocab_size
        return pool.draw(streams("tokens"), [(1, V), (2, V)])

    def write(
        self, out: Examples, contents: np.ndarray, rows: np.ndarray, pool: Pool, streams: Streams
    ) -> None:
        out.tokens[:, :2] = contents
        out.query_positions[:] = self.config.distance
        out.targets[:, 0] = contents[:, 0]

"""The running mean: y_t = scale . mean of x_s over s <= t, by channel.

A toy that shows what a mixer's file must have; `tests/test_adding.py` adds it to a copy of the
package. Shape letters: R runs, B batch, L length, D width.
"""

from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from ..layers import per_run
from .base import MixerConfig, SequenceMixer


class RunningMeanConfig(MixerConfig):
    name: Literal["running_mean"] = "running_mean"
    start: float = Field(1.0, description="the scale of every channel at the start")


class RunningMeanState(NamedTuple):
    total: Tensor  # [R, B, D]: the sum of the inputs so far
    count: Tensor  # [R, B]: how many there were


class RunningMean(SequenceMixer):
    Config = RunningMeanConfig

    def __init__(self, config: RunningMeanConfig, d_model: int, seq_len: int, num_layers: int):
        super().__init__()
        self.scale = nn.Parameter(torch.full((1, d_model), config.start))

    def mix(self, x: Tensor) -> tuple[Tensor]:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        count = torch.arange(1, x.shape[2] + 1, device=x.device).to(wide.dtype)
        return ((wide.cumsum(2) / count[:, None]).to(x.dtype),)

    def finish(self, parts: tuple[Tensor, ...]) -> Tensor:
        return per_run(self.scale, parts[0]) * parts[0]

    def initial_state(self, R: int, B: int, length: int) -> RunningMeanState:
        return RunningMeanState(self.zeros(R, B, self.scale.shape[-1]), self.zeros(R, B).long())

    def step(self, x: Tensor, state: RunningMeanState) -> tuple[Tensor, RunningMeanState]:
        total, count = state.total + x.to(state.total.dtype), state.count + 1
        y = self.finish_one((total / count.unsqueeze(-1)).to(x.dtype))
        return y, RunningMeanState(total, count)

    def sequence_flops(self, length: int) -> int:
        """For each number an addition, a division and the scale."""
        return 3 * length * self.scale.shape[-1]

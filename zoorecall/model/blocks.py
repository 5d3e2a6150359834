"""The layers of a model: a sequence mixer and, unless the grid says `channel_mixer: none`, an MLP,
each behind a LayerNorm on a residual stream, as in Zoology.

Shape letters: R runs, B batch, L length, D width, Q queries.
"""

import math

from torch import Tensor, nn

from ..config import RunConfig
from ..layers import LayerNorm, Linear
from ..mixers import make_mixer
from ..mixers.base import State, at_positions
from ..ops.mlp import mlp


class MLP(nn.Module):
    """Two linear layers with a GELU between, weights as in GPT-2 and Zoology.

    It takes the norm in front of it and adds the residual, as a GPU does all of it at once.
    """

    def __init__(self, d_model: int, d_hidden: int, num_layers: int):
        super().__init__()
        self.fc1 = Linear(d_model, d_hidden, std=0.02)
        self.fc2 = Linear(d_hidden, d_model, std=0.02 / math.sqrt(2 * num_layers))

    def forward(self, x: Tensor, norm: LayerNorm) -> Tensor:
        """x + mlp(norm(x)) in one operation: [R, ..., D] -> the same."""
        fc1, fc2 = self.fc1, self.fc2
        assert fc1.bias is not None and fc2.bias is not None
        parameters = (norm.weight, norm.bias, fc1.weight, fc1.bias, fc2.weight, fc2.bias)
        return mlp(x, *parameters, norm.eps)


class Layer(nn.Module):
    def __init__(self, run: RunConfig, index: int):
        super().__init__()
        model, seq_len = run.model, run.task.seq_len
        self.mixer_norm = LayerNorm(model.d_model)
        self.mixer = make_mixer(model.mixer, model.d_model, seq_len, model.num_layers, index)
        self.mlp = None
        if model.channel_mixer == "mlp":
            self.mlp_norm = LayerNorm(model.d_model)
            self.mlp = MLP(model.d_model, model.mlp_ratio * model.d_model, model.num_layers)

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """[R, B, L, D] -> the same, or [R, B, Q, D] where `positions` [R, B, Q] are given."""
        y = self.mixer(self.mixer_norm(x), positions)
        x = (x if positions is None else at_positions(x, positions)) + y
        return x if self.mlp is None else self.mlp(x, self.mlp_norm)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One position, x [R, B, D] -> the same, and the mixer's next state."""
        y, state = self.mixer.step(self.mixer_norm(x), state)
        x = x + y
        return (x if self.mlp is None else self.mlp(x, self.mlp_norm)), state

"""The blocks of a model - norm, mixer, residual, as in Zoology - and the layers that they make.

Shape letters: R runs, B batch, L length, D width, Q queries.
"""

import math

from torch import Tensor, nn

from ..config import RunConfig
from ..layers import LayerNorm, Linear, RMSNorm
from ..mixers import make_mixer
from ..mixers.base import SequenceMixer, State, at_positions
from ..ops.dropout import Dropped
from ..ops.mlp import Activation, mlp


class SequenceBlock(nn.Module):
    """x + mixer(norm(x)) with a mixer that moves information between positions."""

    def __init__(self, mixer: SequenceMixer, norm: LayerNorm | RMSNorm):
        super().__init__()
        self.norm = norm
        self.mixer = mixer

    def forward(
        self, x: Tensor, positions: Tensor | None = None, dropped: Dropped | None = None
    ) -> Tensor:
        """[R, B, L, D] -> the same, or [R, B, Q, D] where `positions` [R, B, Q] are given."""
        y = self.mixer(self.norm(x), positions, dropped)
        return (x if positions is None else at_positions(x, positions)) + y

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One position, x [R, B, D] -> the same, and the mixer's next state."""
        y, state = self.mixer.step(self.norm(x), state)
        return x + y, state


class MLP(nn.Module):
    """Two linear layers with an activation between, weights as in GPT-2 and Zoology."""

    def __init__(self, d_model: int, d_hidden: int, num_layers: int, activation: Activation):
        super().__init__()
        self.nonlinearity = activation
        self.fc1 = Linear(d_model, d_hidden, std=0.02)
        self.fc2 = Linear(d_hidden, d_model, std=0.02 / math.sqrt(2 * num_layers))


class ChannelBlock(nn.Module):
    """x + mlp(norm(x)), in one operation, as a GPU does all of it at once."""

    def __init__(self, mlp: MLP, d_model: int):
        super().__init__()
        self.norm = LayerNorm(d_model)
        self.mlp = mlp

    def forward(self, x: Tensor) -> Tensor:
        """[R, ..., D] -> the same."""
        norm, fc1, fc2 = self.norm, self.mlp.fc1, self.mlp.fc2
        assert fc1.bias is not None and fc2.bias is not None
        parameters = (norm.weight, norm.bias, fc1.weight, fc1.bias, fc2.weight, fc2.bias)
        return mlp(x, *parameters, norm.eps, self.mlp.nonlinearity)


class NormBlock(nn.Module):
    """x + norm(x): Zoology's channel-mixer block with the identity for a mixer.

    Plain torch: at most one pass over x more, and in the last layer over the queries alone.
    """

    def __init__(self, d_model: int):
        super().__init__()
        self.norm = LayerNorm(d_model)

    def forward(self, x: Tensor) -> Tensor:
        """[R, ..., D] -> the same."""
        return x + self.norm(x)


class Layer(nn.Module):
    """A sequence-mixer block and, unless the grid says `channel_mixer: none`, a channel-mixer
    block; Zoology's `TransformerBlock` with an MLP, or with `second_norm` for its identity, its
    `MambaBlock` and `Mamba2Block` without either and with `norm: rms`."""

    channel: ChannelBlock | NormBlock | None

    def __init__(self, run: RunConfig, index: int):
        super().__init__()
        model, D = run.model, run.model.d_model
        as_zoology = model.initial_weights == "zoology"
        mixer = make_mixer(model.mixer, D, run.task.seq_len, model.num_layers, index, as_zoology)
        self.sequence = SequenceBlock(mixer, (RMSNorm if model.norm == "rms" else LayerNorm)(D))
        self.channel = NormBlock(D) if model.second_norm else None
        if model.channel_mixer == "mlp":
            width, activation = model.mlp_ratio * D, model.mlp_activation
            self.channel = ChannelBlock(MLP(D, width, model.num_layers, activation), D)

    @property
    def mixer(self) -> SequenceMixer:
        return self.sequence.mixer

    def forward(
        self, x: Tensor, positions: Tensor | None = None, dropped: Dropped | None = None
    ) -> Tensor:
        """[R, B, L, D] -> the same, or [R, B, Q, D] where `positions` [R, B, Q] are given."""
        x = self.sequence(x, positions, dropped)
        return x if self.channel is None else self.channel(x)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One position, x [R, B, D] -> the same, and the mixer's next state."""
        x, state = self.sequence.step(x, state)
        return (x if self.channel is None else self.channel(x)), state


def run_layer(
    layer: Layer, x: Tensor, positions: Tensor | None = None, dropped: Dropped | None = None
) -> Tensor:
    """What `layer.forward` gives. A function of the layer can be compiled once for all layers of a
    kind."""
    return layer(x, positions, dropped)

"""What every sequence mixer is: a module [R, B, L, D] -> [R, B, L, D] and its typed options.

A mixer is causal, has no norm and no residual around it (the layer has those) and is built for
one run: `Mixer(config, d_model, seq_len, num_layers)`. Its parameters come from `layers` and so
carry the run axis; operations without parameters, in `ops`, treat R and B alike as batch. What it
does at each position by itself once positions have met, it does in `finish`: in the last layer
that is needed at the query positions alone, one in sixteen or fewer.
"""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from ..columns import mixer_label
from ..layers import Linear, ShortConv


class MixerConfig(BaseModel):
    """Options of a mixer; `name` picks the class from the registry."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    name: str

    def check(self, d_model: int) -> None:
        """Raise ValueError with one sentence where the options do not fit the width."""

    @property
    def label(self) -> str:
        """The name and the options that differ from their defaults: `attention (conv=qkv)`."""
        return mixer_label(self.model_dump(mode="json"))


class SequenceMixer(nn.Module):
    """The base class of the mixers in this folder."""

    Config: ClassVar[type[MixerConfig]]
    uses_positions: ClassVar[bool] = False
    """Whether the papers give this mixer position information."""

    finishing: ClassVar[str | None] = None
    """The name of the linear layer that `finish` has."""

    def start_as(self, layer: int) -> None:
        """Set what of the initial weights depends on the layer, counted from 0."""

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """[R, B, L, D] -> the same, or [R, B, Q, D] where `positions` [R, B, Q] are given."""
        parts = self.mix(x)
        if positions is not None:
            parts = tuple(at_positions(part, positions) for part in parts)
        return self.finish(parts)

    def mix(self, x: Tensor) -> tuple[Tensor, ...]:
        """What has to be done at every position: [R, B, L, D] -> tensors [R, B, L, ...]."""
        raise NotImplementedError

    def finish(self, parts: tuple[Tensor, ...]) -> Tensor:
        """From what `mix` returned, at some positions or at all, to [R, B, ..., D]."""
        return parts[0]

    def state_size(self, length: int) -> int | None:
        """How many numbers one layer carries from one position to the next, for one sequence,
        after `length` tokens: recurrent state, convolution windows, key-value cache. None if it is
        not known."""
        raise NotImplementedError

    def flops(self, length: int, outputs: int | None = None) -> int | None:
        """Forward FLOPs on one sequence, a multiply and an add counted as two: the linear layers
        and short convolutions at every position, but the last at `outputs` if given, and
        `sequence_flops`. None if they are not known."""
        weights = sum(
            m.weight[0].numel() for m in self.modules() if isinstance(m, Linear | ShortConv)
        )
        saved = 0
        if outputs is not None and self.finishing:
            saved = getattr(self, self.finishing).weight[0].numel() * (length - outputs)
        return 2 * (weights * length - saved) + self.sequence_flops(length)

    def sequence_flops(self, length: int) -> int:
        """Forward FLOPs of the operations without parameters on one sequence."""
        raise NotImplementedError


def at_positions(x: Tensor, positions: Tensor) -> Tensor:
    """The vectors of x [R, B, L, D] at `positions` [R, B, Q]: [R, B, Q, D]."""
    return x.gather(2, positions.unsqueeze(-1).expand(*positions.shape, x.shape[-1]))

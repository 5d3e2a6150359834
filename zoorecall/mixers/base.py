"""What every sequence mixer is: a module [R, B, L, D] -> [R, B, L, D] and its typed options.

A mixer is causal, has no norm and no residual around it (the layer has those) and is built for
one run: `Mixer(config, d_model, seq_len, num_layers)`. Its parameters come from `layers` and so
carry the run axis; operations without parameters, in `ops`, treat R and B alike as batch.
"""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

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
        options = self.model_dump(exclude_defaults=True, exclude={"name"})
        text = ", ".join(f"{key}={value}" for key, value in options.items())
        return f"{self.name} ({text})" if text else self.name


class SequenceMixer(nn.Module):
    """The base class of the mixers in this folder."""

    Config: ClassVar[type[MixerConfig]]
    uses_positions: ClassVar[bool] = False
    """Whether the papers give this mixer position information."""

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def state_size(self, length: int) -> int:
        """How many numbers one layer carries from one position to the next, for one sequence,
        after `length` tokens: recurrent state, convolution windows, key-value cache."""
        raise NotImplementedError

    def flops(self, length: int) -> int:
        """Forward FLOPs on one sequence, a multiply and an add counted as two: the linear layers
        and short convolutions at every position, and `sequence_flops`."""
        weights = sum(
            m.weight[0].numel() for m in self.modules() if isinstance(m, Linear | ShortConv)
        )
        return 2 * weights * length + self.sequence_flops(length)

    def sequence_flops(self, length: int) -> int:
        """Forward FLOPs of the operations without parameters on one sequence."""
        raise NotImplementedError

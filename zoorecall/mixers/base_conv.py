"""BaseConv: a convolution gated by a projection, the plainest of the gated convolutions.

Arora et al. 2023 (arXiv 2312.04927), as in Zoology's `mixers/base_conv.py`:

    y = conv(x) . (W x + b) + x,    conv(x) = a + h_short * x   or   x + h_long * x

with * the causal convolution of each channel and . the product by channel; with `activation` both
factors go through SiLU. The "+ x", of what the layer's norm gave, belongs to the mixer: the layer's
residual stream is another. In Zoology's figure 2 short and implicit long convolutions alternate,
and in its Based this and linear attention; both are patterns:

    {name: pattern, mixers: [base_conv, {name: base_conv, conv: implicit}]}
    {name: pattern, mixers: [base_conv, {name: based, feature_dim: 8}]}

Shape letters: R runs, B batch, L length, D width, E features of a position, T taps.

Parameters and initial weights are Zoology's: linear layers from N(0, 0.02^2), the short filter as
torch draws it, an explicit long filter from N(0, 1), the features of the positions fixed. One
difference: a sequence that is shorter than the explicit filter sees its first taps. In Zoology the
taps beyond its length wrap around and reach earlier positions; its figure 2 has no such sequences.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..layers import Linear, ShortConv, normal
from ..ops.causal_conv import causal_conv_step
from ..ops.long_conv import long_conv, long_conv_flops
from .base import MixerConfig, SequenceMixer
from .hyena import position_features

NUM_FEATURES, HIDDEN = 3, 16
"""Of a position and of the hidden layer, in the network of an implicit filter."""


class BaseConvConfig(MixerConfig):
    name: Literal["base_conv"] = "base_conv"
    conv: Literal["short", "implicit", "explicit"] = Field(
        "short",
        description="a short filter, or one as long as the sequence: made by a small network of "
        "the position, or learned tap by tap",
    )
    conv_size: int = Field(3, ge=2, le=2**20, description="taps of the short convolution")
    activation: bool = Field(False, description="SiLU on the convolution and on its gate")


class ExplicitFilter(nn.Module):
    """A long filter of which each tap is a parameter: length -> [R, length, D]."""

    def __init__(self, d_model: int, seq_len: int):
        super().__init__()
        self.weight = normal(seq_len, d_model, std=1.0)

    def forward(self, length: int) -> Tensor:
        return self.weight[:, :length]


class ImplicitFilter(nn.Module):
    """A long filter of which each tap is a function of its lag: length -> [R, length, D]."""

    z: Tensor  # [L, E]

    def __init__(self, d_model: int, seq_len: int):
        super().__init__()
        self.register_buffer("z", position_features(seq_len, NUM_FEATURES), persistent=False)
        self.fc1 = Linear(NUM_FEATURES, HIDDEN, std=0.02)
        self.fc2 = Linear(HIDDEN, d_model, std=0.02)

    def forward(self, length: int) -> Tensor:
        z = self.z[:length].expand(self.fc1.weight.shape[0], -1, -1)
        return self.fc2(F.relu(self.fc1(z)))


class LongConv(nn.Module):
    """x + h * x with a filter h as long as the sequence: [R, B, L, D] -> the same."""

    def __init__(self, d_model: int, seq_len: int, implicit: bool):
        super().__init__()
        self.seq_len = seq_len
        self.filter = (ImplicitFilter if implicit else ExplicitFilter)(d_model, seq_len)

    def refuse_beyond_filter(self, length: int) -> None:
        if length > self.seq_len:
            raise ValueError(f"base_conv was built for {self.seq_len} positions, not {length}")

    def forward(self, x: Tensor) -> Tensor:
        """Raises ValueError where the input is longer than the filter."""
        self.refuse_beyond_filter(x.shape[2])
        # not as a first tap of 1 + h_0, of which bfloat16 would lose h_0
        return x + long_conv(x, self.filter(x.shape[2]))

    def step(self, x: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
        """One position: x [R, B, D] and all inputs before it, `window` [R, B, L - 1, D], -> y
        [R, B, D] and the next window. There is no smaller state, and each step makes the filter."""
        h = self.filter(window.shape[2] + 1)
        y, window = causal_conv_step(x, window, h.flip(1).mT)
        return x + y, window


class BaseConvState(NamedTuple):
    window: Tensor  # [R, B, T - 1, D]: the last inputs; T is L with a long convolution


class BaseConv(SequenceMixer):
    Config = BaseConvConfig
    finishing = "projection"

    def __init__(self, config: BaseConvConfig, d_model: int, seq_len: int, num_layers: int):
        super().__init__()
        self.projection = Linear(d_model, d_model, std=0.02)
        self.conv: ShortConv | LongConv
        if config.conv == "short":
            self.conv = ShortConv(d_model, config.conv_size)
        else:
            self.conv = LongConv(d_model, seq_len, implicit=config.conv == "implicit")
        self.activation = config.activation

    def mix(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Raises ValueError where the input is longer than a long filter."""
        return self.conv(x), x

    def finish(self, parts: tuple[Tensor, ...]) -> Tensor:
        convolved, x = parts
        gate = self.projection(x)
        if self.activation:
            convolved, gate = F.silu(convolved), F.silu(gate)
        return convolved * gate + x

    def initial_state(self, R: int, B: int, length: int) -> BaseConvState:
        """Raises ValueError where `length` is longer than a long filter, as `mix` does. Zoology
        counts the present input too."""
        if isinstance(self.conv, ShortConv):
            return BaseConvState(self.window(self.conv, R, B))
        self.conv.refuse_beyond_filter(length)
        return BaseConvState(self.zeros(R, B, length - 1, self.projection.weight.shape[-1]))

    def step(self, x: Tensor, state: BaseConvState) -> tuple[Tensor, BaseConvState]:
        convolved, window = self.conv.step(x, state.window)
        return self.finish_one(convolved, x), BaseConvState(window)

    def once_a_batch(self) -> Iterable[nn.Module]:
        return () if isinstance(self.conv, ShortConv) else self.conv.filter.modules()

    def sequence_flops(self, length: int) -> int:
        """Of the gate, the addition and, whichever form runs, a long convolution's FFT."""
        D = self.projection.weight.shape[-1]
        is_short = isinstance(self.conv, ShortConv)
        return D * (2 * length + (0 if is_short else long_conv_flops(length) + length))

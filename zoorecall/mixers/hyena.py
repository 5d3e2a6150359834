"""Hyena: two gates around a long convolution whose filter is a small network of the position.

Poli et al. 2023 (arXiv 2302.10866), definition 3.1 and section 3.3, with order 2:

    x1, x2, v = short_conv(W_in x),  y = W_out [x2 . (h * (x1 . v) + D . x1 . v)]
    h_t = MLP(z_t) . exp(-rate t),   with * the convolution, . the product by channel

Shape letters: R runs, B batch, L length, D width, E features of a position, W filter width.

As in the official code (Zoology's file and safari's `HyenaOperator`), order 2 has one long filter
(the first of the paper's two is the short convolution), all sines share their frequencies, and the
features of the positions, a complex exponential at first, are learned. Zoology trains these with
the learning rate and weight decay of everything else, and so does this; safari with 1e-5 and none.
Zoology's model, as safari's, draws all linear layers, those of the filter too, from N(0, 0.02^2),
and the filter starts at about 3e-5; `init_std: null` keeps torch's rule, as the operator on its
own does, and it starts a thousand times larger.
With the default `emb_dim` the only frequency is the official 1e-4: z_t is close to (t, 1, 0).
"""

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from ..layers import Linear, ShortConv, normal, per_run
from ..ops.long_conv import long_conv, long_conv_flops, with_skip
from .base import MixerConfig, SequenceMixer

FAST_DECAY, SLOW_DECAY, DECAY_TARGET = 0.3, 1.5, 1e-2
"""The first channel's filter decays to the target at 1.5 times the length, the last's at 0.3."""


class HyenaConfig(MixerConfig):
    name: Literal["hyena"] = "hyena"
    conv_size: int = Field(3, ge=2, le=2**20, description="taps of the short convolution")
    filter_order: int = Field(64, ge=1, le=2**20, description="width of the filter's network")
    filter_freq: float = Field(1.0, gt=0, description="frequency of its sines at the start")
    emb_dim: int = Field(
        3, ge=3, le=2**20, description="features of a position: time, cosines, sines"
    )
    init_std: float | None = Field(
        0.02, gt=0, description="of every linear layer; null: as torch.nn.Linear"
    )

    @property
    def chooses_weights(self) -> bool:
        return self.init_std != 0.02

    def check(self, d_model: int) -> None:
        if self.emb_dim % 2 == 0:
            raise ValueError(f"emb_dim must be odd (time, cosines, sines), not {self.emb_dim}")


def position_features(seq_len: int, num_features: int) -> Tensor:
    """Of each position its time, from 0 to 1, and the real and imaginary parts of complex
    exponentials: [L, E]."""
    E, t = num_features, torch.linspace(0, 1, seq_len)[:, None]
    bands = torch.linspace(1e-4, E // 2 - 1, E // 2)
    angle = 2 * math.pi / seq_len * torch.arange(seq_len)[:, None] * bands
    return torch.cat([t, angle.cos(), -angle.sin()], dim=-1)


class Filter(nn.Module):
    """The long filter of every run: length -> [R, length, D], in the parameters' dtype."""

    decay: Tensor

    def __init__(self, config: HyenaConfig, d_model: int, seq_len: int):
        super().__init__()
        E, W, std = config.emb_dim, config.filter_order, config.init_std
        self.z = nn.Parameter(position_features(seq_len, E)[None])  # [1, L, E]
        self.linears = nn.ModuleList(
            [Linear(E, W, std=std), *(Linear(W, W, std=std) for _ in range(2))]
        )
        self.freq = nn.Parameter(torch.full((1, W), config.filter_freq))
        self.out = Linear(W, d_model, bias=False, std=std)
        slowest, fastest = (-math.log(DECAY_TARGET) / pct for pct in (SLOW_DECAY, FAST_DECAY))
        t = torch.linspace(0, 1, seq_len)[:, None]
        decay = torch.exp(-t * torch.linspace(slowest, fastest, d_model))  # [L, D]
        self.register_buffer("decay", decay, persistent=False)

    def forward(self, length: int) -> Tensor:
        h = self.z[:, :length]
        for linear in self.linears:
            h = torch.sin(per_run(self.freq, h) * linear(h))
        return self.out(h) * self.decay[:length]


class HyenaState(NamedTuple):
    """T is the number of the short convolution's taps, L that of positions there is room for."""

    window: Tensor  # [R, B, T - 1, 3 D]: the short convolution's last inputs
    past: Tensor  # [R, B, L, D]: x1 . v of every position so far, the last at the end


class Hyena(SequenceMixer):
    Config = HyenaConfig
    finishing = "out_proj"

    def __init__(self, config: HyenaConfig, d_model: int, seq_len: int, num_layers: int):
        super().__init__()
        std = config.init_std
        out_std = None if std is None else std / math.sqrt(2 * num_layers)
        self.in_proj = Linear(d_model, [d_model] * 3, std=std)
        self.short_filter = ShortConv(3 * d_model, config.conv_size)
        self.filter_fn = Filter(config, d_model, seq_len)
        self.bias = normal(d_model, std=1.0)  # D of the equation, [R, D]
        self.out_proj = Linear(d_model, d_model, std=out_std)

    def mix(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Raises ValueError where the input is longer than `seq_len`: the filter ends there."""
        length = x.shape[2]
        self.refuse_beyond_filter(length)
        x1, x2, v = self.short_filter(self.in_proj(x)).chunk(3, dim=-1)
        return x2, long_conv(x1 * v, with_skip(self.filter_fn(length), self.bias))

    def refuse_beyond_filter(self, length: int) -> None:
        longest = self.filter_fn.z.shape[1]
        if length > longest:
            raise ValueError(f"hyena was built for {longest} positions, not {length}")

    def finish(self, parts: tuple[Tensor, ...]) -> Tensor:
        gate, y = parts
        return self.out_proj(gate * y)

    def initial_state(self, R: int, B: int, length: int) -> HyenaState:
        """Raises ValueError where `length` is longer than `seq_len`, as `mix` does."""
        self.refuse_beyond_filter(length)
        past = self.zeros(R, B, length, self.bias.shape[-1])
        return HyenaState(self.window(self.short_filter, R, B), past)

    def step(self, x: Tensor, state: HyenaState) -> tuple[Tensor, HyenaState]:
        """There is no smaller state, and a step makes the whole filter and applies it: a sequence
        costs L^2 a channel, and its filter's network L times what it costs at once."""
        convolved, window = self.short_filter.step(self.in_proj(x), state.window)
        x1, x2, v = convolved.chunk(3, dim=-1)
        now = (x1 * v).unsqueeze(2).to(state.past.dtype)
        past = torch.cat([state.past[:, :, 1:], now], dim=2)
        h = with_skip(self.filter_fn(past.shape[2]), self.bias).flip(1)
        y = torch.einsum("rlc,rblc->rbc", h, past).to(x.dtype)
        return self.finish_one(x2, y), HyenaState(window, past)

    def once_a_batch(self) -> Iterable[nn.Module]:
        return self.filter_fn.modules()

    def sequence_flops(self, length: int) -> int:
        """Of the gates and the long convolution."""
        return self.out_proj.weight.shape[-1] * (long_conv_flops(length) + 2 * length)

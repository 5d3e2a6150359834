"""Mamba and its core, S6: a state space model whose step, input and output depend on the input.

Gu and Dao 2023 (arXiv 2312.00752): S6 is algorithm 2, the block around it figure 3; the recurrence
is in `ops.selective_scan`. Shape letters: R runs, B batch, L length, D width, C channels, N state.

    Mamba:  x, z = in_proj(u);  x = SiLU(conv1d(x));  y = out_proj(S6(x) * SiLU(z))

Parameters, defaults and initial weights are those of `Mamba` in mamba-ssm 2.3.2, draw for draw;
its options dt_min, dt_max, dt_init, dt_scale, dt_init_floor, bias and conv_bias are left at their
defaults and out. The official model also divides out_proj by the root of its depth, as
`model.initial_weights: zoology` does, and exempts A_log, D and dt_proj's bias from weight decay, as
`train.undecayed: official` does: neither is a part of its layer. Zoology decays everything.

Okpekpe and Orvieto 2025 (arXiv 2508.19029, section 6) take the block apart. Without the
convolution (figure 8) its SiLU stays; without the gate (figure 9) in_proj makes x alone. S6 on its
own, followed by the layer's MLP (figure 7), has no projections around it, and a convolution with
its SiLU only if asked for: the text does not say whether it has one.

Zoology puts Mamba in a block of its own. Up to January 2025 there too, and in a transformer block
still, it draws every linear layer from N(0, 0.02^2) and sets its bias to zero, that of dt_proj too:
all steps then start at softplus(0) = 0.69 instead of 0.001 to 0.1. `init_std: 0.02` does the same.

Nothing in the block bounds what it adds to the residual stream. Mamba2 normalizes it (Dao and Gu
2024, arXiv 2405.21060, section 7), and `norm: true` does so here.
"""

import math
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..layers import GatedRMSNorm, Linear, ShortConv, per_run
from ..ops.selective_scan import selective_scan, selective_scan_step
from .base import MixerConfig, SequenceMixer, step_conv

DT_MIN, DT_MAX = 0.001, 0.1
"""Range of the step sizes at the start."""


class SelectiveConfig(MixerConfig):
    """The options that Mamba and S6 share."""

    d_state: int = Field(16, ge=1, le=2**20, description="numbers of state a channel")
    d_conv: int = Field(4, ge=2, le=2**20, description="taps of the short convolution")
    dt_rank: Annotated[int, Field(ge=1, le=2**20)] | Literal["auto"] = Field(
        "auto", description="rank of the step size's projection; auto: d_model / 16, rounded up"
    )
    init_std: float | None = Field(
        None, gt=0, description="of every linear layer, biases zero; null: the official rules"
    )

    @property
    def chooses_weights(self) -> bool:
        return self.init_std is not None

    @property
    def redrawn_by_zoology(self) -> bool:
        return True


class S6Config(SelectiveConfig):
    name: Literal["s6"] = "s6"
    conv: bool = Field(False, description="a short convolution and SiLU in front")


class MambaConfig(SelectiveConfig):
    name: Literal["mamba"] = "mamba"
    expand: int = Field(2, ge=1, le=2**20, description="channels inside, in units of d_model")
    conv: bool = Field(True, description="the short convolution; the SiLU after it stays")
    gating: bool = Field(True, description="the gate branch")
    norm: bool = Field(False, description="an RMSNorm between gate and out_proj, as in Mamba2")

    @property
    def own_block(self) -> bool:
        return True

    def check(self, d_model: int) -> None:
        if self.norm and not self.gating:
            raise ValueError("norm: true normalizes what the gate lets through; leave gating true")


class SelectiveState(NamedTuple):
    window: Tensor  # [R, B, d_conv - 1, C]: the convolution's last inputs; empty without one
    h: Tensor  # [R, B, C, N]: the state of the scan


class SelectiveMixer(SequenceMixer):
    """What Mamba and S6 share: the parameters of the selective scan and their use."""

    conv1d: ShortConv | None

    def make_scan(self, config: SelectiveConfig, d_model: int, channels: int) -> None:
        """Make the scan's parameters, in the official order of draws."""
        N = config.d_state
        rank = math.ceil(d_model / 16) if config.dt_rank == "auto" else config.dt_rank
        self.x_proj = Linear(channels, [rank, N, N], bias=False, std=config.init_std)
        self.dt_proj = Linear(rank, channels, std=config.init_std)
        if config.init_std is None:
            bound = rank**-0.5
            nn.init.uniform_(self.dt_proj.weight, -bound, bound)  # again, as the official code does
            self.dt_proj.bias = nn.Parameter(initial_dt_bias(channels))
        A = torch.arange(1, N + 1, dtype=torch.float32).repeat(1, channels, 1)
        self.A_log = nn.Parameter(A.log())  # [R, C, N]
        self.D = nn.Parameter(torch.ones(1, channels))

    def scan(self, x: Tensor) -> Tensor:
        """The selective SSM of x: [R, B, L, C] -> [R, B, L, C]."""
        return selective_scan(*self.scan_inputs(x))

    def scan_inputs(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What the scan takes, x [R, ..., C] the first of it."""
        N = self.A_log.shape[-1]
        dt, B, C = self.x_proj(x).split([self.dt_proj.weight.shape[-1], N, N], dim=-1)
        # a step of 0.001 is softplus(-7), and there a bfloat16 is off by up to 2 %: the bias, most
        # of it, is added in float32, as the official kernel does
        dt = self.dt_proj.multiply(dt)
        dt = dt.to(torch.promote_types(dt.dtype, torch.float32))
        assert self.dt_proj.bias is not None
        delta = F.softplus(dt + per_run(self.dt_proj.bias, dt))
        return x, delta, -self.A_log.exp(), B, C, self.D

    def initial_state(self, R: int, B: int, length: int) -> SelectiveState:
        return SelectiveState(
            self.window(self.conv1d, R, B), self.zeros(R, B, *self.A_log.shape[1:])
        )

    def sequence_flops(self, length: int) -> int:
        """Of the recurrence, whichever form runs, exponentials not counted: for each number of the
        state delta A, delta u B, decay and add, and read; for each channel delta u and D u."""
        _, channels, N = self.A_log.shape
        return length * channels * (6 * N + 3)


class S6(SelectiveMixer):
    Config = S6Config

    def __init__(self, config: S6Config, d_model: int, seq_len: int, num_layers: int):
        super().__init__()
        self.conv1d = ShortConv(d_model, config.d_conv, silu=True) if config.conv else None
        self.make_scan(config, d_model, channels=d_model)

    def mix(self, x: Tensor) -> tuple[Tensor]:
        return (self.scan(x if self.conv1d is None else self.conv1d(x)),)

    def step(self, x: Tensor, state: SelectiveState) -> tuple[Tensor, SelectiveState]:
        x, window = step_conv(self.conv1d, x, state.window)
        y, h = selective_scan_step(*self.scan_inputs(x), state.h)
        return self.finish_one(y), SelectiveState(window, h)


class Mamba(SelectiveMixer):
    Config = MambaConfig
    finishing = "out_proj"

    def __init__(self, config: MambaConfig, d_model: int, seq_len: int, num_layers: int):
        super().__init__()
        channels, std = config.expand * d_model, config.init_std
        self.gating = config.gating
        self.norm = GatedRMSNorm(channels) if config.norm else None
        self.in_proj = Linear(d_model, [channels] * (1 + self.gating), bias=False, std=std)
        self.conv1d = ShortConv(channels, config.d_conv, silu=True) if config.conv else None
        self.make_scan(config, d_model, channels)
        out_std = None if std is None else std / math.sqrt(2 * num_layers)
        self.out_proj = Linear(channels, d_model, bias=False, std=out_std)

    def mix(self, x: Tensor) -> tuple[Tensor, ...]:
        x, *z = self.in_proj(x).chunk(1 + self.gating, dim=-1)
        return self.scan(F.silu(x) if self.conv1d is None else self.conv1d(x)), *z

    def step(self, x: Tensor, state: SelectiveState) -> tuple[Tensor, SelectiveState]:
        x, *z = self.in_proj(x).chunk(1 + self.gating, dim=-1)
        x, window = step_conv(self.conv1d, x, state.window)
        y, h = selective_scan_step(
            *self.scan_inputs(F.silu(x) if self.conv1d is None else x), state.h
        )
        return self.finish_one(y, *z), SelectiveState(window, h)

    def finish(self, parts: tuple[Tensor, ...]) -> Tensor:
        y, *z = parts
        if self.norm is not None:
            return self.out_proj(self.norm(y, z[0]))
        return self.out_proj(y * F.silu(z[0]) if self.gating else y)

    def sequence_flops(self, length: int) -> int:
        gates = length * self.D.shape[-1] if self.gating else 0
        return super().sequence_flops(length) + gates


def initial_dt_bias(size: int) -> Tensor:
    """[1, size] whose softplus is log-uniform in [DT_MIN, DT_MAX]; the official floor of 1e-4 lies
    below that range and is left out."""
    dt = torch.exp(torch.rand(1, size) * (math.log(DT_MAX) - math.log(DT_MIN)) + math.log(DT_MIN))
    return dt + torch.log(-torch.expm1(-dt))  # the inverse of softplus

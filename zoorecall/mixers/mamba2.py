"""Mamba2: a state space model with one decay a head and large states, gated and normalized.

Dao and Gu 2024 (arXiv 2405.21060), section 7 and figure 6 (the sequential block of the official
code is its parallel projection); the recurrence is in `ops.ssd`. Shape letters: R runs, B batch,
L length, D width, E channels = expand D, H heads, P head dim = E / H, G groups, N state.

    z, xBC, dt = in_proj(u);  x, B, C = SiLU(conv1d(xBC))
    y = out_proj(norm((SSD(x, softplus(dt + dt_bias), B, C) + D x) * SiLU(z)))

Parameters, defaults and initial weights are those of `Mamba2` in mamba-ssm 2.3.2, draw for draw;
its options conv_init, d_ssm, A_init_range, D_has_hdim, rmsnorm, norm_before_gate, dt_min, dt_max,
dt_init_floor, dt_limit, bias and conv_bias are fixed at their defaults. `init_std` draws the linear
layers as Zoology does inside a transformer block; dt_bias belongs to no linear layer and stays. The
official code exempts A_log, D and dt_bias from weight decay, as `train.undecayed: official` does.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..layers import GatedRMSNorm, Linear, ShortConv, per_run
from ..ops.ssd import split_xBC, ssd, ssd_step
from .base import MixerConfig, SequenceMixer
from .mamba import initial_dt_bias


class Mamba2Config(MixerConfig):
    name: Literal["mamba2"] = "mamba2"
    d_state: int = Field(128, ge=1, le=2**20, description="numbers of state a channel")
    d_conv: int = Field(4, ge=2, le=2**20, description="taps of the short convolution")
    expand: int = Field(2, ge=1, le=2**20, description="channels inside, in units of d_model")
    headdim: int = Field(64, ge=1, le=2**20, description="channels of a head")
    ngroups: int = Field(
        1, ge=1, le=2**20, description="groups of heads, each with a B, a C and a norm"
    )
    init_std: float | None = Field(
        None, gt=0, description="of both linear layers; null: as torch.nn.Linear"
    )

    @property
    def chooses_weights(self) -> bool:
        return self.init_std is not None

    @property
    def own_block(self) -> bool:
        return True

    @property
    def redrawn_by_zoology(self) -> bool:
        return True

    def check(self, d_model: int) -> None:
        channels = self.expand * d_model
        if channels % self.headdim:
            fits = next(p for p in range(min(self.headdim, channels), 0, -1) if channels % p == 0)
            raise ValueError(
                f"expand * d_model = {channels} is not a multiple of headdim {self.headdim}; "
                f"headdim {fits} fits"
            )
        if channels // self.headdim % self.ngroups:
            raise ValueError(
                f"{channels // self.headdim} heads cannot be split into {self.ngroups} groups"
            )


class Mamba2State(NamedTuple):
    window: Tensor  # [R, B, d_conv - 1, E + 2 G N]: the last of xBC, before the convolution
    h: Tensor  # [R, B, H, N, P]


class Mamba2(SequenceMixer):
    Config = Mamba2Config
    finishing = "out_proj"

    def __init__(self, config: Mamba2Config, d_model: int, seq_len: int, num_layers: int):
        super().__init__()
        E, std = config.expand * d_model, config.init_std
        H = E // config.headdim
        self.ngroups, self.d_state = config.ngroups, config.d_state
        N = config.ngroups * config.d_state
        self.sizes = [E, E + 2 * N, H]  # of z, xBC and dt
        self.in_proj = Linear(d_model, [E, E, N, N, H], bias=False, std=std)
        self.conv1d = ShortConv(self.sizes[1], config.d_conv, silu=True)
        self.dt_bias = nn.Parameter(initial_dt_bias(H))
        self.A_log = nn.Parameter(torch.empty(1, H).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(1, H))
        self.norm = GatedRMSNorm(E, config.ngroups)
        out_std = None if std is None else std / math.sqrt(2 * num_layers)
        self.out_proj = Linear(E, d_model, bias=False, std=out_std)

    def mix(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, xBC, dt = self.project(x, apart=x.is_cuda)
        dt, A = self.step_size(dt), -self.A_log.exp()
        return ssd(self.conv1d(xBC), dt, A, self.D, self.ngroups, self.d_state), z

    def step_size(self, dt: Tensor) -> Tensor:
        """[R, ..., H] -> the same, in float32 at least."""
        # a step of 0.001 is softplus(-7), and there a bfloat16 is off by up to 2 %
        dt = dt.to(torch.promote_types(dt.dtype, torch.float32))
        return F.softplus(dt + per_run(self.dt_bias, dt))

    def finish(self, parts: tuple[Tensor, ...]) -> Tensor:
        y, z = parts
        return self.out_proj(self.norm(y, z))

    def project(self, x: Tensor, apart: bool) -> tuple[Tensor, ...]:
        """z, xBC and dt: [R, B, L, D] -> [R, B, L, E], [R, B, L, E + 2 G N] and [R, B, L, H].

        One product makes them, or two if `apart`. The backward pass needs the gradient of a product
        as one tensor, and concatenating the gradients of z, xBC and dt is a pass over all of them.
        On a GPU that costs more than a second product, so xBC, the largest, gets its own. dt stays
        with z because alone it would be narrow; zeros pad their rows to multiples of 16 bytes.
        """
        if not apart:
            return self.in_proj(x).split(self.sizes, dim=-1)
        z, xBC, dt = self.in_proj.weight.to(x.dtype).split(self.sizes, dim=1)
        ends = z.shape[1], z.shape[1] + dt.shape[1]
        z_dt = F.pad(torch.cat([z, dt], dim=1), (0, 0, 0, -ends[1] % 8))
        products = (torch.bmm(x.flatten(1, 2), weight.mT) for weight in (z_dt, xBC))
        z_dt, xBC = (y.unflatten(1, x.shape[1:3]) for y in products)
        return z_dt[..., : ends[0]], xBC, z_dt[..., slice(*ends)]

    def initial_state(self, R: int, B: int, length: int) -> Mamba2State:
        H = self.D.shape[-1]
        h = self.zeros(R, B, H, self.d_state, self.sizes[0] // H)
        return Mamba2State(self.window(self.conv1d, R, B), h)

    def step(self, x: Tensor, state: Mamba2State) -> tuple[Tensor, Mamba2State]:
        z, xBC, dt = self.project(x, apart=False)
        xBC, window = self.conv1d.step(xBC, state.window)
        x, B, C = split_xBC(xBC, self.D.shape[-1], self.ngroups, self.d_state)
        y, h = ssd_step(x, self.step_size(dt), -self.A_log.exp(), B, C, state.h)
        y = y + per_run(self.D.unsqueeze(-1), x) * x
        return self.finish_one(y.flatten(-2), z), Mamba2State(window, h)

    def sequence_flops(self, length: int) -> int:
        """Of the recurrence, whichever form runs, exponentials not counted: for each number of the
        state outer product, decay and add, and read; for each channel dt x, D x and the gate; for
        each head dt A."""
        return length * (self.sizes[0] * (5 * self.d_state + 4) + self.D.shape[-1])

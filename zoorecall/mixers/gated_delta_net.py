"""Gated DeltaNet: DeltaNet whose state also decays, by a factor that depends on the input.

Yang, Kautz and Hatamizadeh 2024 (arXiv 2412.06464); the recurrence is in
`ops.gated_delta_rule`. Queries and keys: projection, short convolution, SiLU, L2 norm; values:
without the norm. The writing strength is a sigmoid of a projection, the decay is Mamba2's:

    beta = sigmoid(b_proj(x));  g = -exp(A_log) softplus(a_proj(x) + dt_bias)
    y = o_proj(norm(o) * SiLU(g_proj(x)))

The norm is one of each head's values and comes before the gate, in Mamba2 after it. Shape letters:
R runs, B batch, L length, D width, H heads, K key dim, V value dim = expand_v K of a head.
Parameters, defaults and initial weights are those of `GatedDeltaNet` in flash-linear-attention
0.6.0, draw for draw, but for the heads: 6 of K = 256 there, for a width of 2048, and here one of
K = D. Its options num_v_heads, allow_neg_eigval, conv_bias, norm_eps and output_gate_activation are
fixed at their defaults. It exempts A_log and dt_bias from weight decay, as
`train.undecayed: official` does.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from ..layers import Linear, RMSNorm, ShortConv, per_run
from ..ops.gated_delta_rule import gated_delta_rule, gated_delta_rule_step
from .base import MixerConfig, SequenceMixer, step_conv
from .delta_net import MemoryState, l2_norm
from .mamba import initial_dt_bias


class GatedDeltaNetConfig(MixerConfig):
    name: Literal["gated_delta_net"] = "gated_delta_net"
    num_heads: int = Field(1, ge=1, le=2**20, description="heads, each of a share of the features")
    head_dim: int | None = Field(
        None, ge=1, le=2**20, description="key dim of a head; null: d_model / num_heads"
    )
    expand_v: int = Field(
        2, ge=1, le=2**20, description="value dim of a head, in units of its key dim"
    )
    conv: bool = Field(
        True, description="short convolutions after the three projections; the SiLU stays"
    )
    conv_size: int = Field(4, ge=2, le=2**20, description="taps of a short convolution")
    gating: bool = Field(True, description="the gate on the output")

    @property
    def redrawn_by_zoology(self) -> bool:
        return True

    def with_zoology_options(self, d_model: int) -> MixerConfig:
        """Six heads, of as many features as the width has for each, rounded down."""
        heads = self.num_heads if "num_heads" in self.model_fields_set else 6
        head_dim = None if d_model % heads == 0 else max(1, d_model // heads)
        return self.filled_in({"num_heads": heads, "head_dim": head_dim})

    def check(self, d_model: int) -> None:
        if self.head_dim is None and d_model % self.num_heads:
            raise ValueError(
                f"d_model {d_model} is not a multiple of num_heads {self.num_heads}; "
                "set head_dim or another number"
            )


class GatedDeltaNet(SequenceMixer):
    Config = GatedDeltaNetConfig
    finishing = "o_proj"

    def __init__(self, config: GatedDeltaNetConfig, d_model: int, seq_len: int, num_layers: int):
        super().__init__()
        H, taps = config.num_heads, config.conv_size
        keys = H * (config.head_dim or d_model // H)
        values = config.expand_v * keys
        self.q_proj = Linear(d_model, keys, bias=False)
        self.k_proj = Linear(d_model, keys, bias=False)
        self.v_proj = Linear(d_model, values, bias=False)
        self.a_proj = Linear(d_model, H, bias=False)
        self.b_proj = Linear(d_model, H, bias=False)
        self.A_log = nn.Parameter(torch.empty(1, H).uniform_(0, 16).log())
        self.dt_bias = nn.Parameter(initial_dt_bias(H))
        self.q_conv1d = self.k_conv1d = self.v_conv1d = None
        if config.conv:
            self.q_conv1d = ShortConv(keys, taps, bias=False, silu=True)
            self.k_conv1d = ShortConv(keys, taps, bias=False, silu=True)
            self.v_conv1d = ShortConv(values, taps, bias=False, silu=True)
        self.g_proj = Linear(d_model, values, bias=False) if config.gating else None
        self.o_norm = RMSNorm(values // H)
        self.o_proj = Linear(values, d_model, bias=False)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """H, K and V."""
        H = self.A_log.shape[-1]
        return H, self.q_proj.weight.shape[1] // H, self.v_proj.weight.shape[1] // H

    def mix(self, x: Tensor) -> tuple[Tensor, ...]:
        branches = (
            (self.q_proj, self.q_conv1d),
            (self.k_proj, self.k_conv1d),
            (self.v_proj, self.v_conv1d),
        )
        qkv = (F.silu(proj(x)) if conv is None else conv(proj(x)) for proj, conv in branches)
        q, k, v = (rearrange(t, "r b l (h k) -> r b l h k", h=self.sizes[0]) for t in qkv)
        beta, g = self.strength_and_decay(x)
        o = gated_delta_rule(l2_norm(q), l2_norm(k), v, beta, g).flatten(-2)
        return (o,) if self.g_proj is None else (o, self.g_proj(x))

    def strength_and_decay(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """beta and g: [R, ..., D] -> [R, ..., H] each, in float32 at least."""
        wide = torch.promote_types(x.dtype, torch.float32)
        a, beta = self.a_proj(x).to(wide), self.b_proj(x).to(wide).sigmoid()
        return beta, -per_run(self.A_log, a).exp() * F.softplus(a + per_run(self.dt_bias, a))

    def finish(self, parts: tuple[Tensor, ...]) -> Tensor:
        # float32 up to the product, as in fla's kernels
        wide = torch.promote_types(parts[0].dtype, torch.float32)
        o, *gate = (part.to(wide).unflatten(-1, (self.sizes[0], -1)) for part in parts)
        o = self.o_norm(o) * F.silu(gate[0]) if gate else self.o_norm(o)
        return self.o_proj(o.to(parts[0].dtype).flatten(-2))

    def initial_state(self, R: int, B: int, length: int) -> MemoryState:
        return MemoryState(
            self.window(self.q_conv1d, R, B),
            self.window(self.k_conv1d, R, B),
            self.window(self.v_conv1d, R, B),
            self.zeros(R, B, *self.sizes),
        )

    def step(self, x: Tensor, state: MemoryState) -> tuple[Tensor, MemoryState]:
        q, q_window = step_conv(self.q_conv1d, self.q_proj(x), state.q_window)
        k, k_window = step_conv(self.k_conv1d, self.k_proj(x), state.k_window)
        v, v_window = step_conv(self.v_conv1d, self.v_proj(x), state.v_window)
        if self.q_conv1d is None:
            q, k, v = F.silu(q), F.silu(k), F.silu(v)
        q, k, v = (u.unflatten(-1, (self.sizes[0], -1)) for u in (q, k, v))
        beta, g = self.strength_and_decay(x)
        o, S = gated_delta_rule_step(l2_norm(q), l2_norm(k), v, beta, g, state.S)
        gate = () if self.g_proj is None else (self.g_proj(x),)
        y = self.finish_one(o.flatten(-2), *gate)
        return y, MemoryState(q_window, k_window, v_window, S)

    def sequence_flops(self, length: int) -> int:
        """Of the recurrence, whichever form runs, exponentials not counted: let S decay, read
        S^T k, add an outer product, read S^T q."""
        H, K, V = self.sizes
        return 7 * length * H * K * V

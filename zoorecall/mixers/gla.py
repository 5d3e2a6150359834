"""Gated linear attention (GLA): linear attention whose state decays, each key feature at a rate of
its own that depends on the input.

Yang et al. 2023 (arXiv 2312.06635); the recurrence is in `ops.gated_linear_attention`.
Queries, keys and values are projections, followed by a short convolution and SiLU only if asked
for. The log decay is logsigmoid of a projection of rank 16, divided by 16, so that the state decays
slowly at the start. The output goes through an RMS norm of each head, whose scale all heads share,
and then through a gate.

Shape letters: R runs, B batch, L length, D width, H heads; keys have expand_k D features, values
expand_v D, over all heads. Parameters, defaults (but one head, not four) and initial weights are
those of `GatedLinearAttention` in flash-linear-attention 0.6.0, draw for draw; its options
num_kv_heads, feature_map, conv_bias, gate_fn, elementwise_affine, norm_eps, gate_logit_normalizer,
gate_low_rank_dim, clamp_min and fuse_norm are fixed at their defaults.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from ..layers import Linear, RMSNorm, ShortConv
from ..ops.gated_linear_attention import gated_linear_attention, gated_linear_attention_step
from .base import MixerConfig, SequenceMixer, step_conv
from .delta_net import MemoryState

DECAY_RANK = 16
"""Rank of the log decays' projection."""

DECAY_DIVISOR = 16
"""What logsigmoid is divided by."""


class GLAConfig(MixerConfig):
    name: Literal["gla"] = "gla"
    num_heads: int = Field(1, ge=1, le=2**20, description="heads, each of a share of the features")
    expand_k: float = Field(
        0.5, gt=0, le=2**20, allow_inf_nan=False, description="key features, in units of d_model"
    )
    expand_v: float = Field(
        1.0, gt=0, le=2**20, allow_inf_nan=False, description="value features, in units of d_model"
    )
    conv: bool = Field(False, description="short convolutions after the three projections")
    conv_size: int = Field(4, ge=2, le=2**20, description="taps of a short convolution")
    gating: bool = Field(True, description="the gate on the output")

    @property
    def redrawn_by_zoology(self) -> bool:
        return True

    def with_zoology_options(self, d_model: int) -> MixerConfig:
        return self.filled_in({"num_heads": 4})

    def check(self, d_model: int) -> None:
        for name, expand in (("expand_k", self.expand_k), ("expand_v", self.expand_v)):
            head_dim = expand * d_model / self.num_heads
            if not math.isclose(head_dim, round(head_dim)):
                raise ValueError(
                    f"{name} * d_model = {expand * d_model:g} is not a multiple of "
                    f"num_heads {self.num_heads}"
                )


class GLA(SequenceMixer):
    Config = GLAConfig
    finishing = "o_proj"

    def __init__(self, config: GLAConfig, d_model: int, seq_len: int, num_layers: int):
        super().__init__()
        self.num_heads = config.num_heads
        keys, values = round(config.expand_k * d_model), round(config.expand_v * d_model)
        self.q_proj = Linear(d_model, keys, bias=False)
        self.k_proj = Linear(d_model, keys, bias=False)
        self.v_proj = Linear(d_model, values, bias=False)
        self.g_proj = Linear(d_model, values, bias=False) if config.gating else None
        self.q_conv1d = self.k_conv1d = self.v_conv1d = None
        if config.conv:
            self.q_conv1d = ShortConv(keys, config.conv_size, bias=False, silu=True)
            self.k_conv1d = ShortConv(keys, config.conv_size, bias=False, silu=True)
            self.v_conv1d = ShortConv(values, config.conv_size, bias=False, silu=True)
        self.gk_proj = nn.Sequential(
            Linear(d_model, DECAY_RANK, bias=False), Linear(DECAY_RANK, keys)
        )
        self.o_proj = Linear(values, d_model, bias=False)
        self.g_norm = RMSNorm(values // config.num_heads)

    def mix(self, x: Tensor) -> tuple[Tensor, ...]:
        branches = (
            (self.q_proj, self.q_conv1d),
            (self.k_proj, self.k_conv1d),
            (self.v_proj, self.v_conv1d),
        )
        qkv = (proj(x) if conv is None else conv(proj(x)) for proj, conv in branches)
        log_decay = self.log_decay(x)
        q, k, v, g = (
            rearrange(t, "r b l (h d) -> r b l h d", h=self.num_heads) for t in (*qkv, log_decay)
        )
        o = gated_linear_attention(q, k, v, g).flatten(-2)
        return (o,) if self.g_proj is None else (o, self.g_proj(x))

    def log_decay(self, x: Tensor) -> Tensor:
        """[R, ..., D] -> [R, ..., H K], in float32 at least."""
        # a sequence multiplies many decays, and with them their rounding
        logits = self.gk_proj(x).to(torch.promote_types(x.dtype, torch.float32))
        return F.logsigmoid(logits) / DECAY_DIVISOR

    def finish(self, parts: tuple[Tensor, ...]) -> Tensor:
        o, *gate = parts
        normed = self.g_norm(o.unflatten(-1, (self.num_heads, -1))).flatten(-2)
        return self.o_proj(normed * F.silu(gate[0]) if gate else normed)

    def initial_state(self, R: int, B: int, length: int) -> MemoryState:
        H = self.num_heads
        K, V = self.k_proj.weight.shape[1] // H, self.v_proj.weight.shape[1] // H
        return MemoryState(
            self.window(self.q_conv1d, R, B),
            self.window(self.k_conv1d, R, B),
            self.window(self.v_conv1d, R, B),
            self.zeros(R, B, H, K, V),
        )

    def step(self, x: Tensor, state: MemoryState) -> tuple[Tensor, MemoryState]:
        q, q_window = step_conv(self.q_conv1d, self.q_proj(x), state.q_window)
        k, k_window = step_conv(self.k_conv1d, self.k_proj(x), state.k_window)
        v, v_window = step_conv(self.v_conv1d, self.v_proj(x), state.v_window)
        q, k, v, g = (u.unflatten(-1, (self.num_heads, -1)) for u in (q, k, v, self.log_decay(x)))
        o, S = gated_linear_attention_step(q, k, v, g, state.S)
        gate = () if self.g_proj is None else (self.g_proj(x),)
        y = self.finish_one(o.flatten(-2), *gate)
        return y, MemoryState(q_window, k_window, v_window, S)

    def sequence_flops(self, length: int) -> int:
        """Of the recurrence, whichever form runs, exponentials not counted: for each number of the
        state decay, outer product and add, and read; for each value feature the gate."""
        keys, values = self.k_proj.weight.shape[1], self.v_proj.weight.shape[1]
        gates = 0 if self.g_proj is None else values
        return length * (5 * keys * values // self.num_heads + gates)

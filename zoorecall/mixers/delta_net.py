"""DeltaNet: linear attention whose state forgets what it stored under a key before it writes.

Yang et al. 2024 (arXiv 2406.06484), section 3; the recurrence is in `ops.delta_rule`.
Queries and keys: projection, short convolution, SiLU, L2 norm; values: without the norm. The
writing strength beta is a sigmoid of a projection, the output goes through an RMS norm a head.

Shape letters: R runs, B batch, L length, D width, H heads, K key dim = V value dim = D / H.
Parameters, defaults (but one head, not four) and initial weights are those of `DeltaNet` in
flash-linear-attention 0.6.0, draw for draw; its options expand_k, expand_v, use_beta, use_gate,
conv_bias, allow_neg_eigval, qk_activation and qk_norm are fixed at their defaults.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field
from torch import Tensor

from ..layers import Linear, RMSNorm, ShortConv
from ..ops.delta_rule import delta_rule, delta_rule_step
from .base import MixerConfig, SequenceMixer, step_conv


class DeltaNetConfig(MixerConfig):
    name: Literal["delta_net"] = "delta_net"
    num_heads: int = Field(1, ge=1, le=2**20, description="heads, each of a share of the features")
    conv: bool = Field(True, description="short convolutions after the three projections")
    conv_size: int = Field(4, ge=2, le=2**20, description="taps of a short convolution")

    @property
    def redrawn_by_zoology(self) -> bool:
        return True

    def with_zoology_options(self, d_model: int) -> MixerConfig:
        return self.filled_in({"num_heads": 4})

    def check(self, d_model: int) -> None:
        if d_model % self.num_heads:
            raise ValueError(f"d_model {d_model} is not a multiple of num_heads {self.num_heads}")


class MemoryState(NamedTuple):
    """T is the number of the convolutions' taps; without them the windows are empty."""

    q_window: Tensor  # [R, B, T - 1, H K]: the last projections, before the convolution
    k_window: Tensor
    v_window: Tensor  # [R, B, T - 1, H V]
    S: Tensor  # [R, B, H, K, V]: what is stored under each key feature


class DeltaNet(SequenceMixer):
    Config = DeltaNetConfig
    finishing = "o_proj"

    def __init__(self, config: DeltaNetConfig, d_model: int, seq_len: int, num_layers: int):
        super().__init__()
        self.num_heads = config.num_heads
        self.q_proj = Linear(d_model, d_model, bias=False)
        self.k_proj = Linear(d_model, d_model, bias=False)
        self.v_proj = Linear(d_model, d_model, bias=False)
        self.b_proj = Linear(d_model, config.num_heads, bias=False)
        self.q_conv1d = self.k_conv1d = self.v_conv1d = None
        if config.conv:
            self.q_conv1d = ShortConv(d_model, config.conv_size, bias=False, silu=True)
            self.k_conv1d = ShortConv(d_model, config.conv_size, bias=False, silu=True)
            self.v_conv1d = ShortConv(d_model, config.conv_size, bias=False, silu=True)
        self.o_norm = RMSNorm(d_model // config.num_heads)
        self.o_proj = Linear(d_model, d_model, bias=False)

    def mix(self, x: Tensor) -> tuple[Tensor]:
        branches = (
            (self.q_proj, self.q_conv1d),
            (self.k_proj, self.k_conv1d),
            (self.v_proj, self.v_conv1d),
        )
        qkv = (F.silu(proj(x)) if conv is None else conv(proj(x)) for proj, conv in branches)
        q, k, v = (rearrange(t, "r b l (h k) -> r b l h k", h=self.num_heads) for t in qkv)
        return (delta_rule(l2_norm(q), l2_norm(k), v, self.b_proj(x).sigmoid()).flatten(-2),)

    def finish(self, parts: tuple[Tensor, ...]) -> Tensor:
        heads = parts[0].unflatten(-1, (self.num_heads, -1))
        return self.o_proj(self.o_norm(heads).flatten(-2))

    def initial_state(self, R: int, B: int, length: int) -> MemoryState:
        K = self.o_norm.weight.shape[-1]
        return MemoryState(
            self.window(self.q_conv1d, R, B),
            self.window(self.k_conv1d, R, B),
            self.window(self.v_conv1d, R, B),
            self.zeros(R, B, self.num_heads, K, K),
        )

    def step(self, x: Tensor, state: MemoryState) -> tuple[Tensor, MemoryState]:
        q, q_window = step_conv(self.q_conv1d, self.q_proj(x), state.q_window)
        k, k_window = step_conv(self.k_conv1d, self.k_proj(x), state.k_window)
        v, v_window = step_conv(self.v_conv1d, self.v_proj(x), state.v_window)
        if self.q_conv1d is None:
            q, k, v = F.silu(q), F.silu(k), F.silu(v)
        q, k, v = (u.unflatten(-1, (self.num_heads, -1)) for u in (q, k, v))
        o, S = delta_rule_step(l2_norm(q), l2_norm(k), v, self.b_proj(x).sigmoid(), state.S)
        return self.finish_one(o.flatten(-2)), MemoryState(q_window, k_window, v_window, S)

    def sequence_flops(self, length: int) -> int:
        """Of the recurrence, whichever form runs: read S^T k, add an outer product, read S^T q."""
        D = self.o_proj.weight.shape[-1]
        return 6 * length * D * D // self.num_heads


def l2_norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    """x / sqrt(|x|^2 + eps) along the last axis, as fla's kernel; [..., K] -> [..., K]."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * torch.rsqrt(wide.square().sum(-1, keepdim=True) + eps)).to(x.dtype)

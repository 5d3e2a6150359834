"""Causal softmax attention, with an optional short convolution in front of Q, K or V.

Attention: Vaswani et al. 2017, eq. 1. Convolution: Okpekpe and Orvieto 2025 (arXiv 2508.19029,
section 6) put a causal depthwise convolution before the projections of all three, or of one
alone; each branch has a convolution of its own.

Shape letters: R runs, B batch, L length, D width, H heads, K head dim.
Weights are drawn from N(0, 0.02^2), those of the output projection from N(0, 0.02^2 / 2 layers),
biases are zero: GPT-2's rule, which Zoology applies too.
"""

import math
from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from ..layers import Linear, ShortConv
from ..ops.attention import attention
from .base import MixerConfig, SequenceMixer


class AttentionConfig(MixerConfig):
    name: Literal["attention"] = "attention"
    num_heads: int = Field(1, ge=1)
    conv: Literal["", "q", "k", "v", "qk", "qv", "kv", "qkv"] = ""
    conv_size: int = Field(4, ge=2)
    rope: bool = False

    def check(self, d_model: int) -> None:
        if d_model % self.num_heads:
            raise ValueError(f"d_model {d_model} is not a multiple of num_heads {self.num_heads}")
        if self.rope and d_model // self.num_heads % 2:
            raise ValueError(f"rope needs an even head dim, not {d_model // self.num_heads}")


class Attention(SequenceMixer):
    Config = AttentionConfig
    uses_positions = True
    finishing = "out_proj"

    def __init__(self, config: AttentionConfig, d_model: int, seq_len: int, num_layers: int):
        super().__init__()
        self.num_heads, self.rope = config.num_heads, config.rope
        self.conv_size = config.conv_size
        self.convs = nn.ModuleDict({b: ShortConv(d_model, config.conv_size) for b in config.conv})
        # with convolutions Q, K and V have inputs of their own; without, one product makes all
        widths = [d_model] * 3 if config.conv else [3 * d_model]
        self.in_proj = nn.ModuleList(Linear(d_model, width, std=0.02) for width in widths)
        self.out_proj = Linear(d_model, d_model, std=0.02 / math.sqrt(2 * num_layers))

    def mix(self, x: Tensor) -> tuple[Tensor]:
        projections = [cast(Linear, proj) for proj in self.in_proj]
        inputs = [x]
        if self.convs:
            inputs = [self.convs[b](x) if b in self.convs else x for b in "qkv"]
        if self.rope:  # which rotates the bias too
            parts = [proj(u) for proj, u in zip(projections, inputs, strict=True)]
            q, k, v = parts if self.convs else parts[0].chunk(3, dim=-1)
            rotated = [rotate(q, self.num_heads), rotate(k, self.num_heads), v]
            return (attention(rotated, self.num_heads),)
        qkv = [proj.multiply(u) for proj, u in zip(projections, inputs, strict=True)]
        bias = [cast(Tensor, proj.bias) for proj in projections]
        if self.convs:
            return (attention(qkv, self.num_heads, bias),)
        return (attention(qkv[0], self.num_heads, bias[0]),)

    def finish(self, parts: tuple[Tensor, ...]) -> Tensor:
        return self.out_proj(parts[0])

    def state_size(self, length: int) -> int:
        D = self.out_proj.weight.shape[-1]
        return 2 * length * D + len(self.convs) * D * (self.conv_size - 1)

    def sequence_flops(self, length: int) -> int:
        # scores and weighted sums over the causal half, diagonal included
        return 2 * length * (length + 1) * self.out_proj.weight.shape[-1]


def rotate(x: Tensor, num_heads: int, base: float = 10_000.0) -> Tensor:
    """Rotary positions (Su et al. 2021, eq. 34) on every head: [R, B, L, D] -> the same."""
    L, heads = x.shape[2], x.unflatten(-1, (num_heads, -1))  # [R, B, L, H, K]
    K = heads.shape[-1]
    frequency = base ** (-torch.arange(0, K, 2, device=x.device, dtype=torch.float32) / K)
    angle = torch.arange(L, device=x.device, dtype=torch.float32)[:, None, None] * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)  # [L, 1, K / 2]
    first, second = heads.chunk(2, dim=-1)
    rotated = [first * cos - second * sin, first * sin + second * cos]
    return torch.cat(rotated, dim=-1).flatten(-2)

"""Causal softmax attention, with an optional short convolution in front of Q, K or V.

Attention: Vaswani et al. 2017, eq. 1. Convolution: Okpekpe and Orvieto 2025 (arXiv 2508.19029,
section 6) put a causal depthwise convolution before the projections of all three, or of one
alone; each branch has a convolution of its own.

Shape letters: R runs, B batch, L length, D width, H heads, K head dim.
Weights are drawn from N(0, 0.02^2), those of the output projection from N(0, 0.02^2 / 2 layers),
biases are zero: GPT-2's rule, which Zoology applies too.

`model.attention_dropout` drops weights after the softmax and divides the others by what is kept, as
Zoology does. The kernel does so where it fits; where it does not, a training step keeps the L^2
weights of every head.
"""

import math
from typing import Literal, NamedTuple, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from ..layers import Linear, ShortConv
from ..ops.attention import attention, attention_step
from ..ops.dropout import Dropped
from .base import MixerConfig, SequenceMixer, step_conv


class AttentionConfig(MixerConfig):
    name: Literal["attention"] = "attention"
    num_heads: int = Field(1, ge=1, le=2**20, description="heads, each of a share of the features")
    conv: Literal["", "q", "k", "v", "qk", "qv", "kv", "qkv"] = Field(
        "", description="which of Q, K and V have a short convolution in front"
    )
    conv_size: int = Field(4, ge=2, le=2**20, description="taps of a short convolution")
    rope: bool = Field(False, description="rotary positions on queries and keys")

    def check(self, d_model: int) -> None:
        if d_model % self.num_heads:
            raise ValueError(f"d_model {d_model} is not a multiple of num_heads {self.num_heads}")
        if self.rope and d_model // self.num_heads % 2:
            raise ValueError(f"rope needs an even head dim, not {d_model // self.num_heads}")

    @property
    def uses_positions(self) -> bool:
        return not self.rope


class AttentionState(NamedTuple):
    """T is the number of a convolution's taps, L that of positions there is room for. Each
    convolution has a window of its own, though all see the same inputs."""

    q_window: Tensor  # [R, B, T - 1, D]: the last inputs; empty without a convolution there
    k_window: Tensor
    v_window: Tensor
    keys: Tensor  # [R, B, L, D]: of every position so far, rotated, then zeros
    values: Tensor
    position: Tensor  # [R, B]: how many positions there were so far


class Attention(SequenceMixer):
    Config = AttentionConfig
    finishing = "out_proj"

    def __init__(self, config: AttentionConfig, d_model: int, seq_len: int, num_layers: int):
        super().__init__()
        self.num_heads, self.rope = config.num_heads, config.rope
        self.convs = nn.ModuleDict({b: ShortConv(d_model, config.conv_size) for b in config.conv})
        # with convolutions Q, K and V have inputs of their own; without, one product makes all
        widths = [d_model, d_model, d_model] if config.conv else [[d_model] * 3]
        self.in_proj = nn.ModuleList(Linear(d_model, width, std=0.02) for width in widths)
        self.out_proj = Linear(d_model, d_model, std=0.02 / math.sqrt(2 * num_layers))

    def mix(self, x: Tensor) -> tuple[Tensor]:
        return (self.attend(x, None),)

    def mix_in_training(self, x: Tensor, dropped: Dropped) -> tuple[Tensor]:
        return (self.attend(x, dropped),)

    def attend(self, x: Tensor, dropped: Dropped | None) -> Tensor:
        """Attention of x [R, B, L, D], before the output projection."""
        projections = [cast(Linear, proj) for proj in self.in_proj]
        inputs = [x]
        if self.convs:
            inputs = [self.convs[b](x) if b in self.convs else x for b in "qkv"]
        if self.rope:  # which rotates the bias too
            parts = [proj(u) for proj, u in zip(projections, inputs, strict=True)]
            q, k, v = parts if self.convs else parts[0].chunk(3, dim=-1)
            rotated = [rotate(q, self.num_heads), rotate(k, self.num_heads), v]
            return attention(rotated, self.num_heads, None, dropped)
        qkv = [proj.multiply(u) for proj, u in zip(projections, inputs, strict=True)]
        bias = [cast(Tensor, proj.bias) for proj in projections]
        if self.convs:
            return attention(qkv, self.num_heads, bias, dropped)
        return attention(qkv[0], self.num_heads, bias[0], dropped)

    def finish(self, parts: tuple[Tensor, ...]) -> Tensor:
        return self.out_proj(parts[0])

    def initial_state(self, R: int, B: int, length: int) -> AttentionState:
        D = self.out_proj.weight.shape[-1]
        return AttentionState(
            self.window(self.conv("q"), R, B),
            self.window(self.conv("k"), R, B),
            self.window(self.conv("v"), R, B),
            keys=self.zeros(R, B, length, D),
            values=self.zeros(R, B, length, D),
            position=self.zeros(R, B).long(),
        )

    def step(self, x: Tensor, state: AttentionState) -> tuple[Tensor, AttentionState]:
        q, q_window = step_conv(self.conv("q"), x, state.q_window)
        k, k_window = step_conv(self.conv("k"), x, state.k_window)
        v, v_window = step_conv(self.conv("v"), x, state.v_window)
        if self.convs:
            q, k, v = (proj(u) for proj, u in zip(self.in_proj, (q, k, v), strict=True))
        else:
            q, k, v = self.in_proj[0](x).chunk(3, dim=-1)
        q, k, v, here = (u.unsqueeze(2) for u in (q, k, v, state.position))
        if self.rope:
            q, k = rotate(q, self.num_heads, here), rotate(k, self.num_heads, here)
        index = here.unsqueeze(-1).expand(k.shape)  # [R, B, 1, D]
        keys = state.keys.scatter(2, index, k.to(state.keys.dtype))
        values = state.values.scatter(2, index, v.to(state.values.dtype))
        y = attention_step(q.squeeze(2), keys, values, state.position, self.num_heads)
        after = AttentionState(q_window, k_window, v_window, keys, values, state.position + 1)
        return self.finish_one(y), after

    def conv(self, branch: str) -> ShortConv | None:
        """The convolution in front of q, k or v, if there is one."""
        return cast(ShortConv, self.convs[branch]) if branch in self.convs else None

    def sequence_flops(self, length: int) -> int:
        # scores and weighted sums over the causal half, diagonal included
        return 2 * length * (length + 1) * self.out_proj.weight.shape[-1]


def rotate(
    x: Tensor, num_heads: int, positions: Tensor | None = None, base: float = 10_000.0
) -> Tensor:
    """Rotary positions (Su et al. 2021, eq. 34) on every head: [R, B, L, D] -> the same.

    `positions` [R, B, L] are 0, 1, ... unless given.
    """
    heads = x.unflatten(-1, (num_heads, -1))  # [R, B, L, H, K]
    K = heads.shape[-1]
    if positions is None:
        positions = torch.arange(x.shape[2], device=x.device, dtype=torch.float32)
    frequency = base ** (-torch.arange(0, K, 2, device=x.device, dtype=torch.float32) / K)
    angle = positions[..., None, None] * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)  # [..., L, 1, K / 2]
    first, second = heads.chunk(2, dim=-1)
    rotated = [first * cos - second * sin, first * sin + second * cos]
    return torch.cat(rotated, dim=-1).flatten(-2)

"""RWKV's time mixing: each channel averages its values with weights that decay, behind a gate.

Peng et al. 2023 (arXiv 2305.13048), which is RWKV-4; WKV is in `ops.wkv`:

    k, v, r = the projections of mix x_t + (1 - mix) x_{t-1}, each with a mix of its own
    y = W_output [sigmoid(r) . WKV(k, v, w, u)],    w = exp(time_decay), u = time_first

Shape letters: R runs, B batch, L length, D width.

Parameters and initial values are those of Zoology's class, which are RWKV-4's but for the four
linear layers: these start as torch.nn.Linear, as nothing there calls RWKV's own initialization.
Zoology's model draws linear layers from N(0, 0.02^2) but does not see those of this class, a
ScriptModule. RWKV's channel mixing is left out: the other half of a layer is the grid's choice.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import Linear, per_run
from ..ops.wkv import WKVState, wkv, wkv_step
from .base import MixerConfig, SequenceMixer

LAYERS = 12
"""Initial values depend on the layer as in a model of 12 layers, whatever the depth, as Zoology
leaves RWKV's default. Layers after the 12th start as the 12th."""


class RWKVConfig(MixerConfig):
    name: Literal["rwkv"] = "rwkv"


class RWKVState(NamedTuple):
    """[R, B, D] each."""

    before: Tensor  # the last input
    num: Tensor  # the sums of WKV, as `WKVState` has them
    den: Tensor
    top: Tensor


class RWKV(SequenceMixer):
    Config = RWKVConfig
    finishing = "output"

    def __init__(self, config: RWKVConfig, d_model: int, seq_len: int, num_layers: int):
        super().__init__()
        self.time_decay = nn.Parameter(torch.empty(1, d_model))  # [R, D], as the next four
        self.time_first = nn.Parameter(torch.empty(1, d_model))
        self.time_mix_k = nn.Parameter(torch.empty(1, d_model))
        self.time_mix_v = nn.Parameter(torch.empty(1, d_model))
        self.time_mix_r = nn.Parameter(torch.empty(1, d_model))
        self.key = Linear(d_model, d_model, bias=False)
        self.value = Linear(d_model, d_model, bias=False)
        self.receptance = Linear(d_model, d_model, bias=False)
        self.output = Linear(d_model, d_model, bias=False)
        self.start_as(0)

    def start_as(self, layer: int) -> None:
        layer = min(layer, LAYERS - 1)
        depth, rest = layer / (LAYERS - 1), 1 - layer / LAYERS
        D = self.time_decay.shape[-1]
        channel = torch.arange(D)
        mix = channel / D
        speed = (channel / max(D - 1, 1)) ** (0.7 + 1.3 * depth)
        self.time_decay.data[:] = -5 + 8 * speed
        self.time_first.data[:] = math.log(0.3) + 0.5 * ((channel + 1) % 3 - 1)
        self.time_mix_k.data[:] = mix**rest
        self.time_mix_v.data[:] = mix**rest + 0.3 * depth
        self.time_mix_r.data[:] = mix ** (0.5 * rest)

    def mix(self, x: Tensor) -> tuple[Tensor, Tensor]:
        before = F.pad(x, (0, 0, 1, -1))  # x_{t-1}, zeros at the first position
        k, v, r = self.project(x, before)
        return wkv(k, v, self.time_decay.exp(), self.time_first), r

    def project(self, x: Tensor, before: Tensor) -> tuple[Tensor, ...]:
        """k, v and r, of x_t and x_{t-1}: [R, ..., D] -> the same, each."""
        branches = (
            (self.key, self.time_mix_k),
            (self.value, self.time_mix_v),
            (self.receptance, self.time_mix_r),
        )
        return tuple(linear(torch.lerp(before, x, per_run(mix, x))) for linear, mix in branches)

    def finish(self, parts: tuple[Tensor, ...]) -> Tensor:
        y, r = parts
        return self.output(r.sigmoid() * y)

    def initial_state(self, R: int, B: int, length: int) -> RWKVState:
        before, num, den, top = (self.zeros(R, B, self.time_decay.shape[-1]) for _ in range(4))
        return RWKVState(before, num, den, top - torch.inf)

    def step(self, x: Tensor, state: RWKVState) -> tuple[Tensor, RWKVState]:
        before, *sums = state
        k, v, r = self.project(x, before.to(x.dtype))
        y, after = wkv_step(k, v, self.time_decay.exp(), self.time_first, WKVState(*sums))
        return self.finish_one(y, r), RWKVState(x.to(before.dtype), *after)

    def sequence_flops(self, length: int) -> int:
        """Of a channel, exponentials not counted: three mixes of two inputs (3 each), numerator and
        denominator decayed and added to (5), the output from them (5), and the gate (1)."""
        return length * self.time_decay.shape[-1] * (3 * 3 + 5 + 5 + 1)

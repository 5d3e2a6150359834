"""Based's linear attention: attention with a polynomial in place of the exponential.

Arora et al. 2024 (arXiv 2402.18668); the operation is in `ops.taylor_attention`. The paper's
architecture has layers of this between layers of sliding-window attention or convolutions; here,
as for every mixer, all layers have it, unless a pattern says otherwise.

Shape letters: R runs, B batch, L length, D width, H heads, K feature_dim, V value dim = D / H.
Parameters are those of `BasedLinearAttention` in flash-linear-attention 0.6.0, its three
projections as one; weights are drawn from N(0, 0.02^2), as Zoology's model draws them.
"""

from typing import Literal, NamedTuple

from pydantic import Field
from torch import Tensor

from ..layers import Linear
from ..ops.taylor_attention import num_features, taylor_attention, taylor_attention_step
from .base import MixerConfig, SequenceMixer


class BasedConfig(MixerConfig):
    name: Literal["based"] = "based"
    num_heads: int = Field(1, ge=1, le=2**20, description="heads, each of a share of the features")
    feature_dim: int = Field(
        16, ge=1, le=2**20, description="numbers of a query or key of one head"
    )

    def with_zoology_options(self, d_model: int) -> MixerConfig:
        return self.filled_in({"feature_dim": 8})

    def check(self, d_model: int) -> None:
        if d_model % self.num_heads:
            raise ValueError(f"d_model {d_model} is not a multiple of num_heads {self.num_heads}")

    @property
    def uses_positions(self) -> bool:
        return True


class BasedState(NamedTuple):
    sums: Tensor  # [R, B, H, features, V + 1]: of the values under a feature, and of the feature


class Based(SequenceMixer):
    Config = BasedConfig
    finishing = "o_proj"

    def __init__(self, config: BasedConfig, d_model: int, seq_len: int, num_layers: int):
        super().__init__()
        self.num_heads = config.num_heads
        self.widths = [config.num_heads * config.feature_dim] * 2 + [d_model]  # of q, k and v
        self.qkv_proj = Linear(d_model, self.widths, bias=False, std=0.02)
        self.o_proj = Linear(d_model, d_model, bias=False, std=0.02)

    def mix(self, x: Tensor) -> tuple[Tensor]:
        qkv = self.qkv_proj(x).split(self.widths, dim=-1)
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)) for part in qkv)
        return (taylor_attention(q, k, v).flatten(-2),)

    def finish(self, parts: tuple[Tensor, ...]) -> Tensor:
        return self.o_proj(parts[0])

    def initial_state(self, R: int, B: int, length: int) -> BasedState:
        """With one feature for x_i x_j and x_j x_i, for which Zoology's count has two."""
        H = self.num_heads
        K, V = self.widths[0] // H, self.widths[2] // H
        return BasedState(self.zeros(R, B, H, num_features(K), V + 1))

    def step(self, x: Tensor, state: BasedState) -> tuple[Tensor, BasedState]:
        qkv = self.qkv_proj(x).split(self.widths, dim=-1)
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)) for part in qkv)
        y, sums = taylor_attention_step(q, k, v, state.sums)
        return self.finish_one(y.flatten(-2)), BasedState(sums)

    def sequence_flops(self, length: int) -> int:
        # scores and weighted sums over the causal half, diagonal included
        return length * (length + 1) * (self.widths[0] + self.widths[2])

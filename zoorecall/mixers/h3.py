"""H3: keys through a shift SSM, their products with values through a diagonal SSM, read by queries.

Fu et al. 2022 (arXiv 2212.14052), algorithm 1:

    q, k, v = W x;  k' = shift * k;  y = sum_i q_i . (diagonal * (k'_i v^T));  out = W_out y

Both SSMs are time-invariant, and so here are long convolutions (*, `ops.long_conv`). Shape letters:
R runs, B batch, L length, D width, H heads, J head dim = D / H, N state.

Parameters, defaults and initial weights are those that Zoology's figure 2 gives `H3` (Arora et al.
2023): a head dim of 2, a state as long as the sequence, linear layers from N(0, 0.02^2); and, as
with everything there, one learning rate and weight decay for all of them.
"""

import math
from typing import Literal

import torch
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from ..layers import Linear, normal, uniform
from ..ops.long_conv import long_conv, with_skip
from .base import MixerConfig, SequenceMixer
from .mamba import DT_MAX, DT_MIN


class H3Config(MixerConfig):
    name: Literal["h3"] = "h3"
    head_dim: int = Field(2, ge=1, description="features of a head")
    d_state: int | None = Field(
        None, ge=2, description="numbers of state a channel; null: as many as positions"
    )

    def check(self, d_model: int) -> None:
        if d_model % self.head_dim:
            raise ValueError(f"d_model {d_model} is not a multiple of head_dim {self.head_dim}")


class ShiftFilter(nn.Module):
    """The filter h_t = sum_n B_n C_{n+t} of a shift SSM: length -> [R, length, D]. B starts as the
    first unit vector, with which the state holds the last N inputs."""

    def __init__(self, d_model: int, d_state: int):
        super().__init__()
        first, others = torch.ones(1, 1, d_model), torch.zeros(1, d_state - 1, d_model)
        self.B = nn.Parameter(torch.cat([first, others], dim=1))  # [R, N, D]
        self.C = uniform(d_state, d_model, bound=1 / math.sqrt(d_state))  # [R, N, D]

    def forward(self, length: int) -> Tensor:
        # this correlation is a convolution with C from its end, read from its end
        h = long_conv(self.B[:, None], self.C.flip(1)).squeeze(1).flip(1)[:, :length]
        return torch.cat([h, h.new_zeros(h.shape[0], length - h.shape[1], h.shape[2])], dim=1)


class DiagonalFilter(nn.Module):
    """The filter of a complex diagonal SSM: length -> [R, length, H]. With x = dt A / 2 it is

        h_t = 2 Re sum_n C_n B_n dt / (1 - x_n) ((1 + x_n) / (1 - x_n))^t

    S4D-Lin, discretized by the bilinear rule: Gu et al. 2022 (arXiv 2206.11893). Complex numbers
    are pairs of real ones, which a compiler can fuse.
    """

    def __init__(self, channels: int, d_state: int):
        super().__init__()
        H, N = channels, max(1, d_state // 2)  # the other half are conjugates
        span = math.log(DT_MAX) - math.log(DT_MIN)
        self.log_dt = nn.Parameter(torch.rand(1, H) * span + math.log(DT_MIN))
        self.log_A_real = nn.Parameter(torch.full((1, H, N), math.log(0.5)))  # of -Re A
        self.A_imag = nn.Parameter(math.pi * torch.arange(N).repeat(1, H, 1))
        self.B = nn.Parameter(torch.tensor([1.0, 0.0]).repeat(1, H, N, 1))
        self.C = normal(H, N, 2, std=math.sqrt(0.5))

    def forward(self, length: int) -> Tensor:
        dt = self.log_dt.exp().unsqueeze(-1)
        real, imag = -self.log_A_real.exp() * dt / 2, self.A_imag * dt / 2  # of x
        square = (1 - real).square() + imag.square()  # |1 - x|^2
        # of (1 + x) / (1 - x): |1 + x|^2 is |1 - x|^2 + 4 Re x, 0 at x = -1
        log_radius = torch.log1p((4 * real / square).clamp(min=-1 + 1e-6)) / 2
        angle = torch.atan2(2 * imag, 1 - real.square() - imag.square())
        scale = dt / square  # dt / (1 - x) = scale (1 - real, imag)
        (b, b_i), (c, c_i) = self.B.unbind(-1), self.C.unbind(-1)
        w, w_i = b * c - b_i * c_i, b * c_i + b_i * c
        w, w_i = scale * (w * (1 - real) - w_i * imag), scale * (w * imag + w_i * (1 - real))
        t = torch.arange(length, device=dt.device, dtype=dt.dtype)[:, None, None]
        radius, turn = (log_radius.unsqueeze(1) * t).exp(), angle.unsqueeze(1) * t  # [R, L, H, N]
        powers = radius * (w.unsqueeze(1) * turn.cos() - w_i.unsqueeze(1) * turn.sin())
        return 2 * powers.sum(-1)


class H3(SequenceMixer):
    Config = H3Config
    finishing = "out_proj"

    def __init__(self, config: H3Config, d_model: int, seq_len: int, num_layers: int):
        super().__init__()
        self.head_dim, self.d_state = config.head_dim, config.d_state or seq_len
        H = d_model // config.head_dim
        self.in_proj = Linear(d_model, 3 * d_model, std=0.02)
        self.shift = ShiftFilter(d_model, self.d_state)
        self.shift_D = normal(d_model, std=1.0)
        self.diagonal = DiagonalFilter(H, self.d_state)
        self.diagonal_D = normal(H, std=1.0)
        self.out_proj = Linear(d_model, d_model, std=0.02)

    def mix(self, x: Tensor) -> tuple[Tensor]:
        L, J = x.shape[2], self.head_dim
        q, k, v = self.in_proj(x).chunk(3, dim=-1)
        k = long_conv(k, with_skip(self.shift(L), self.shift_D))
        # the J^2 products of a head share a filter, and so stand where sequences do
        q, k = (rearrange(u, "r b l (h i) -> r b i 1 l h", i=J) for u in (q, k))
        v = rearrange(v, "r b l (h j) -> r b 1 j l h", j=J)
        y = long_conv((k * v).flatten(1, 3), with_skip(self.diagonal(L), self.diagonal_D))
        y = (q * y.unflatten(1, (-1, J, J))).sum(2)
        return (rearrange(y, "r b j l h -> r b l (j h)"),)

    def finish(self, parts: tuple[Tensor, ...]) -> Tensor:
        return self.out_proj(parts[0])

    def state_size(self, length: int) -> int:
        """Of the shift SSM the inputs before the present one; of the diagonal one d_state real
        numbers for each of the J^2 products of a head, where Zoology's count has one."""
        channels = self.diagonal.A_imag[0].numel() * 2 * self.head_dim**2
        return channels + self.shift_D.shape[-1] * (self.d_state - 1)

    def sequence_flops(self, length: int) -> int:
        """Of the products and, whichever form runs, of the FFTs: two real transforms of 2L points
        (2.5 n log2 n each) and a complex product a channel. The filters, made once a batch, are not
        counted."""
        D, J = self.shift_D.shape[-1], self.head_dim
        transforms = round(10 * length * math.log2(2 * length)) + 6 * (length + 1)
        return D * (1 + J) * transforms + 3 * D * J * length

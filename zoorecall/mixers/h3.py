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
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from ..layers import Linear, normal, per_run, uniform
from ..ops.long_conv import long_conv, long_conv_flops, with_skip
from .base import MixerConfig, SequenceMixer
from .mamba import DT_MAX, DT_MIN


class H3Config(MixerConfig):
    name: Literal["h3"] = "h3"
    head_dim: int = Field(2, ge=1, le=2**20, description="features of a head")
    d_state: int | None = Field(
        None, ge=2, le=2**20, description="numbers of state a channel; null: as many as positions"
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

    def step(self, u: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """One position: u [R, B, D] and what the SSM kept [R, B, N - 1, D], of which the oldest
        number was shifted out, -> y [R, B, D] and what it keeps now."""
        state = F.pad(kept, (0, 0, 1, 0)) + per_run(self.B, kept) * u.unsqueeze(2)
        return (per_run(self.C, state) * state).sum(2), state[:, :, :-1]


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
        log_radius, angle, w, w_i = self.discretized()
        t = torch.arange(length, device=w.device, dtype=w.dtype)[:, None, None]
        radius, turn = (log_radius.unsqueeze(1) * t).exp(), angle.unsqueeze(1) * t  # [R, L, H, N]
        powers = radius * (w.unsqueeze(1) * turn.cos() - w_i.unsqueeze(1) * turn.sin())
        return 2 * powers.sum(-1)

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One position: u [R, B, H, J, J] and the complex state [R, B, H, J, J, N] -> y like u and
        the next state."""
        log_radius, angle, w, w_i = self.discretized()
        poles, weights = (
            z[:, None, :, None, None]
            for z in (torch.polar(log_radius.exp(), angle), torch.complex(w, w_i))
        )
        state = poles * state + u.unsqueeze(-1)
        return 2 * (weights * state).sum(-1).real, state

    def discretized(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of (1 + x) / (1 - x) the log radius and the angle, and of C B dt / (1 - x) the real and
        the imaginary part: [R, H, N] each."""
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
        return log_radius, angle, w, w_i


class H3State(NamedTuple):
    shift: Tensor  # [R, B, N - 1, D]: the last keys, by the initial B
    diagonal: Tensor  # [R, B, H, J, J, N // 2], complex: a state for each product of key and value


class H3(SequenceMixer):
    Config = H3Config
    finishing = "out_proj"

    def __init__(self, config: H3Config, d_model: int, seq_len: int, num_layers: int):
        super().__init__()
        self.head_dim, self.d_state = config.head_dim, config.d_state or seq_len
        H = d_model // config.head_dim
        self.in_proj = Linear(d_model, [d_model] * 3, std=0.02)
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

    def initial_state(self, R: int, B: int, length: int) -> H3State:
        """The diagonal SSM has d_state numbers for each of the J^2 products of a head; Zoology's
        count has them for one."""
        kept = self.zeros(R, B, self.d_state - 1, self.shift_D.shape[-1])
        (_, H, N), J = self.diagonal.A_imag.shape, self.head_dim
        return H3State(kept, self.zeros(R, B, H, J, J, N).to(kept.dtype.to_complex()))

    def step(self, x: Tensor, state: H3State) -> tuple[Tensor, H3State]:
        q, k, v = self.in_proj(x).to(state.shift.dtype).chunk(3, dim=-1)
        shifted, shift = self.shift.step(k, state.shift)
        k = shifted + per_run(self.shift_D, k) * k
        q, k, v = (u.unflatten(-1, (-1, self.head_dim)) for u in (q, k, v))  # [R, B, H, J]
        kv = k.unsqueeze(-1) * v.unsqueeze(-2)
        y, diagonal = self.diagonal.step(kv, state.diagonal)
        y = y + per_run(self.diagonal_D[..., None, None], kv) * kv
        y = (q.unsqueeze(-1) * y).sum(-2).mT.flatten(-2)  # as `mix` has it: [R, B, J H]
        return self.finish_one(y.to(x.dtype)), H3State(shift, diagonal)

    def sequence_flops(self, length: int) -> int:
        """Of the products and the long convolutions. The filters, made once a batch, are not
        counted."""
        D, J = self.shift_D.shape[-1], self.head_dim
        return D * (1 + J) * long_conv_flops(length) + 3 * D * J * length

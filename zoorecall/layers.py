"""Primitives whose parameters carry a leading run axis.

Shape letters: R runs, B batch, L length, D width, C channels, V vocabulary, T taps.

Every parameter of a model has the run axis first. A layer is built for one run (R = 1); a pack
concatenates the parameters of such models along R (`model.Pack`), so nothing here knows how
many runs there are until it sees a parameter's shape. Parameters are float32; each primitive
casts them to the dtype of its input, which alone decides the precision of the computation.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .ops.causal_conv import causal_conv, causal_conv_step
from .ops.embedding import embedding
from .ops.gated_norm import gated_rms_norm
from .ops.layer_norm import layer_norm


def per_run(parameter: Tensor, x: Tensor) -> Tensor:
    """View a parameter [R, *rest] so that it broadcasts against x [R, ..., *rest], in x's dtype."""
    ones = (1,) * (x.ndim - parameter.ndim)
    return parameter.to(x.dtype).view(parameter.shape[0], *ones, *parameter.shape[1:])


def normal(*shape: int, std: float) -> nn.Parameter:
    """A parameter of one run, [1, *shape], drawn from N(0, std^2)."""
    return nn.Parameter(torch.randn(1, *shape) * std)


def uniform(*shape: int, bound: float) -> nn.Parameter:
    """A parameter of one run, [1, *shape], drawn from U(-bound, bound)."""
    return nn.Parameter(torch.empty(1, *shape).uniform_(-bound, bound))


class Linear(nn.Module):
    """y = x W^T + b with one W, b a run: [R, ..., d_in] -> [R, ..., d_out].

    `std=None` initializes as `torch.nn.Linear`; a number draws the weights from N(0, std^2) and
    sets the bias to zero, as GPT-2 and Zoology do. Several widths as `d_out` join as many
    projections in one weight, rows after rows: an optimizer that knows matrices tells them apart.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int | Sequence[int],
        bias: bool = True,
        std: float | None = None,
    ):
        super().__init__()
        self.widths = [d_out] if isinstance(d_out, int) else list(d_out)
        d_out = sum(self.widths)
        bound = 1 / math.sqrt(d_in)
        make_weight = {"bound": bound} if std is None else {"std": std}
        self.weight = (uniform if std is None else normal)(d_out, d_in, **make_weight)
        self.bias = None
        if bias:
            self.bias = uniform(d_out, bound=0.0 if std is not None else bound)

    def draw(self, std: float) -> None:
        """Initialize again as with this `std`."""
        nn.init.normal_(self.weight, std=std)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.multiply(x)
        return y if self.bias is None else y + per_run(self.bias, y)

    def multiply(self, x: Tensor) -> Tensor:
        """x W^T, without the bias."""
        weight, x_rows = self.weight.to(x.dtype), x.flatten(1, -2)
        d_out, d_in = weight.shape[1:]
        if x.device.type == "cpu" and 1 in (d_out, d_in):
            # a product with a vector is rounded otherwise for one run than for several
            weight = F.pad(weight, (0, int(d_in == 1), 0, int(d_out == 1)))
            x_rows = F.pad(x_rows, (0, int(d_in == 1)))
        # not baddbmm: it first writes the bias out to the size of the product
        y = torch.bmm(x_rows, weight.mT)[..., :d_out]
        return y.reshape(*x.shape[:-1], d_out)


class Embedding(nn.Module):
    """One table a run: tokens [R, ...] -> vectors [R, ..., D], drawn from N(0, std^2)."""

    def __init__(self, num_embeddings: int, d_model: int, std: float = 0.02):
        super().__init__()
        self.weight = normal(num_embeddings, d_model, std=std)

    def forward(self, tokens: Tensor) -> Tensor:
        return embedding(tokens, self.weight)


class LayerNorm(nn.Module):
    """Layer normalization over the last axis with one scale and shift a run."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, d_model))
        self.bias = nn.Parameter(torch.zeros(1, d_model))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.weight, self.bias, self.eps)


class RMSNorm(nn.Module):
    """Root-mean-square normalization over the last axis with one scale a run."""

    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, d_model))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], eps=self.eps) * per_run(self.weight, x)


class GatedRMSNorm(nn.Module):
    """Root-mean-square normalization of y * SiLU(z), in each of G groups of channels by itself."""

    def __init__(self, channels: int, groups: int = 1, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels))
        self.groups, self.eps = groups, eps

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        return gated_rms_norm(y, z, self.weight, self.groups, self.eps)


class ShortConv(nn.Module):
    """Causal depthwise convolution along the length, then SiLU if asked for: [R, B, L, C] -> same.

    y_t = bias + sum_j weight[:, j] * x_{t - (T-1) + j}; the weight is laid out and initialized as
    that of `torch.nn.Conv1d(C, C, T, groups=C, padding=T-1)`, less its axis of size one.
    """

    def __init__(self, channels: int, taps: int = 4, bias: bool = True, silu: bool = False):
        super().__init__()
        bound = 1 / math.sqrt(taps)
        self.weight = uniform(channels, taps, bound=bound)  # [R, C, T]
        self.bias = uniform(channels, bound=bound) if bias else None
        self.silu = silu

    def forward(self, x: Tensor) -> Tensor:
        return causal_conv(x, self.weight, self.bias, self.silu)

    def step(self, x: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
        """One position: x [R, B, C] and the inputs before it, `window` [R, B, T - 1, C], -> y
        [R, B, C] and the next window."""
        return causal_conv_step(x, window, self.weight, self.bias, self.silu)

"""Layer normalization for CUDA, without a gradient.

Shape letters: R runs, T rows of a run, D width.

A program takes some rows of one run and moves every number once. torch's own kernel gives each
row a block of threads, be it of 64 numbers.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tiles import load, store

MAX_WIDTH = 4096
"""The widest row that fits in registers."""
NUMBERS = 2048
"""Of a program's rows, held by four warps."""


@triton.jit
def _layer_norm_kernel(
    x, weight, bias, y, w_run, w_feature, b_run, b_feature, eps, rows, splits,
    D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    run, split = (tl.program_id(0) // splits).to(tl.int64), tl.program_id(0) % splits
    row, d = split * ROWS + tl.arange(0, ROWS), tl.arange(0, BLOCK_D)
    in_d = d < D
    inside = (row < rows)[:, None] & in_d[None, :]
    at = (run * rows + row)[:, None] * D + d[None, :]
    x_ = load(x + at, inside)
    x_ = tl.where(inside, x_ - (tl.sum(x_, 1) / D)[:, None], 0.0)
    r = tl.rsqrt(tl.sum(x_ * x_, 1) / D + eps)
    w = load(weight + run * w_run + d * w_feature, in_d)
    b = load(bias + run * b_run + d * b_feature, in_d)
    store(y + at, x_ * r[:, None] * w[None, :] + b[None, :], inside)


def fits(dtype: torch.dtype, width: int) -> bool:
    """Whether the kernel takes this dtype and width."""
    return dtype in (torch.bfloat16, torch.float32) and width <= MAX_WIDTH


def layer_norm_triton(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The norm, as `layer_norm_reference` defines it: [R, ..., D] in x's dtype, without a gradient.

    x is bfloat16 or float32, weight and bias [R, D] are float32, and so are mean and variance.
    Raises ValueError for other shapes and dtypes.
    """
    R, D = x.shape[0], x.shape[-1]
    if {weight.shape, bias.shape} != {(R, D)}:
        shapes = [list(t.shape) for t in (x, weight, bias)]
        raise ValueError(f"x, weight and bias do not fit: {shapes}")
    if {weight.dtype, bias.dtype} != {torch.float32} or not fits(x.dtype, D):
        raise ValueError(f"no kernel for width {D}, {[x.dtype, weight.dtype, bias.dtype]}")
    x = x.contiguous()
    y, block = torch.empty_like(x), triton.next_power_of_2(D)
    rows, of_program = x[0].numel() // D, max(1, NUMBERS // block)
    splits = triton.cdiv(rows, of_program)
    with torch.cuda.device_of(x):
        _layer_norm_kernel[(R * splits,)](
            x, weight, bias, y, *weight.stride(), *bias.stride(), eps, rows, splits,
            D=D, BLOCK_D=block, ROWS=of_program, num_warps=4,
        )  # fmt: skip
    return y

"""What the Triton kernels of several operations share: rows of a matrix in and out, sizes that fit.

Shape letters: R runs, B batch, L length, D width, K head dim.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_LENGTH = 128
"""The longest sequence whose L x L matrices fit on chip."""
MAX_HEAD_DIM = 256


@triton.jit
def load_rows(
    pointer, stride, L: tl.constexpr, K: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_K: tl.constexpr
):
    """A matrix [L, K] whose rows begin `stride` numbers apart, with zeros around it."""
    t, c = tl.arange(0, BLOCK_L), tl.arange(0, BLOCK_K)
    inside = (t < L)[:, None] & (c < K)[None, :]
    return tl.load(pointer + t[:, None] * stride + c[None, :], mask=inside, other=0.0)


@triton.jit
def store_rows(
    pointer, value, stride,
    L: tl.constexpr, K: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    t, c = tl.arange(0, BLOCK_L), tl.arange(0, BLOCK_K)
    inside = (t < L)[:, None] & (c < K)[None, :]
    value = value.to(pointer.dtype.element_ty)
    tl.store(pointer + t[:, None] * stride + c[None, :], value, mask=inside)


@triton.jit
def load(pointer, mask):
    return tl.load(pointer, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def store(pointer, value, mask):
    tl.store(pointer, value.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def window(pointer, stride: tl.constexpr, first, mask, COUNT: tl.constexpr, length: tl.constexpr):
    """COUNT rows from position `first` on, zeros outside of the sequence."""
    rows: tl.tuple = ()
    for k in tl.static_range(COUNT):
        inside = mask & (first + k >= 0) & (first + k < length)
        row = tl.load(pointer + first * stride + k * stride, mask=inside, other=0.0)
        rows += (row.to(tl.float32),)
    return rows


@triton.jit
def positions_left(chunk, L: tl.constexpr, T: tl.constexpr):
    """How many positions are left from a chunk on; a constant where all chunks are full."""
    return T if L % T == 0 else L - chunk * T


def fits_on_chip(dtype: torch.dtype, L: int, *head_dims: int) -> bool:
    """Whether the matrices of one sequence fit on chip at this dtype, length and these head dims.

    Lengths up to 128 and head dims up to 256; in float32 lengths above 64 only with up to 64.
    """
    if dtype not in (torch.bfloat16, torch.float32) or L > MAX_LENGTH:
        return False
    wide = dtype == torch.float32 and L > 64
    return max(head_dims) <= (64 if wide else MAX_HEAD_DIM)


def padded(size: int) -> int:
    """The power of two, at least 16, that a product on the tensor cores takes in its place."""
    return max(16, triton.next_power_of_2(size))


def flat_rows(x: Tensor) -> Tensor:
    """[R B L, D] with neighbouring features, without a copy if the rows are evenly spaced."""
    x = x.flatten(0, 2)
    return x if x.stride(1) == 1 else x.contiguous()

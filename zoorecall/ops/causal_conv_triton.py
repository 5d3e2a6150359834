"""Short causal depthwise convolution for CUDA, with bias and SiLU in the same pass.

    y_t = act(bias + sum_j weight[:, j] * x_{t - (T-1) + j}),    act the identity or SiLU

Shape letters: R runs, B batch, L length, C channels, T taps.

So little is computed that only traffic counts: x is read and y written once, and the backward, which
makes the sums again for the slope of SiLU, reads x and dy and writes dx. A program owns some
channels of one run and goes over tiles, each a few neighbouring positions of one sequence. It loads
all rows of a tile at once, those that the taps reach beyond it included (they are in the cache, as
its last tile or its next), and computes in registers. Gradients of weight and bias are added up
along a program's tiles and written as one partial sum each: the same input gives the same bits, and
no run's depend on the others.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_TAPS = 8
SPAN = 16
"""Most positions of a tile: more of them reload fewer rows and need more registers."""
TILES = 16
"""Tiles of a program: more of them make fewer partial sums and fewer programs."""
CHANNELS = 128
"""Most channels of a program, two a thread: 4 bytes of bfloat16, which is what rows of any even
stride are aligned to, and little enough for the backward's registers."""


@triton.jit
def _rows(pointer, stride, first, in_c, COUNT: tl.constexpr, length: tl.constexpr):
    """A tuple of COUNT rows from position `first` on, zeros outside of the sequence."""
    pointer += first * stride
    rows = ()
    for k in tl.static_range(COUNT):
        inside = in_c & (first + k >= 0) & (first + k < length)
        rows += (tl.load(pointer + k * stride, mask=inside, other=0.0).to(tl.float32),)
    return rows


@triton.jit
def _store_row(pointer, value, t, in_c, length: tl.constexpr):
    tl.store(pointer, value.to(pointer.dtype.element_ty), mask=in_c & (t < length))


@triton.jit
def _parameters(weight, bias, strides, c, in_c, T: tl.constexpr):
    """A tuple of the taps, and the bias."""
    taps = ()
    for j in tl.static_range(T):
        taps += (tl.load(weight + c * strides[0] + j * strides[1], mask=in_c, other=0.0),)
    if bias is None:
        return taps, tl.zeros(c.shape, tl.float32)
    return taps, tl.load(bias + c * strides[2], mask=in_c, other=0.0)

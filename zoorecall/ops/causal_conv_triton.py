"""Short causal depthwise convolution for CUDA, with its bias and SiLU in the same pass.

    y_t = act(bias + sum_j weight[:, j] * x_{t - (T-1) + j}),    act the identity or SiLU
Shape letters: R runs, B batch, L length, C channels, T taps.

The operation does little with each number, so what counts is to move each one once. A program
owns some channels of one run and goes over tiles, each a few neighbouring positions of a sequence;
it reads all rows of a tile at once, their neighbours included, which are still in the cache, and
keeps them in registers. The backward makes the pre-activation again rather than store it. The
gradients of weight and bias are summed along a program's tiles and written as one partial sum a
program, without atomics: the same input gives the same bits, and those of a run do not depend on
the runs beside it.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_TAPS = 8
SPAN = 16
"""Most positions of a tile. Its rows fit a thread's registers; the more there are, the fewer are
read twice."""
TILES = 16
"""Tiles of a program: more of them make fewer partial sums, fewer make more programs."""
CHANNELS = 128
"""Most channels of a program, two a thread: 4 bytes of bfloat16, the alignment that rows of even
size have wherever they were sliced from."""


@triton.jit
def _rows(
    pointer, stride: tl.constexpr, start, in_c, COUNT: tl.constexpr, length: tl.constexpr
):
    """COUNT rows from position `start` on, zeros outside of the sequence."""
    pointer += start * stride
    rows = ()
    for k in tl.static_range(COUNT):
        mask = in_c & (start + k >= 0) & (start + k < length)
        rows += (tl.load(pointer + k * stride, mask=mask, other=0.0).to(tl.float32),)
    return rows


@triton.jit
def _parameters(weight, bias, strides, run, c, in_c, TAPS: tl.constexpr):
    """The taps, a tuple, and the bias of channels c, all float32."""
    weight += run * strides[0] + c * strides[1]
    taps = ()
    for j in tl.static_range(TAPS):
        taps += (tl.load(weight + j * strides[2], mask=in_c, other=0.0),)
    shift = tl.zeros(c.shape, tl.float32)
    if bias is not None:
        shift = tl.load(bias + run * strides[3] + c * strides[4], mask=in_c, other=0.0)
    return taps, shift


@triton.jit
def _forward_kernel(
    x, weight, bias, y, x_strides, strides,
    batch, splits, width: tl.constexpr, length: tl.constexpr, TAPS: tl.constexpr,
    SILU: tl.constexpr, SPAN: tl.constexpr, TILES: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    pass

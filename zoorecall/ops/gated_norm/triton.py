"""Root-mean-square normalization of y * SiLU(z) for CUDA.

    out = g r w,    g = y * SiLU(z),    r = 1 / sqrt(mean(g^2) + eps)

Shape letters: R runs, B batch, L length, E channels, G groups of channels with a mean of their own.

A program takes some rows (positions) of one run and one group, a few at a time, so that forward and
backward move every number once; the backward recomputes g and r. z is read as a slice of the wider
tensor that the projection wrote. The gradient of the weight is summed over a program's rows; these
partial sums are added afterwards, without atomics, so the same input gives the same bits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tiles import flat_rows, load, store

MAX_WIDTH = 4096
"""The widest group of channels that fits in registers."""
NUMBERS = 2048
"""Numbers of a tile of each tensor, held by four warps: 16 a thread, two loads of 16 bytes."""
TILES = 8
"""Tiles of a program. With more tiles there are fewer partial sums, but also fewer programs."""


@triton.jit
def _place(splits, G: tl.constexpr, W: tl.constexpr, BLOCK_W: tl.constexpr):
    """A program's run, its number among those that share the run's rows, and its channels."""
    owner = tl.program_id(0) // G
    c = tl.arange(0, BLOCK_W)
    return (owner // splits).to(tl.int64), owner % splits, tl.program_id(0) % G * W + c, c < W


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp2(x * -1.4426950408889634))


@triton.jit
def _gated_norm_forward_kernel(
    y, z, weight, out, w_run, w_channel, eps, rows, splits, z_row: tl.constexpr,
    G: tl.constexpr, W: tl.constexpr, BLOCK_W: tl.constexpr, ROWS: tl.constexpr,
    TILES: tl.constexpr,
):  # fmt: skip
    run, split, c, in_c = _place(splits, G, W, BLOCK_W)
    w = load(weight + run * w_run + c * w_channel, in_c)
    for i in range(TILES):
        row = (split * TILES + i) * ROWS + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & in_c[None, :]
        at = (run * rows + row)[:, None]
        z_ = load(z + at * z_row + c[None, :], inside)
        g = load(y + at * (G * W) + c[None, :], inside) * (z_ * _sigmoid(z_))
        r = tl.rsqrt(tl.sum(g * g, 1) / W + eps)
        store(out + at * (G * W) + c[None, :], g * r[:, None] * w[None, :], inside)


@triton.jit
def _gated_norm_backward_kernel(
    y, z, weight, dout, dy, dz, sums, w_run, w_channel, eps, rows, splits, z_row: tl.constexpr,
    G: tl.constexpr, W: tl.constexpr, BLOCK_W: tl.constexpr, ROWS: tl.constexpr,
    TILES: tl.constexpr,
):  # fmt: skip
    run, split, c, in_c = _place(splits, G, W, BLOCK_W)
    w = load(weight + run * w_run + c * w_channel, in_c)
    dw = tl.zeros([ROWS, BLOCK_W], tl.float32)
    for i in range(TILES):
        row = (split * TILES + i) * ROWS + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & in_c[None, :]
        at = (run * rows + row)[:, None]
        z_ = load(z + at * z_row + c[None, :], inside)
        y_ = load(y + at * (G * W) + c[None, :], inside)
        dout_ = load(dout + at * (G * W) + c[None, :], inside)
        s = _sigmoid(z_)
        gate = z_ * s
        g = y_ * gate
        r = tl.rsqrt(tl.sum(g * g, 1) / W + eps)[:, None]
        dw += dout_ * g * r
        to_normed = dout_ * w[None, :]
        inner = (tl.sum(to_normed * g, 1) / W)[:, None]
        dg = r * to_normed - g * (r * r * r * inner)
        store(dy + at * (G * W) + c[None, :], dg * gate, inside)
        store(dz + at * (G * W) + c[None, :], dg * y_ * (s + gate * (1.0 - s)), inside)
    tl.store(sums + (run * splits + split) * (G * W) + c, tl.sum(dw, 0), mask=in_c)


def _sizes(y: Tensor, num_groups: int) -> dict[str, int]:
    width = y.shape[3] // num_groups
    block = triton.next_power_of_2(width)
    rows = max(1, NUMBERS // block)
    return {"G": num_groups, "W": width, "BLOCK_W": block, "ROWS": rows, "TILES": TILES}


def _splits(y: Tensor, num_groups: int) -> int:
    """Programs that share the rows of a run and group."""
    return triton.cdiv(y.shape[1] * y.shape[2], _sizes(y, num_groups)["ROWS"] * TILES)


def _launch(
    kernel, y: Tensor, z: Tensor, weight: Tensor, others: tuple[Tensor, ...],
    num_groups: int, eps: float,
) -> None:  # fmt: skip
    (R, B, L, _), splits, z = y.shape, _splits(y, num_groups), flat_rows(z)
    with torch.cuda.device_of(y):
        kernel[(R * splits * num_groups,)](
            y.contiguous(), z, weight, *others, *weight.stride(), eps, B * L, splits, z.stride(0),
            **_sizes(y, num_groups), num_warps=4,
        )  # fmt: skip


@torch.library.custom_op("zoorecall::gated_rms_norm", mutates_args=())
def _forward(y: Tensor, z: Tensor, weight: Tensor, num_groups: int, eps: float) -> Tensor:
    out = y.new_empty(y.shape)
    _launch(_gated_norm_forward_kernel, y, z, weight, (out,), num_groups, eps)
    return out


@_forward.register_fake
def _(y, z, weight, num_groups, eps):
    return y.new_empty(y.shape)


@torch.library.custom_op("zoorecall::gated_rms_norm_backward", mutates_args=())
def _backward(
    y: Tensor, z: Tensor, weight: Tensor, dout: Tensor, num_groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    outputs = _gradient_outputs(y, num_groups)
    _launch(
        _gated_norm_backward_kernel, y, z, weight, (dout.contiguous(), *outputs), num_groups, eps
    )
    return outputs


def _gradient_outputs(y: Tensor, num_groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of y and z, and partial sums [R, splits, E] of the weight's."""
    sums = y.new_empty(y.shape[0], _splits(y, num_groups), y.shape[3], dtype=torch.float32)
    return y.new_empty(y.shape), y.new_empty(y.shape), sums


@_backward.register_fake
def _(y, z, weight, dout, num_groups, eps):
    return _gradient_outputs(y, num_groups)


def _save(ctx, inputs, output):
    y, z, weight, ctx.num_groups, ctx.eps = inputs
    ctx.save_for_backward(y, z, weight)


def _gradients(ctx, dout):
    dy, dz, sums = _backward(*ctx.saved_tensors, dout, ctx.num_groups, ctx.eps)
    return dy, dz, sums.sum(1), None, None


_forward.register_autograd(_gradients, setup_context=_save)


def fits(dtype: torch.dtype, channels: int, num_groups: int) -> bool:
    """Whether the kernel takes this dtype and groups of so many channels in all."""
    return dtype in (torch.bfloat16, torch.float32) and channels <= MAX_WIDTH * num_groups


def gated_rms_norm_triton(
    y: Tensor, z: Tensor, weight: Tensor, num_groups: int, eps: float = 1e-5
) -> Tensor:
    """The gated norm, as `gated_norm.gated_rms_norm`: [R, B, L, E] in y's dtype.

    y and z [R, B, L, E] are both bfloat16 or both float32, weight [R, E] is float32 and so are the
    sums. z may be sliced from a wider tensor. Raises ValueError for other shapes and dtypes and
    where `fits` is False.
    """
    (R, _, _, E) = y.shape
    if z.shape != y.shape or weight.shape != (R, E) or E % num_groups:
        shapes = [list(x.shape) for x in (y, z, weight)]
        raise ValueError(f"y, z, weight and {num_groups} groups do not fit: {shapes}")
    if z.dtype != y.dtype or weight.dtype != torch.float32 or not fits(y.dtype, E, num_groups):
        dtypes = [x.dtype for x in (y, z, weight)]
        raise ValueError(f"no kernel for {E // num_groups} channels a group, {dtypes}")
    return _forward(y, z, weight, num_groups, eps)

"""Mamba2's SSD and the skip beside it for CUDA; the kernels here are for sequences of one chunk.

    y = (S + D I) x,    S_ts = exp(sum_{s<i<=t} dt_i A) dt_s C_t . B_s for s <= t, else 0

Dao and Gu 2024 (arXiv 2405.21060), section 6. Shape letters: R runs, B batch, L length, H heads,
P head dim, G groups of heads that share B and C, N state. Longer ones: `ssd_chunks_triton`.

A program owns one group of heads of one sequence. C B^T is computed once for all its heads, and the
heads' gradients of it are summed before they are multiplied by B and C. The backward recomputes S,
so only the inputs are kept. A program reads x, B and C side by side, as the convolution wrote them,
and writes their gradients in the same layout. No two programs write to the same place, so the same
input gives the same bits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tiles import fits_on_chip, flat_rows, load_rows, padded, store_rows
from . import triton_chunks as ssd_chunks_triton
from .triton_chunks import MAX_SIZE


@triton.jit
def _decay(steps, rate, BLOCK_L: tl.constexpr, TRANSPOSED: tl.constexpr):
    """[t, s]: exp(rate * the sum of the steps s < i <= t), zero for s > t; or that as [s, t]."""
    log2_e: tl.constexpr = 1.4426950408889634
    t = tl.arange(0, BLOCK_L)
    total = tl.cumsum(steps, 0) * (rate * log2_e)
    exponent = total[:, None] - total[None, :]
    # masked before the exponential, which of a later position would be of a large number
    if TRANSPOSED:
        return tl.exp2(tl.where(t[None, :] >= t[:, None], -exponent, float("-inf")))
    return tl.exp2(tl.where(t[:, None] >= t[None, :], exponent, float("-inf")))


@triton.jit
def _ssd_forward_kernel(
    xBC, dt, A, D, y, D_run, D_head, batch, row: tl.constexpr,
    H: tl.constexpr, G: tl.constexpr, L: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    BLOCK_L: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(0) % G
    sequence = (tl.program_id(0) // G).to(tl.int64)
    run, start = sequence // batch, sequence * L  # its run and its first row
    t = tl.arange(0, BLOCK_L)
    B = load_rows(xBC + start * row + H * P + group * N, row, L, N, BLOCK_L, BLOCK_N)
    C = load_rows(xBC + start * row + H * P + (G + group) * N, row, L, N, BLOCK_L, BLOCK_N)
    CB = tl.dot(C, tl.trans(B), input_precision=PRECISION)
    for j in range(H // G):
        head = group * (H // G) + j
        rate, skip = tl.load(A + run * H + head), tl.load(D + run * D_run + head * D_head)
        steps = tl.load(dt + start * H + head + t * H, mask=t < L, other=0.0).to(tl.float32)
        x = load_rows(xBC + start * row + head * P, row, L, P, BLOCK_L, BLOCK_P)
        S = CB * _decay(steps, rate, BLOCK_L, False) * steps[None, :]
        S += tl.where(t[:, None] == t[None, :], skip, 0.0)
        out = tl.dot(S.to(x.dtype), x, input_precision=PRECISION)
        store_rows(y + start * H * P + head * P, out, H * P, L, P, BLOCK_L, BLOCK_P)


@triton.jit
def _ssd_backward_kernel(
    xBC, dt, A, D, dy, dxBC, ddt, sums, D_run, D_head, batch, row: tl.constexpr,
    H: tl.constexpr, G: tl.constexpr, L: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    BLOCK_L: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(0) % G
    sequence = (tl.program_id(0) // G).to(tl.int64)
    run, start = sequence // batch, sequence * L
    width: tl.constexpr = H * P + 2 * G * N
    t = tl.arange(0, BLOCK_L)
    to_B, to_C = H * P + group * N, H * P + (G + group) * N
    B = load_rows(xBC + start * row + to_B, row, L, N, BLOCK_L, BLOCK_N)
    C = load_rows(xBC + start * row + to_C, row, L, N, BLOCK_L, BLOCK_N)
    # every matrix is transposed, [s, t]: a left factor may stay in registers, and dt_s is of a row
    BC = tl.dot(B, tl.trans(C), input_precision=PRECISION)
    dBC = tl.zeros([BLOCK_L, BLOCK_L], tl.float32)
    diagonal = t[:, None] == t[None, :]
    for j in range(H // G):
        head = group * (H // G) + j
        rate, skip = tl.load(A + run * H + head), tl.load(D + run * D_run + head * D_head)
        steps = tl.load(dt + start * H + head + t * H, mask=t < L, other=0.0).to(tl.float32)
        x = load_rows(xBC + start * row + head * P, row, L, P, BLOCK_L, BLOCK_P)
        dy_h = load_rows(dy + start * H * P + head * P, H * P, L, P, BLOCK_L, BLOCK_P)
        decay = _decay(steps, rate, BLOCK_L, True)

        dS = tl.dot(x, tl.trans(dy_h), input_precision=PRECISION)
        through_skip = tl.sum(tl.sum(tl.where(diagonal, dS, 0.0), 1), 0)
        dS *= decay
        dBC += dS * steps[:, None]
        dS *= BC
        to_step = tl.sum(dS, 1)
        # the decay of position i is a factor of every S_ts with s < i <= t; those with s = t would
        # cancel in the difference, but for their rounding errors
        dS = tl.where(diagonal, 0.0, dS)
        later = tl.sum(dS * steps[:, None], 0) - tl.sum(dS, 1) * steps
        to_exponent = tl.cumsum(later, 0, reverse=True)
        to_step += rate * to_exponent
        tl.store(ddt + start * H + head + t * H, to_step.to(ddt.dtype.element_ty), mask=t < L)
        tl.store(sums + sequence * 2 * H + head, tl.sum(to_exponent * steps, 0))
        tl.store(sums + sequence * 2 * H + H + head, through_skip)

        # last, because the registers are needed until here
        S = BC * decay * steps[:, None] + tl.where(diagonal, skip, 0.0)
        to_x = tl.dot(S.to(x.dtype), dy_h, input_precision=PRECISION)
        store_rows(dxBC + start * width + head * P, to_x, width, L, P, BLOCK_L, BLOCK_P)
    dBC = dBC.to(B.dtype)
    dB = tl.dot(dBC, C, input_precision=PRECISION)
    store_rows(dxBC + start * width + to_B, dB, width, L, N, BLOCK_L, BLOCK_N)
    dC = tl.dot(tl.trans(dBC), B, input_precision=PRECISION)
    store_rows(dxBC + start * width + to_C, dC, width, L, N, BLOCK_L, BLOCK_N)


def _launch(
    kernel, xBC: Tensor, dt: Tensor, A: Tensor, D: Tensor, others: tuple[Tensor, ...],
    G: int, N: int, allow_tf32: bool, maxnreg: int | None = None,
) -> None:  # fmt: skip
    (R, batch, L, width), H = xBC.shape, A.shape[1]
    sizes = {"H": H, "G": G, "L": L, "P": (width - 2 * G * N) // H, "N": N}
    # at least 64: see delta_rule_triton
    sizes |= {f"BLOCK_{name}": max(64, padded(sizes[name])) for name in "PN"}
    sizes["BLOCK_L"] = padded(L)
    xBC = flat_rows(xBC)
    with torch.cuda.device_of(xBC):
        kernel[(R * batch * G,)](
            xBC, dt.contiguous(), A.contiguous(), D, *others, *D.stride(), batch, xBC.stride(0),
            **sizes,
            PRECISION="tf32" if allow_tf32 else "tf32x3",  # of float32: see attention_triton
            num_warps=padded(L) // 16,
            num_stages=1,  # with more, tiles of several heads would have to fit at once
            maxnreg=maxnreg,
        )  # fmt: skip


@torch.library.custom_op("zoorecall::ssd", mutates_args=())
def _forward(
    xBC: Tensor, dt: Tensor, A: Tensor, D: Tensor,
    num_groups: int, d_state: int, allow_tf32: bool, one_chunk: bool,
) -> Tensor:  # fmt: skip
    y = xBC.new_empty(*xBC.shape[:3], xBC.shape[3] - 2 * num_groups * d_state)
    if one_chunk:
        _launch(_ssd_forward_kernel, xBC, dt, A, D, (y,), num_groups, d_state, allow_tf32)
    else:
        ssd_chunks_triton.forward(xBC, dt, A, D, y, num_groups, d_state, allow_tf32)
    return y


@_forward.register_fake
def _(xBC, dt, A, D, num_groups, d_state, allow_tf32, one_chunk):
    return xBC.new_empty(*xBC.shape[:3], xBC.shape[3] - 2 * num_groups * d_state)


@torch.library.custom_op("zoorecall::ssd_backward", mutates_args=())
def _backward(
    xBC: Tensor, dt: Tensor, A: Tensor, D: Tensor, dy: Tensor,
    num_groups: int, d_state: int, allow_tf32: bool, one_chunk: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    outputs, sizes = _gradient_outputs(xBC, dt, one_chunk), (num_groups, d_state, allow_tf32)
    if one_chunk:
        # 168 registers, which are enough, let three programs of four warps share a multiprocessor;
        # left alone, the compiler takes 250
        limit = 168 if xBC.dtype == torch.bfloat16 and padded(xBC.shape[2]) == 64 else None
        others = (dy.contiguous(), *outputs)
        _launch(_ssd_backward_kernel, xBC, dt, A, D, others, *sizes, limit)
    else:
        ssd_chunks_triton.backward(xBC, dt, A, D, dy, outputs, *sizes)
    return outputs


def _gradient_outputs(xBC: Tensor, dt: Tensor, one_chunk: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of xBC and dt, and parts of those of A and D: [R, B, 1, 2, H] or, for A, D and
    A again, [R, B, K, 3, H]."""
    R, batch, L, H = dt.shape
    parts = (1, 2) if one_chunk else (triton.cdiv(L, ssd_chunks_triton.CHUNK), 3)
    sums = dt.new_empty(R, batch, *parts, H, dtype=torch.float32)
    return xBC.new_empty(xBC.shape), dt.new_empty(dt.shape), sums


@_backward.register_fake
def _(xBC, dt, A, D, dy, num_groups, d_state, allow_tf32, one_chunk):
    return _gradient_outputs(xBC, dt, one_chunk)


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:4])
    ctx.options = inputs[4:]


def _gradients(ctx, dy):
    dxBC, ddt, sums = _backward(*ctx.saved_tensors, dy, *ctx.options)
    dA, dD, *more = sums.sum((1, 2)).unbind(1)
    return dxBC, ddt, sum(more, dA), dD, None, None, None, None


_forward.register_autograd(_gradients, setup_context=_save)


def is_one_chunk(dtype: torch.dtype, L: int, P: int, N: int) -> bool:
    """Whether the kernels here take this dtype, length, head dim and state."""
    return max(P, N) <= MAX_SIZE and fits_on_chip(dtype, L, P, N)


def fits(dtype: torch.dtype, L: int, P: int, N: int) -> bool:
    """Whether the kernels take this dtype, length, head dim and state, in one chunk or several."""
    return is_one_chunk(dtype, L, P, N) or ssd_chunks_triton.fits(dtype, P, N)


def ssd_triton(
    xBC: Tensor, dt: Tensor, A: Tensor, D: Tensor, num_groups: int, d_state: int,
    allow_tf32: bool = False,
) -> Tensor:  # fmt: skip
    """SSD and skip, as `ssd.fast.ssd_with_skip`: y [R, B, L, H P] in xBC's dtype.

    xBC [R, B, L, H P + 2 G N] is bfloat16 or float32, dt [R, B, L, H] (positive), A (negative) and
    D [R, H] are float32, and so are sums and decays. `allow_tf32` multiplies float32 with 10 bits
    of mantissa. Raises ValueError for other shapes and dtypes and where `fits` is False.
    """
    (R, batch, L, width), H = xBC.shape, A.shape[-1]
    channels = width - 2 * num_groups * d_state
    shapes = [(R, batch, L, H), (R, H), (R, H)]
    if [x.shape for x in (dt, A, D)] != shapes or channels < H or channels % H or H % num_groups:
        found = [list(x.shape) for x in (xBC, dt, A, D)]
        raise ValueError(f"not {num_groups} groups of state {d_state} and their heads: {found}")
    if any(x.dtype != torch.float32 for x in (dt, A, D)):
        raise ValueError("dt, A and D must be float32")
    if not fits(xBC.dtype, L, channels // H, d_state):
        sizes = f"length {L}, head dim {channels // H}, state {d_state}, {xBC.dtype}"
        raise ValueError(f"no kernel for {sizes}: use ops.ssd")
    one_chunk = is_one_chunk(xBC.dtype, L, channels // H, d_state)
    return _forward(xBC, dt, A, D, num_groups, d_state, allow_tf32, one_chunk)

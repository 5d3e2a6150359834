"""Mamba2's SSD and the skip beside it for CUDA, for sequences of several chunks.

    y_t = sum_{s <= t} S_ts x_s + D x_t + e_t h^T C_t,    h' = e_T h + sum_s w_s B_s x_s^T

with h and h' the states before and after a chunk, S as in `ssd_triton`, e_t the decay from the
chunk's start to t, and w_s that from s to its end, times dt_s. Dao and Gu 2024 (arXiv 2405.21060),
section 6. Shape letters: R runs, B batch, L length, H heads, P head dim, G groups of heads that
share B and C, N state, K chunks of T positions.

Forward, a program owns one head of one sequence and walks its chunks with the state, float32, in
registers. The programs that share B and C run side by side and find them in the cache.

In the backward, programs of the same kind recompute the states between chunks and then, from the
last chunk on, the gradients of these states: 2 N P numbers a chunk and head, in x's dtype as a
product takes them. With both in memory the chunks are independent: one program owns a chunk and a
group of heads, and sums the gradients of C B^T, B and C over the heads in registers. The
alternative, a program a head that walks back with the gradient of the state in registers, would
write 2 T N numbers of gradients of B and C beside the N P of the states, for a further pass to sum:
with T = P half as much again for any number of heads, and rounded once a head.

As a decay has a gradient through all that passes it, from before or within the chunk to within or
after it, each of these parts is a sum of its own: only the one within is a difference of sums. No
two programs write to the same place: the same input gives the same bits.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tiles import flat_rows, load_rows, padded, positions_left, store_rows

CHUNK = 64
"""Positions of a chunk, T."""
MAX_SIZE = 128
"""The largest head dim and state."""


@triton.jit
def _load_steps(pointer, stride, length, T: tl.constexpr):
    """dt of a chunk, zero beyond the end: a step that leaves the state as it is."""
    t = tl.arange(0, T)
    return tl.load(pointer + t * stride, mask=t < length, other=0.0)


@triton.jit
def _decays(steps, rate, T: tl.constexpr):
    """log2 of the decays from the start [T]; these decays, those to the end, and that of all."""
    log2_e: tl.constexpr = 1.4426950408889634
    t = tl.arange(0, T)
    total = tl.cumsum(steps, 0) * (rate * log2_e)
    across = tl.sum(tl.where(t == T - 1, total, 0.0), 0)
    return total, tl.exp2(total), tl.exp2(across - total), tl.exp2(across)


@triton.jit
def _square(total, T: tl.constexpr):
    """[s, t]: the decay from s to t, zero for s > t."""
    t = tl.arange(0, T)
    # masked before the exponential: see ssd_triton
    exponent = total[None, :] - total[:, None]
    return tl.exp2(tl.where(t[None, :] >= t[:, None], exponent, float("-inf")))


@triton.jit
def _ssd_chunks_forward_kernel(
    xBC, dt, A, D, y, D_run, D_head, batch, row: tl.constexpr,
    H: tl.constexpr, G: tl.constexpr, L: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    T: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0) % H
    group = head // (H // G)
    sequence = (tl.program_id(0) // H).to(tl.int64)
    run = sequence // batch
    t = tl.arange(0, T)
    rate, skip = tl.load(A + run * H + head), tl.load(D + run * D_run + head * D_head)
    h = tl.zeros([BLOCK_N, BLOCK_P], tl.float32)
    for chunk in range(tl.cdiv(L, T)):
        start, length = sequence * L + chunk * T, positions_left(chunk, L, T)
        B = load_rows(xBC + start * row + H * P + group * N, row, length, N, T, BLOCK_N)
        C = load_rows(xBC + start * row + H * P + (G + group) * N, row, length, N, T, BLOCK_N)
        x = load_rows(xBC + start * row + head * P, row, length, P, T, BLOCK_P)
        steps = _load_steps(dt + start * H + head, H, length, T)
        total, since_start, to_end, across = _decays(steps, rate, T)

        exponent = total[:, None] - total[None, :]
        decay = tl.exp2(tl.where(t[:, None] >= t[None, :], exponent, float("-inf")))
        S = tl.dot(C, tl.trans(B), input_precision=PRECISION) * decay * steps[None, :]
        # not plus a matrix of skips, which would stay in registers from chunk to chunk
        S = tl.where(t[:, None] == t[None, :], S + skip, S).to(x.dtype)
        out = tl.dot(C, h.to(x.dtype), input_precision=PRECISION) * since_start[:, None]
        out = tl.dot(S, x, out, input_precision=PRECISION)
        store_rows(y + start * H * P + head * P, out, H * P, length, P, T, BLOCK_P)

        written = (x * (to_end * steps)[:, None]).to(x.dtype)
        h = tl.dot(tl.trans(B), written, h * across, input_precision=PRECISION)


@triton.jit
def _ssd_states_kernel(
    xBC, values, dt, A, states, batch, row: tl.constexpr, value_row: tl.constexpr,
    H: tl.constexpr, G: tl.constexpr, L: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    T: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
    REVERSED: tl.constexpr,
):  # fmt: skip
    """The states between chunks of values x; `REVERSED`, their gradients, of values dy."""
    head = tl.program_id(0) % H
    sequence = (tl.program_id(0) // H).to(tl.int64)
    between: tl.constexpr = (L - 1) // T  # chunks
    rate = tl.load(A + sequence // batch * H + head)
    to_matrix = H * P + (head // (H // G) + REVERSED * G) * N  # B or C
    state = tl.zeros([BLOCK_N, BLOCK_P], tl.float32)
    for step in range(between):
        chunk = between - step if REVERSED else step
        start, length = sequence * L + chunk * T, positions_left(chunk, L, T)
        matrix = load_rows(xBC + start * row + to_matrix, row, length, N, T, BLOCK_N)
        value = load_rows(values + start * value_row + head * P, value_row, length, P, T, BLOCK_P)
        steps = _load_steps(dt + start * H + head, H, length, T)
        _, since_start, to_end, across = _decays(steps, rate, T)
        value = (value * (since_start if REVERSED else to_end * steps)[:, None]).to(value.dtype)
        state = tl.dot(tl.trans(matrix), value, state * across, input_precision=PRECISION)
        before = chunk - 1 if REVERSED else chunk
        to_state = ((sequence * H + head) * between + before) * N * P
        store_rows(states + to_state, state, P, N, P, BLOCK_N, BLOCK_P)


@triton.jit
def _ssd_chunks_backward_kernel(
    xBC, dt, A, D, dy, states, dstates, dxBC, ddt, sums, D_run, D_head, batch, row: tl.constexpr,
    H: tl.constexpr, G: tl.constexpr, L: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    T: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    last: tl.constexpr = (L - 1) // T
    chunk = tl.program_id(0) % (last + 1)
    group = tl.program_id(0) // (last + 1) % G
    sequence = (tl.program_id(0) // ((last + 1) * G)).to(tl.int64)
    run, start, length = sequence // batch, sequence * L + chunk * T, positions_left(chunk, L, T)
    width: tl.constexpr = H * P + 2 * G * N
    sums += (sequence * (last + 1) + chunk) * 3 * H
    t = tl.arange(0, T)
    to_B, to_C = H * P + group * N, H * P + (G + group) * N
    B = load_rows(xBC + start * row + to_B, row, length, N, T, BLOCK_N)
    C = load_rows(xBC + start * row + to_C, row, length, N, T, BLOCK_N)
    # square matrices are transposed, [s, t]: see ssd_triton
    BC = tl.dot(B, tl.trans(C), input_precision=PRECISION)
    dBC = tl.zeros([T, T], tl.float32)
    dC = tl.zeros([T, BLOCK_N], tl.float32)
    diagonal = t[:, None] == t[None, :]
    for j in range(H // G):
        head = group * (H // G) + j
        rate = tl.load(A + run * H + head)
        steps = _load_steps(dt + start * H + head, H, length, T)
        x = load_rows(xBC + start * row + head * P, row, length, P, T, BLOCK_P)
        dy_h = load_rows(dy + start * H * P + head * P, H * P, length, P, T, BLOCK_P)
        total, since_start, to_end, across = _decays(steps, rate, T)

        # what stays within the chunk, as in ssd_triton
        dS = tl.dot(x, tl.trans(dy_h), input_precision=PRECISION)
        tl.store(sums + H + head, tl.sum(tl.sum(tl.where(diagonal, dS, 0.0), 1), 0))
        dS *= _square(total, T)
        dBC += dS * steps[:, None]
        dS *= BC
        to_step = tl.sum(dS, 1)
        dS = tl.where(diagonal, 0.0, dS)
        later = tl.sum(dS * steps[:, None], 0) - tl.sum(dS, 1) * steps
        if chunk > 0:  # what comes from before it
            state = ((sequence * H + head) * last + chunk - 1) * N * P
            h = load_rows(states + state, P, N, P, BLOCK_N, BLOCK_P)
            read = tl.dot(C, h, input_precision=PRECISION)
            later += tl.sum(read * dy_h, 1) * since_start
            to_read = (dy_h * since_start[:, None]).to(dy_h.dtype)
            dC = tl.dot(to_read, tl.trans(h), dC, input_precision=PRECISION)
        to_exponent = tl.cumsum(later, 0, reverse=True)
        to_step += rate * to_exponent
        tl.store(ddt + start * H + head + t * H, to_step, mask=t < length)
        tl.store(sums + head, tl.sum(to_exponent * steps, 0))
    dBC = dBC.to(B.dtype)
    dC = tl.dot(tl.trans(dBC), B, dC, input_precision=PRECISION)
    store_rows(dxBC + start * width + to_C, dC, width, length, N, T, BLOCK_N)

    # a second time through the heads, because the registers do not hold more at once
    tl.debug_barrier()  # other threads may have stored the ddt that is loaded below
    dB = tl.dot(dBC, C, input_precision=PRECISION)
    for j in range(H // G):
        head = group * (H // G) + j
        rate, skip = tl.load(A + run * H + head), tl.load(D + run * D_run + head * D_head)
        steps = _load_steps(dt + start * H + head, H, length, T)
        dy_h = load_rows(dy + start * H * P + head * P, H * P, length, P, T, BLOCK_P)
        total, _, to_end, across = _decays(steps, rate, T)
        S = BC * _square(total, T) * steps[:, None] + tl.where(diagonal, skip, 0.0)
        to_x = tl.dot(S.to(dy_h.dtype), dy_h, input_precision=PRECISION)
        to_exponent = tl.zeros([T], tl.float32)
        if chunk < last:  # what goes on after it
            state = ((sequence * H + head) * last + chunk) * N * P
            dh = load_rows(dstates + state, P, N, P, BLOCK_N, BLOCK_P)
            x = load_rows(xBC + start * row + head * P, row, length, P, T, BLOCK_P)
            to_written = tl.dot(B, dh, input_precision=PRECISION)
            to_x += to_written * (to_end * steps)[:, None]
            to_step = tl.sum(to_written * x, 1) * to_end
            written = (x * (to_end * steps)[:, None]).to(x.dtype)
            dB = tl.dot(written, tl.trans(dh), dB, input_precision=PRECISION)
            to_exponent = tl.cumsum(to_step * steps, 0) - to_step * steps
            if chunk > 0:
                h = load_rows(states + state - N * P, P, N, P, BLOCK_N, BLOCK_P)
                through = h.to(tl.float32) * dh.to(tl.float32)
                to_exponent += across * tl.sum(tl.sum(through, 1), 0)
            ddt_h = ddt + start * H + head + t * H
            to_step += _load_steps(ddt + start * H + head, H, length, T) + rate * to_exponent
            tl.store(ddt_h, to_step, mask=t < length)
        tl.store(sums + 2 * H + head, tl.sum(to_exponent * steps, 0))
        store_rows(dxBC + start * width + head * P, to_x, width, length, P, T, BLOCK_P)
    store_rows(dxBC + start * width + to_B, dB, width, length, N, T, BLOCK_N)


def fits(dtype: torch.dtype, P: int, N: int) -> bool:
    """Whether the kernels take this dtype, head dim and state; they take any length.

    Up to 128 each, but in float32 a head dim up to 64, beyond which a state fills the registers.
    """
    if dtype not in (torch.bfloat16, torch.float32) or max(P, N) > MAX_SIZE:
        return False
    return dtype == torch.bfloat16 or P <= 64


def _sizes(dt: Tensor, y: Tensor, G: int, N: int, allow_tf32: bool) -> dict[str, Any]:
    L, H = dt.shape[2:]
    P = y.shape[3] // H
    sizes = {"H": H, "G": G, "L": L, "P": P, "N": N, "T": CHUNK}
    # at least 64: see delta_rule_triton
    sizes |= {f"BLOCK_{name}": max(64, padded(sizes[name])) for name in "PN"}
    # where the registers suffice, four warps: two programs then share a multiprocessor
    narrow = y.dtype == torch.bfloat16 and P <= 64
    sizes |= {"num_warps": 4 if narrow else 8, "num_stages": 1}
    return {**sizes, "PRECISION": "tf32" if allow_tf32 else "tf32x3"}  # see attention_triton


def forward(
    xBC: Tensor, dt: Tensor, A: Tensor, D: Tensor, y: Tensor, G: int, N: int, allow_tf32: bool
) -> None:
    """SSD and skip, as `ssd_triton.ssd_triton`, into y [R, B, L, H P]."""
    (R, batch, _, H), xBC = dt.shape, flat_rows(xBC)
    with torch.cuda.device_of(xBC):
        _ssd_chunks_forward_kernel[(R * batch * H,)](
            xBC, dt.contiguous(), A.contiguous(), D, y, *D.stride(), batch, xBC.stride(0),
            **_sizes(dt, y, G, N, allow_tf32),
        )  # fmt: skip


def backward(
    xBC: Tensor, dt: Tensor, A: Tensor, D: Tensor, dy: Tensor,
    outputs: tuple[Tensor, Tensor, Tensor], G: int, N: int, allow_tf32: bool,
) -> None:  # fmt: skip
    """The gradients of xBC and dt, and of A, D and A again, a part each chunk, [R, B, K, 3, H],
    into `outputs`."""
    R, batch, L, H = dt.shape
    chunks = triton.cdiv(L, CHUNK)
    sizes = _sizes(dt, dy, G, N, allow_tf32)
    xBC, dt, A, dy = flat_rows(xBC), dt.contiguous(), A.contiguous(), flat_rows(dy.contiguous())
    h, dh = (xBC.new_empty(R, batch, H, chunks - 1, N, sizes["P"]) for _ in range(2))
    with torch.cuda.device_of(xBC):
        for values, states, from_last in ((xBC, h, False), (dy, dh, True)):
            _ssd_states_kernel[(R * batch * H,)](
                xBC, values, dt, A, states, batch, xBC.stride(0), values.stride(0),
                **sizes, REVERSED=from_last,
            )  # fmt: skip
        _ssd_chunks_backward_kernel[(R * batch * G * chunks,)](
            xBC, dt, A, D, dy, h, dh, *outputs, *D.stride(), batch, xBC.stride(0), **sizes
        )

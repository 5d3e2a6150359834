"""The delta rule for CUDA, for sequences of several chunks.

With h and h' the states before and after a chunk, P as in `delta_rule_triton`, and A_ts = k_t . k_s
below the diagonal, zero elsewhere,
    r = v - k h,    e = (I + A beta)^-1 r,    y = q h / sqrt(K) + P beta e,    h' = h + k^T beta e,
where e_t is by how much the state before t misses v_t, and beta_t e_t what position t writes. Yang
et al. 2024 (arXiv 2406.06484), section 3. Shape letters: R runs, B batch, L length, H heads, K key
dim, V value dim, T positions of a chunk.

A program owns one head of one sequence and walks its chunks: forward with h in registers, float32,
and from the last one back with the gradient of h. As in `delta_rule_triton`, what neighbours write
nearly cancels where keys repeat; so y and h' are made of Q beta r and X beta r, and
Q = P (I + beta A)^-1 and X = k^T (I + beta A)^-1 are rounded to bfloat16 only when done.

With dy and dh' the gradients of y and h', that of beta r is dw = Q^T dy + X^T dh', that of v is
beta dw, and that of beta is the sum over V of dw e, what passes through the inverse included. So
the backward needs neither v nor an inverse. It reads Q, X, e and h, which the forward keeps: with
T = K = V nearly as many numbers as q, k, v and y have, where to make them again takes 19 products
a chunk. No two programs write to the same place: the same input, the same bits.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tiles import load_rows, positions_left, store_rows

CHUNK = 64
"""Positions of a chunk, T."""
MAX_HEAD_DIM = 64
"""Of wider heads the registers do not hold the state."""


@triton.jit
def _joined(
    A, beta, LEVELS: tl.constexpr, T: tl.constexpr, SOLVE: tl.constexpr, PRECISION: tl.constexpr
):
    """G with (I + beta A)^-1 = I - beta G and (I + A beta)^-1 = I - G beta, A below the diagonal.

    With G and G' those of two neighbouring blocks and Y the corner of A below them, the corner of
    the G of both is (I - G' beta) Y (I - beta G); so blocks of 1, 2, 4, ... are joined, all at
    once. What is held is always a part of the result, which is at most about one where |k| is.
    """
    i = tl.arange(0, T)
    # neighbouring blocks of 2^level positions differ in the last bit of their number alone
    G = tl.where((i ^ 1)[:, None] == i[None, :], A, 0.0)
    A = A.to(SOLVE)
    for level in range(1, LEVELS):
        block = i >> level
        corner = tl.where((block ^ 1)[:, None] == block[None, :], A, 0.0)
        scaled = (G * -beta[:, None]).to(SOLVE)
        half = tl.dot(corner, scaled, corner.to(tl.float32), input_precision=PRECISION)
        scaled = (half * -beta[:, None]).to(SOLVE)
        G = tl.dot(G.to(SOLVE), scaled, G + half, input_precision=PRECISION)
    return G


@triton.jit
def _delta_rule_chunks_forward_kernel(
    q, k, v, beta, y, read, written, errors, states,
    H: tl.constexpr, L: tl.constexpr, K: tl.constexpr, V: tl.constexpr, T: tl.constexpr,
    BLOCK: tl.constexpr, LEVELS: tl.constexpr,
    PRECISION: tl.constexpr, SOLVE: tl.constexpr, SAVE: tl.constexpr,
):  # fmt: skip
    sequence, head = (tl.program_id(0) // H).to(tl.int64), tl.program_id(0) % H
    last: tl.constexpr = (L - 1) // T
    states += tl.program_id(0).to(tl.int64) * last * K * V
    written += tl.program_id(0).to(tl.int64) * (last + 1) * K * T
    t = tl.arange(0, T)
    h = tl.zeros([BLOCK, BLOCK], tl.float32)
    for chunk in range(last + 1):
        row, length = (sequence * L + chunk * T) * H + head, positions_left(chunk, L, T)
        k_c = load_rows(k + row * K, H * K, length, K, T, BLOCK)
        beta_c = tl.load(beta + row + t * H, mask=t < length, other=0.0).to(tl.float32)
        A = tl.dot(k_c, tl.trans(k_c), input_precision=PRECISION)
        A = tl.where(t[:, None] > t[None, :], A, 0.0)
        G = _joined(A, beta_c, LEVELS, T, SOLVE, PRECISION)
        minus_G = (-G).to(k_c.dtype)
        solved = tl.where(t[:, None] == t[None, :], 1.0, G * -beta_c[:, None])

        # factors as a sum of two bfloat16 numbers have more digits than tf32 and take fewer
        # registers; what follows is in the order that takes the fewest
        q_c = load_rows(q + row * K, H * K, length, K, T, BLOCK)
        P = tl.dot(q_c, tl.trans(k_c), input_precision=PRECISION)
        P = tl.where(t[:, None] >= t[None, :], P * (1 / K**0.5), 0.0)
        P_high, high = P.to(k_c.dtype), solved.to(k_c.dtype)
        Q = tl.dot(P_high, high, input_precision=PRECISION)
        low = (solved - high).to(k_c.dtype)
        if k_c.dtype != tl.float32:
            Q = tl.dot((P - P_high).to(k_c.dtype), high, Q, input_precision=PRECISION)
            Q = tl.dot(P_high, low, Q, input_precision=PRECISION)
        Q = Q.to(k_c.dtype)
        if SAVE:
            store_rows(read + row * T, Q, H * T, length, T, T, T)
        X = tl.dot(tl.trans(k_c), high, input_precision=PRECISION)
        if k_c.dtype != tl.float32:
            X = tl.dot(tl.trans(k_c), low, X, input_precision=PRECISION)
        X = X.to(k_c.dtype)
        if SAVE:
            store_rows(written + chunk * K * T, X, T, K, T, BLOCK, T)

        h_c = h.to(k_c.dtype)
        if SAVE and chunk > 0:
            store_rows(states + (chunk - 1) * K * V, h_c, V, K, V, BLOCK, BLOCK)
        v_c = load_rows(v + row * V, H * V, length, V, T, BLOCK)
        r = v_c - tl.dot(k_c, h_c, input_precision=PRECISION)
        beta_r = (r * beta_c[:, None]).to(k_c.dtype)
        if SAVE:
            e = tl.dot(minus_G, beta_r, r, input_precision=PRECISION)
            store_rows(errors + row * V, e, H * V, length, V, T, BLOCK)
        h = tl.dot(X, beta_r, h, input_precision=PRECISION)
        out = tl.dot(q_c, h_c, input_precision=PRECISION) * (1 / K**0.5)
        out = tl.dot(Q, beta_r, out, input_precision=PRECISION)
        store_rows(y + row * V, out, H * V, length, V, T, BLOCK)


@triton.jit
def _delta_rule_chunks_backward_kernel(
    q, k, beta, read, written, errors, states, dy, dq, dk, dv, dbeta,
    H: tl.constexpr, L: tl.constexpr, K: tl.constexpr, V: tl.constexpr, T: tl.constexpr,
    BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    sequence, head = (tl.program_id(0) // H).to(tl.int64), tl.program_id(0) % H
    last: tl.constexpr = (L - 1) // T
    states += tl.program_id(0).to(tl.int64) * last * K * V
    written += tl.program_id(0).to(tl.int64) * (last + 1) * K * T
    t = tl.arange(0, T)
    dh = tl.zeros([BLOCK, BLOCK], tl.float32)
    for step in range(last + 1):
        chunk = last - step
        row, length = (sequence * L + chunk * T) * H + head, positions_left(chunk, L, T)
        beta_c = tl.load(beta + row + t * H, mask=t < length, other=0.0).to(tl.float32)
        Q = load_rows(read + row * T, H * T, length, T, T, T)
        dy_c = load_rows(dy + row * V, H * V, length, V, T, BLOCK)
        X = load_rows(written + chunk * K * T, T, K, T, BLOCK, T)
        dh_c = dh.to(dy_c.dtype)
        dw = tl.dot(tl.trans(Q), dy_c, input_precision=PRECISION)
        dw = tl.dot(tl.trans(X), dh_c, dw, input_precision=PRECISION)
        e = load_rows(errors + row * V, H * V, length, V, T, BLOCK)
        to_beta = tl.sum(dw * e, 1)
        tl.store(dbeta + row + t * H, to_beta.to(dbeta.dtype.element_ty), mask=t < length)
        dw *= beta_c[:, None]
        store_rows(dv + row * V, dw, H * V, length, V, T, BLOCK)
        minus_dr = (-dw).to(dy_c.dtype)

        dy_c = (dy_c.to(tl.float32) * (1 / K**0.5)).to(dy_c.dtype)
        k_c = load_rows(k + row * K, H * K, length, K, T, BLOCK)
        q_c = load_rows(q + row * K, H * K, length, K, T, BLOCK)
        dh = tl.dot(tl.trans(q_c), dy_c, dh, input_precision=PRECISION)
        dh = tl.dot(tl.trans(k_c), minus_dr, dh, input_precision=PRECISION)

        to_k = tl.dot(e, tl.trans(dh_c), input_precision=PRECISION) * beta_c[:, None]
        # before the first chunk the state is zero, and not in memory
        rows = tl.where(chunk > 0, K, 0)
        h = load_rows(states + (chunk - 1) * K * V, V, rows, V, BLOCK, BLOCK)
        to_k = tl.dot(minus_dr, tl.trans(h), to_k, input_precision=PRECISION)
        # gradients of P and A, transposed, because a product takes its left side from registers
        i = t + step  # or the masks would be made before the loop and stay in registers
        dP = tl.dot(e, tl.trans(dy_c), input_precision=PRECISION) * beta_c[:, None]
        dP = tl.where(i[:, None] <= i[None, :], dP, 0.0).to(dy_c.dtype)
        to_k = tl.dot(dP, q_c, to_k, input_precision=PRECISION)
        dA = tl.dot(e, tl.trans(minus_dr), input_precision=PRECISION) * beta_c[:, None]
        dA = tl.where(i[:, None] < i[None, :], dA, 0.0).to(dy_c.dtype)
        to_k = tl.dot(dA, k_c, to_k, input_precision=PRECISION)
        to_k = tl.dot(tl.trans(dA), k_c, to_k, input_precision=PRECISION)
        store_rows(dk + row * K, to_k, H * K, length, K, T, BLOCK)
        to_q = tl.dot(dy_c, tl.trans(h), input_precision=PRECISION)
        to_q = tl.dot(tl.trans(dP), k_c, to_q, input_precision=PRECISION)
        store_rows(dq + row * K, to_q, H * K, length, K, T, BLOCK)


def fits(dtype: torch.dtype, K: int, V: int) -> bool:
    """Whether the kernels take this dtype and these head dims; they take any length."""
    return dtype in (torch.bfloat16, torch.float32) and max(K, V) <= MAX_HEAD_DIM


def _sizes(q: Tensor, v: Tensor) -> dict[str, Any]:
    (L, H, K), V = q.shape[2:], v.shape[-1]
    # tiles of 64 for narrower heads too: see delta_rule_triton; the precision, of what is float32:
    # see attention_triton
    sizes = {"H": H, "L": L, "K": K, "V": V, "T": CHUNK, "BLOCK": MAX_HEAD_DIM}
    return {**sizes, "PRECISION": "tf32x3", "num_warps": 4, "num_stages": 1}


def _solver(q: Tensor) -> dict[str, Any]:
    """What the forward takes besides."""
    levels = CHUNK.bit_length() - 1
    if q.dtype == torch.float32:
        return {"LEVELS": levels, "SOLVE": tl.float32}
    # float16: see delta_rule_triton. 168 registers let three programs share a multiprocessor, for
    # 72 bytes spilled a thread; left alone, the compiler takes 254
    return {"LEVELS": levels, "SOLVE": tl.float16, "maxnreg": 168}


@torch.library.custom_op("zoorecall::delta_rule_chunks", mutates_args=())
def delta_rule_chunks(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, save: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """y as `delta_rule_triton.delta_rule_triton`, which checks what it hands on; Q, X, e and h."""
    q, k, v, beta = (x.contiguous() for x in (q, k, v, beta))
    outputs = _outputs(k, v, save)
    R, B, _, H = beta.shape
    with torch.cuda.device_of(q):
        _delta_rule_chunks_forward_kernel[(R * B * H,)](
            q, k, v, beta, *outputs, **_sizes(q, v), **_solver(q), SAVE=save
        )
    return outputs


def _outputs(k: Tensor, v: Tensor, save: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    (R, B, L, H, K), V = k.shape, v.shape[-1]
    chunks = triton.cdiv(L, CHUNK)
    read, written = (R, B, L, H, CHUNK), (R, B, H, chunks, K, CHUNK)
    shapes = [read, written, v.shape, (R, B, H, chunks - 1, K, V)]
    Q, X, e, h = (v.new_empty(shape if save else (0,)) for shape in shapes)
    return v.new_empty(v.shape), Q, X, e, h


@delta_rule_chunks.register_fake
def _(q, k, v, beta, save):
    return _outputs(k, v, save)


@torch.library.custom_op("zoorecall::delta_rule_chunks_backward", mutates_args=())
def _backward(
    q: Tensor, k: Tensor, beta: Tensor, read: Tensor, written: Tensor, errors: Tensor,
    states: Tensor, dy: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    q, k, beta, dy = (x.contiguous() for x in (q, k, beta, dy))
    dq, dk, dv, dbeta = (torch.empty_like(x) for x in (q, k, errors, beta))
    R, B, _, H = beta.shape
    with torch.cuda.device_of(q):
        _delta_rule_chunks_backward_kernel[(R * B * H,)](
            q, k, beta, read, written, errors, states, dy, dq, dk, dv, dbeta, **_sizes(q, errors)
        )
    return dq, dk, dv, dbeta


@_backward.register_fake
def _(q, k, beta, read, written, errors, states, dy):
    return tuple(x.new_empty(x.shape) for x in (q, k, errors, beta))


def _save(ctx, inputs, output):
    q, k, _, beta, _ = inputs
    ctx.save_for_backward(q, k, beta, *output[1:])
    ctx.set_materialize_grads(False)  # see delta_rule_triton


def _gradients(ctx, dy, *_):
    return *_backward(*ctx.saved_tensors, dy), None


delta_rule_chunks.register_autograd(_gradients, setup_context=_save)

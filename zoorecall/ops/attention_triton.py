"""Causal softmax attention for CUDA, for sequences whose whole square of scores fits on chip.

Shape letters: R runs, B batch, L length, D width, H heads, K head dim; D = H K.

A program owns one head of one sequence and holds all L^2 scores, so it needs no running maximum;
the backward makes the scores again from q and k, so nothing but the inputs is kept. It reads q, k
and v where the projections left them and writes their gradients in the same places: no tensor is
ever rearranged. No two programs write to the same place: the same input gives the same bits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .attention import QKV

MAX_LENGTH = 128
"""The longest sequence whose scores fit on chip."""
MAX_HEAD_DIM = 128


@triton.jit
def _load(
    pointer, stride, L: tl.constexpr, K: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_K: tl.constexpr
):
    """A matrix [L, K] whose rows begin `stride` numbers apart, with zeros around it."""
    t, c = tl.arange(0, BLOCK_L), tl.arange(0, BLOCK_K)
    inside = (t < L)[:, None] & (c < K)[None, :]
    return tl.load(pointer + t[:, None] * stride + c[None, :], mask=inside, other=0.0)


@triton.jit
def _store(
    pointer, value, stride,
    L: tl.constexpr, K: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    t, c = tl.arange(0, BLOCK_L), tl.arange(0, BLOCK_K)
    inside = (t < L)[:, None] & (c < K)[None, :]
    value = value.to(pointer.dtype.element_ty)
    tl.store(pointer + t[:, None] * stride + c[None, :], value, mask=inside)


@triton.jit
def _exponentials(q, k, K: tl.constexpr, BLOCK_L: tl.constexpr, PRECISION: tl.constexpr):
    """exp(q k^T / sqrt(K) - the row's maximum), zero above the diagonal, and its row sums."""
    log2_e: tl.constexpr = 1.4426950408889634
    t = tl.arange(0, BLOCK_L)
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (log2_e / K**0.5)
    # rows beyond the end are zeros that see themselves, and no other row sees them
    scores = tl.where(t[:, None] >= t[None, :], scores, float("-inf"))
    exponentials = tl.exp2(scores - tl.max(scores, 1)[:, None])
    return exponentials, tl.sum(exponentials, 1)


@triton.jit
def _forward_kernel(
    q, k, v, y, q_row, k_row, v_row,
    H: tl.constexpr, L: tl.constexpr, K: tl.constexpr,
    BLOCK_L: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0) % H * K
    start = (tl.program_id(0) // H).to(tl.int64) * L  # the sequence's first row
    q = _load(q + start * q_row + head, q_row, L, K, BLOCK_L, BLOCK_K)
    k = _load(k + start * k_row + head, k_row, L, K, BLOCK_L, BLOCK_K)
    v = _load(v + start * v_row + head, v_row, L, K, BLOCK_L, BLOCK_K)
    p, total = _exponentials(q, k, K, BLOCK_L, PRECISION)
    out = tl.dot(p.to(v.dtype), v, input_precision=PRECISION) / total[:, None]
    _store(y + start * H * K + head, out, H * K, L, K, BLOCK_L, BLOCK_K)


@triton.jit
def _backward_kernel(
    q, k, v, dy, dq, dk, dv, q_row, k_row, v_row, grad_row,
    H: tl.constexpr, L: tl.constexpr, K: tl.constexpr,
    BLOCK_L: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0) % H * K
    start = (tl.program_id(0) // H).to(tl.int64) * L
    q = _load(q + start * q_row + head, q_row, L, K, BLOCK_L, BLOCK_K)
    k = _load(k + start * k_row + head, k_row, L, K, BLOCK_L, BLOCK_K)
    v = _load(v + start * v_row + head, v_row, L, K, BLOCK_L, BLOCK_K)
    dy = _load(dy + start * H * K + head, H * K, L, K, BLOCK_L, BLOCK_K)
    grads = start * grad_row + head
    p, total = _exponentials(q, k, K, BLOCK_L, PRECISION)
    p /= total[:, None]
    to_v = tl.dot(tl.trans(p.to(dy.dtype)), dy, input_precision=PRECISION)
    _store(dv + grads, to_v, grad_row, L, K, BLOCK_L, BLOCK_K)
    dp = tl.dot(dy, tl.trans(v), input_precision=PRECISION)
    dscores = p * (dp - tl.sum(p * dp, 1)[:, None]) * (1 / K**0.5)
    dscores = dscores.to(q.dtype)
    to_q = tl.dot(dscores, k, input_precision=PRECISION)
    _store(dq + grads, to_q, grad_row, L, K, BLOCK_L, BLOCK_K)
    to_k = tl.dot(tl.trans(dscores), q, input_precision=PRECISION)
    _store(dk + grads, to_k, grad_row, L, K, BLOCK_L, BLOCK_K)

"""draft"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .attention_triton import _load, _store


@triton.jit
def _solve(A, LEVELS: tl.constexpr, BLOCK_L: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr):
    i = tl.arange(0, BLOCK_L)
    apart = i[:, None] ^ i[None, :]
    inverse = tl.where(apart == 0, 1.0, 0.0) - tl.where(apart == 1, A, 0.0)
    for level in range(1, LEVELS):
        corner = tl.where(apart >> level == 1, A, 0.0).to(WIDE)
        right = tl.dot(corner, inverse.to(WIDE), input_precision=PRECISION).to(WIDE)
        inverse -= tl.dot(inverse.to(WIDE), right, input_precision=PRECISION)
    return inverse


@triton.jit
def _forward_kernel(
    q, k, v, beta, y, inverse, read,
    H: tl.constexpr, L: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    BLOCK_L: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, LEVELS: tl.constexpr,
    WIDE: tl.constexpr, PRECISION: tl.constexpr, SOLVE: tl.constexpr, SAVE: tl.constexpr,
):  # fmt: skip
    first = (tl.program_id(0) // H).to(tl.int64) * L * H + tl.program_id(0) % H
    t = tl.arange(0, BLOCK_L)
    q = _load(q + first * K, H * K, L, K, BLOCK_L, BLOCK_K)
    k = _load(k + first * K, H * K, L, K, BLOCK_L, BLOCK_K)
    v = _load(v + first * V, H * V, L, V, BLOCK_L, BLOCK_V)
    beta = tl.load(beta + first + t * H, mask=t < L, other=0.0).to(tl.float32)
    A = tl.dot(k, tl.trans(k), input_precision=PRECISION) * beta[:, None]
    A = tl.where(t[:, None] > t[None, :], A, 0.0)
    T = _solve(A, LEVELS, BLOCK_L, WIDE, SOLVE)
    P = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (1 / K**0.5)
    P = tl.where(t[:, None] >= t[None, :], P, 0.0)
    M = tl.dot(P.to(WIDE), T.to(WIDE), input_precision=SOLVE).to(k.dtype)
    b = (v * beta[:, None]).to(k.dtype)
    _store(y + first * V, tl.dot(M, b, input_precision=PRECISION), H * V, L, V, BLOCK_L, BLOCK_V)
    if SAVE:
        square = tl.program_id(0).to(tl.int64) * L * L
        _store(inverse + square, T, L, L, L, BLOCK_L, BLOCK_L)
        _store(read + square, M, L, L, L, BLOCK_L, BLOCK_L)


@triton.jit
def _backward_kernel(
    q, k, v, beta, inverse, read, dy, dq, dk, dv, dbeta,
    H: tl.constexpr, L: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    BLOCK_L: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    first = (tl.program_id(0) // H).to(tl.int64) * L * H + tl.program_id(0) % H
    square = tl.program_id(0).to(tl.int64) * L * L
    t = tl.arange(0, BLOCK_L)
    q = _load(q + first * K, H * K, L, K, BLOCK_L, BLOCK_K)
    k = _load(k + first * K, H * K, L, K, BLOCK_L, BLOCK_K)
    v = _load(v + first * V, H * V, L, V, BLOCK_L, BLOCK_V)
    dy = _load(dy + first * V, H * V, L, V, BLOCK_L, BLOCK_V)
    T = _load(inverse + square, L, L, L, BLOCK_L, BLOCK_L)
    M = _load(read + square, L, L, L, BLOCK_L, BLOCK_L)
    beta = tl.load(beta + first + t * H, mask=t < L, other=0.0).to(tl.float32)
    w = tl.dot(tl.trans(M), dy, input_precision=PRECISION)
    _store(dv + first * V, w * beta[:, None], H * V, L, V, BLOCK_L, BLOCK_V)
    to_beta = tl.sum(w * v, 1)
    w = w.to(v.dtype)
    u = tl.dot(T, (v * beta[:, None]).to(v.dtype), input_precision=PRECISION).to(v.dtype)
    dP = tl.dot(dy, tl.trans(u), input_precision=PRECISION) * (1 / K**0.5)
    dP = tl.where(t[:, None] >= t[None, :], dP, 0.0).to(k.dtype)
    _store(dq + first * K, tl.dot(dP, k, input_precision=PRECISION), H * K, L, K, BLOCK_L, BLOCK_K)
    to_k = tl.dot(tl.trans(dP), q, input_precision=PRECISION)
    dA = tl.dot(w, tl.trans(u), input_precision=PRECISION)
    dA = tl.where(t[:, None] > t[None, :], -dA, 0.0).to(k.dtype)
    X = tl.dot(dA, k, input_precision=PRECISION)
    to_beta += tl.sum(X * k, 1)
    to_k += X * beta[:, None]
    to_k = tl.dot(tl.trans(dA), (k * beta[:, None]).to(k.dtype), to_k, input_precision=PRECISION)
    _store(dk + first * K, to_k, H * K, L, K, BLOCK_L, BLOCK_K)
    tl.store(dbeta + first + t * H, to_beta, mask=t < L)

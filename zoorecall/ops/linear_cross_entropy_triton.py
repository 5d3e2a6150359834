"""Cross-entropy of a linear head on CUDA that never stores the logits.

Shape letters: R runs, M queries of a batch, D width, V vocabulary.

The forward keeps some rows of hidden on chip, goes over the vocabulary in tiles of logits and
carries, a row: the maximum, the sum of exponentials relative to it, the target's logit and the
first argmax (the online softmax of Milakov and Gimelshein 2018, arXiv 1805.02867). The backward
makes each tile again from the saved log-sum-exp: once row by row for the gradient of hidden, once
column by column for that of weight. Twice the products is cheaper here than the traffic of
[R, M, V], and as no two programs add to the same place the result has the same bits every time.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_WIDTH = 256
"""The widest D whose tiles fit on chip."""


@triton.jit
def _load_rows(pointer, rows, size, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Some rows of a matrix [size, D], zeros outside."""
    d = tl.arange(0, BLOCK_D)
    inside = (rows < size)[:, None] & (d < D)[None, :]
    return tl.load(pointer + rows[:, None] * D + d[None, :], mask=inside, other=0.0)


@triton.jit
def _store_rows(pointer, value, rows, size, D: tl.constexpr, BLOCK_D: tl.constexpr):
    d = tl.arange(0, BLOCK_D)
    inside = (rows < size)[:, None] & (d < D)[None, :]
    value = value.to(pointer.dtype.element_ty)
    tl.store(pointer + rows[:, None] * D + d[None, :], value, mask=inside)


@triton.jit
def _forward_kernel(
    hidden, weight, targets, loss, correct, lse,
    M: tl.constexpr, V: tl.constexpr, D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    log2_e: tl.constexpr = 1.4426950408889634
    ln_2: tl.constexpr = 0.6931471805599453
    run = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    x = _load_rows(hidden + run * M * D, rows, M, D, BLOCK_D)
    target = tl.load(targets + run * M + rows, mask=rows < M, other=-1).to(tl.int32)

    peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    target_logit = tl.zeros([BLOCK_M], tl.float32)
    choice = tl.full([BLOCK_M], -1, tl.int32)
    for start in range(0, V, BLOCK_V):
        v = start + tl.arange(0, BLOCK_V)
        w = _load_rows(weight + run * V * D, v, V, D, BLOCK_D)
        logits = tl.dot(x, tl.trans(w), input_precision="ieee")
        if V % BLOCK_V:
            logits = tl.where((v < V)[None, :], logits, float("-inf"))
        target_logit += tl.sum(tl.where(v[None, :] == target[:, None], logits, 0.0), 1)
        tile_peak = tl.max(logits, 1)
        first = tl.min(tl.where(logits == tile_peak[:, None], v[None, :], V), 1)
        choice = tl.where(tile_peak > peak, first, choice)
        new_peak = tl.maximum(peak, tile_peak)
        exponentials = tl.exp2(logits * log2_e - (new_peak * log2_e)[:, None])
        total = total * tl.exp2((peak - new_peak) * log2_e) + tl.sum(exponentials, 1)
        peak = new_peak
    log_sum = peak + tl.log2(total) * ln_2
    row_loss = log_sum - target_logit
    right = (choice == target) & (row_loss == row_loss)  # a NaN is not equal to itself
    tl.store(loss + run * M + rows, row_loss, mask=rows < M)
    tl.store(lse + run * M + rows, log_sum, mask=rows < M)
    tl.store(correct + run * M + rows, right, mask=rows < M)


@triton.jit
def _hidden_gradient_kernel(
    hidden, weight, targets, lse, dloss, dhidden,
    M: tl.constexpr, V: tl.constexpr, D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    log2_e: tl.constexpr = 1.4426950408889634
    run = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    x = _load_rows(hidden + run * M * D, rows, M, D, BLOCK_D)
    target = tl.load(targets + run * M + rows, mask=rows < M, other=-1).to(tl.int32)
    log_sum = tl.load(lse + run * M + rows, mask=rows < M, other=0.0) * log2_e
    scale = tl.load(dloss + run * M + rows, mask=rows < M, other=0.0)

    total = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for start in range(0, V, BLOCK_V):
        v = start + tl.arange(0, BLOCK_V)
        w = _load_rows(weight + run * V * D, v, V, D, BLOCK_D)
        logits = tl.dot(x, tl.trans(w), input_precision="ieee")
        if V % BLOCK_V:  # the rows of w are zero there, but zero times an overflow is NaN
            logits = tl.where((v < V)[None, :], logits, float("-inf"))
        p = tl.exp2(logits * log2_e - log_sum[:, None])
        # one is subtracted before rounding: near a solved task p - 1 is far smaller than p
        p = tl.where(v[None, :] == target[:, None], p - 1.0, p)
        total = tl.dot(p.to(w.dtype), w, total, input_precision="ieee")
    _store_rows(dhidden + run * M * D, total * scale[:, None], rows, M, D, BLOCK_D)


@triton.jit
def _weight_gradient_kernel(
    hidden, weight, targets, lse, dloss, dweight,
    M: tl.constexpr, V: tl.constexpr, D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    log2_e: tl.constexpr = 1.4426950408889634
    run = tl.program_id(1).to(tl.int64)
    v = tl.program_id(0) * BLOCK_V + tl.arange(0, BLOCK_V)
    w = _load_rows(weight + run * V * D, v, V, D, BLOCK_D)

    total = tl.zeros([BLOCK_V, BLOCK_D], tl.float32)
    for start in range(0, M, BLOCK_M):
        rows = start + tl.arange(0, BLOCK_M)
        x = _load_rows(hidden + run * M * D, rows, M, D, BLOCK_D)
        target = tl.load(targets + run * M + rows, mask=rows < M, other=-1).to(tl.int32)
        # infinity outside makes p = 0 there
        log_sum = tl.load(lse + run * M + rows, mask=rows < M, other=float("inf")) * log2_e
        scale = tl.load(dloss + run * M + rows, mask=rows < M, other=0.0)
        logits = tl.dot(w, tl.trans(x), input_precision="ieee")  # [V, M]
        p = tl.exp2(logits * log2_e - log_sum[None, :])
        p = tl.where(v[:, None] == target[None, :], p - 1.0, p) * scale[None, :]
        total = tl.dot(p.to(x.dtype), x, total, input_precision="ieee")
    _store_rows(dweight + run * V * D, total, v, V, D, BLOCK_D)

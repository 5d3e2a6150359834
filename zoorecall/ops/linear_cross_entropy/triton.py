"""Cross-entropy of a linear head on CUDA that never stores the logits.

Shape letters: R runs, M queries of a batch, D width, V vocabulary.

The forward keeps some rows of hidden on chip, goes over the vocabulary in tiles of logits and
carries, a row: the maximum, the sum of exponentials relative to it, the target's logit and the
first argmax (the online softmax of Milakov and Gimelshein 2018, arXiv 1805.02867). The backward
recomputes each tile from the saved log-sum-exp: once row by row for the gradient of hidden, once
column by column for that of weight. Twice the products cost less here than the memory traffic of
[R, M, V]. No two programs add to the same place, so the same input gives the same bits.
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
def _head_forward_kernel(
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
    column = tl.arange(0, BLOCK_V)
    for start in range(0, V, BLOCK_V):
        w = _load_rows(weight + run * V * D, start + column, V, D, BLOCK_D)
        # of float32: see attention_triton; "ieee" would leave the tensor cores idle
        logits = tl.dot(x, tl.trans(w), input_precision="tf32x3")
        if V % BLOCK_V:
            logits = tl.where((start + column < V)[None, :], logits, float("-inf"))
        is_target = column[None, :] == (target - start)[:, None]
        target_logit += tl.sum(tl.where(is_target, logits, 0.0), 1)
        tile_peak = tl.max(logits, 1)
        first = tl.min(tl.where(logits == tile_peak[:, None], column[None, :], BLOCK_V), 1)
        choice = tl.where(tile_peak > peak, start + first, choice)
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
def _head_hidden_gradient_kernel(
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
    column = tl.arange(0, BLOCK_V)
    for start in range(0, V, BLOCK_V):
        w = _load_rows(weight + run * V * D, start + column, V, D, BLOCK_D)
        logits = tl.dot(x, tl.trans(w), input_precision="tf32x3")
        if V % BLOCK_V:  # w is zero there, but zero times an overflow is NaN
            logits = tl.where((start + column < V)[None, :], logits, float("-inf"))
        p = tl.exp2(logits * log2_e - log_sum[:, None])
        # one is subtracted before rounding: near a solved task p - 1 is far smaller than p
        p = tl.where(column[None, :] == (target - start)[:, None], p - 1.0, p)
        total = tl.dot(p.to(w.dtype), w, total, input_precision="tf32x3")
    _store_rows(dhidden + run * M * D, total * scale[:, None], rows, M, D, BLOCK_D)


@triton.jit
def _head_weight_gradient_kernel(
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
        log_sum = tl.load(lse + run * M + rows, mask=rows < M, other=0.0) * log2_e
        scale = tl.load(dloss + run * M + rows, mask=rows < M, other=0.0)
        logits = tl.dot(w, tl.trans(x), input_precision="tf32x3")  # [V, M]
        if V % BLOCK_V:
            logits = tl.where((v < V)[:, None], logits, float("-inf"))
        p = tl.exp2(logits * log2_e - log_sum[None, :])
        p = tl.where(v[:, None] == target[None, :], p - 1.0, p) * scale[None, :]
        total = tl.dot(p.to(x.dtype), x, total, input_precision="tf32x3")
    _store_rows(dweight + run * V * D, total, v, V, D, BLOCK_D)


def _sizes(hidden: Tensor, weight: Tensor) -> dict[str, int]:
    (_, M, D), V = hidden.shape, weight.shape[1]
    # constants of the program, as a grid has few of them: masks of even sizes cost nothing
    return {"M": M, "V": V, "D": D, "BLOCK_D": max(16, triton.next_power_of_2(D))}


def _row_tiles(dtype: torch.dtype) -> dict[str, int]:
    """Tiles of the kernels that own rows of hidden. Those of float32 are small, as its exact
    products run on the ordinary cores and hold their operands in registers."""
    if dtype == torch.float32:
        return {"BLOCK_M": 64, "BLOCK_V": 32, "num_warps": 8, "num_stages": 2}
    return {"BLOCK_M": 128, "BLOCK_V": 64, "num_warps": 8, "num_stages": 3}


def _column_tiles(dtype: torch.dtype) -> dict[str, int]:
    """Tiles of the kernel that owns rows of weight, which are columns of the logits."""
    block_v = 64 if dtype == torch.float32 else 128
    return {"BLOCK_M": 32, "BLOCK_V": block_v, "num_warps": 8, "num_stages": 2}


@torch.library.custom_op("zoorecall::linear_cross_entropy", mutates_args=())
def _forward(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    hidden, weight, targets = (x.contiguous() for x in (hidden, weight, targets))
    loss, correct, lse = _outputs(targets)
    tiles = _row_tiles(hidden.dtype)
    grid = (triton.cdiv(targets.shape[1], tiles["BLOCK_M"]), targets.shape[0])
    with torch.cuda.device_of(hidden):
        _head_forward_kernel[grid](
            hidden, weight, targets, loss, correct, lse, **_sizes(hidden, weight), **tiles
        )
    return loss, correct, lse


def _outputs(targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    dtypes = (torch.float32, torch.bool, torch.float32)
    loss, correct, lse = (targets.new_empty(targets.shape, dtype=dtype) for dtype in dtypes)
    return loss, correct, lse


@_forward.register_fake
def _(hidden, weight, targets):
    return _outputs(targets)


@torch.library.custom_op("zoorecall::linear_cross_entropy_backward", mutates_args=())
def _backward(
    hidden: Tensor, weight: Tensor, targets: Tensor, lse: Tensor, dloss: Tensor
) -> tuple[Tensor, Tensor]:
    inputs = [x.contiguous() for x in (hidden, weight, targets, lse, dloss)]
    hidden, weight = inputs[:2]
    dhidden, dweight = torch.empty_like(hidden), torch.empty_like(weight)
    rows, columns = _row_tiles(hidden.dtype), _column_tiles(hidden.dtype)
    (R, M, _), V, sizes = hidden.shape, weight.shape[1], _sizes(hidden, weight)
    with torch.cuda.device_of(hidden):
        grid = (triton.cdiv(M, rows["BLOCK_M"]), R)
        _head_hidden_gradient_kernel[grid](*inputs, dhidden, **sizes, **rows)
        grid = (triton.cdiv(V, columns["BLOCK_V"]), R)
        _head_weight_gradient_kernel[grid](*inputs, dweight, **sizes, **columns)
    return dhidden, dweight


@_backward.register_fake
def _(hidden, weight, targets, lse, dloss):
    return hidden.new_empty(hidden.shape), weight.new_empty(weight.shape)


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs, output[2])
    ctx.set_materialize_grads(False)


def _gradients(ctx, dloss, *_):
    return *_backward(*ctx.saved_tensors, dloss), None


_forward.register_autograd(_gradients, setup_context=_save)


def linear_cross_entropy_triton(
    hidden: Tensor, weight: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss [R, M] in nats of logits = hidden weight^T, and whether their argmax is the target.

    hidden [R, M, D] and weight [R, V, D] are both bfloat16 or both float32, D is at most 256;
    targets [R, M] are int64 in [0, V), which is not checked. Logits and loss are float32. Where the
    loss is NaN the second result, correct [R, M], is False. Raises ValueError for other shapes and
    dtypes.
    """
    (R, M, D), V = hidden.shape, weight.shape[1]
    if weight.shape != (R, V, D) or targets.shape != (R, M):
        shapes = [list(x.shape) for x in (hidden, weight, targets)]
        raise ValueError(f"hidden, weight and targets do not fit: {shapes}")
    if D > MAX_WIDTH:
        raise ValueError(f"width {D} is more than {MAX_WIDTH}: use the reference")
    if hidden.dtype != weight.dtype or hidden.dtype not in (torch.bfloat16, torch.float32):
        raise ValueError(f"not both bfloat16 or float32: {hidden.dtype}, {weight.dtype}")
    loss, correct, _ = _forward(hidden, weight, targets)
    return loss, correct

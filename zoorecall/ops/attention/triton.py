"""Causal softmax attention for CUDA, for sequences whose whole square of scores fits on chip.

Shape letters: R runs, B batch, L length, D width, H heads, K head dim; D = H K.

A program owns one head of one sequence and holds all L^2 scores, so it needs no running maximum.
The backward recomputes the scores from q and k, so only the inputs are kept. A program reads q, k
and v where the projections wrote them, a wide head slice by slice, adds their bias, and writes
their gradients in the same layout: no tensor is ever rearranged. No two programs write to the same
place, so the same input gives the same bits. Which weights are dropped is computed from a run's key
and a weight's place wherever it is needed, forward and backward.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..dropout import WORDS, Dropped
from ..tiles import fits_on_chip, flat_rows, load_rows, padded, store_rows
from .reference import QKV


@triton.jit
def _load_slice(
    pointer, start, row, bias, head, c, L: tl.constexpr, K: tl.constexpr,
    BLOCK_L: tl.constexpr, SLICE: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """A slice of a head's q, k or v, from number c on, with its bias added."""
    x = load_rows(pointer + start * row + head + c, row, L, K - c, BLOCK_L, SLICE)
    if BIAS:
        i = tl.arange(0, SLICE)
        x = (x + tl.load(bias + head + c + i, mask=c + i < K, other=0.0)[None, :]).to(x.dtype)
    return x


@triton.jit
def _store_sum(pointer, value, c, K: tl.constexpr, SLICE: tl.constexpr, BIAS: tl.constexpr):
    """The sum over the rows, which is what a sequence adds to the gradient of a bias."""
    if BIAS:
        i = c + tl.arange(0, SLICE)
        tl.store(pointer + i, tl.sum(value, 0), mask=i < K)


@triton.jit
def _exponentials(
    q, k, q_row, k_row, q_bias, k_bias, start, head, L: tl.constexpr, K: tl.constexpr,
    BLOCK_L: tl.constexpr, SLICE: tl.constexpr, PRECISION: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """exp(q k^T / sqrt(K) - the row's maximum), zero above the diagonal, and its row sums."""
    log2_e: tl.constexpr = 1.4426950408889634
    t = tl.arange(0, BLOCK_L)
    scores = tl.zeros([BLOCK_L, BLOCK_L], tl.float32)
    for c in range(0, K, SLICE):
        q_c = _load_slice(q, start, q_row, q_bias, head, c, L, K, BLOCK_L, SLICE, BIAS)
        k_c = _load_slice(k, start, k_row, k_bias, head, c, L, K, BLOCK_L, SLICE, BIAS)
        scores = tl.dot(q_c, tl.trans(k_c), scores, input_precision=PRECISION)
    scores *= log2_e / K**0.5
    # rows beyond the end are zeros that see themselves, and no other row sees them
    scores = tl.where(t[:, None] >= t[None, :], scores, float("-inf"))
    exponentials = tl.exp2(scores - tl.max(scores, 1)[:, None])
    return exponentials, tl.sum(exponentials, 1)


@triton.jit
def _mix(words):
    """`ops.dropout.mix` of unsigned words, whose products wrap around."""
    words = (words ^ (words >> 16)) * 0x21F0AAAD
    words = (words ^ (words >> 15)) * 0x735A2D97
    return words ^ (words >> 15)


@triton.jit
def _scales(keys, heads, L: tl.constexpr, BLOCK_L: tl.constexpr, DROPPED: tl.constexpr):
    """What `ops.dropout.dropout` multiplies each weight of this program's sequence and head with;
    `heads` are those of a run's batch. DROPPED is the share of all words that drop a weight."""
    t = tl.arange(0, BLOCK_L)
    first = tl.program_id(0) % heads * L
    places = (first + t[:, None]) * L + t[None, :]
    key = tl.load(keys + tl.program_id(0) // heads).to(tl.uint32)
    drawn = _mix(_mix(places.to(tl.uint32)) ^ key)
    is_dropped = drawn < tl.full([1, 1], DROPPED, tl.uint32)
    return tl.where(is_dropped, 0.0, 1 / (1 - DROPPED / 4294967296))


@triton.jit
def _attention_forward_kernel(
    q, k, v, q_bias, k_bias, v_bias, keys, y, q_row, k_row, v_row, bias_row, batch,
    H: tl.constexpr, L: tl.constexpr, K: tl.constexpr, BLOCK_L: tl.constexpr,
    SLICE: tl.constexpr, PRECISION: tl.constexpr, BIAS: tl.constexpr, DROPPED: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0) % H * K
    sequence = (tl.program_id(0) // H).to(tl.int64)
    start, run = sequence * L, sequence // batch * bias_row  # the sequence's first row
    p, total = _exponentials(
        q, k, q_row, k_row, q_bias + run, k_bias + run, start, head,
        L, K, BLOCK_L, SLICE, PRECISION, BIAS,
    )  # fmt: skip
    if DROPPED > 0:
        p *= _scales(keys, batch * H, L, BLOCK_L, DROPPED)
    p = p.to(v.dtype.element_ty)
    for c in range(0, K, SLICE):
        v_c = _load_slice(v, start, v_row, v_bias + run, head, c, L, K, BLOCK_L, SLICE, BIAS)
        out = tl.dot(p, v_c, input_precision=PRECISION) / total[:, None]
        store_rows(y + start * H * K + head + c, out, H * K, L, K - c, BLOCK_L, SLICE)


@triton.jit
def _attention_backward_kernel(
    q, k, v, q_bias, k_bias, v_bias, keys, dy, dq, dk, dv, sums,
    q_row, k_row, v_row, grad_row, bias_row, batch,
    H: tl.constexpr, L: tl.constexpr, K: tl.constexpr, BLOCK_L: tl.constexpr,
    SLICE: tl.constexpr, PRECISION: tl.constexpr, BIAS: tl.constexpr, DROPPED: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0) % H * K
    sequence = (tl.program_id(0) // H).to(tl.int64)
    start, run = sequence * L, sequence // batch * bias_row
    grads, sums = start * grad_row + head, sums + sequence * 3 * H * K + head
    p, total = _exponentials(
        q, k, q_row, k_row, q_bias + run, k_bias + run, start, head,
        L, K, BLOCK_L, SLICE, PRECISION, BIAS,
    )  # fmt: skip
    p /= total[:, None]
    kept = p
    if DROPPED > 0:
        kept *= _scales(keys, batch * H, L, BLOCK_L, DROPPED)
    dp = tl.zeros([BLOCK_L, BLOCK_L], tl.float32)
    for c in range(0, K, SLICE):
        v_c = _load_slice(v, start, v_row, v_bias + run, head, c, L, K, BLOCK_L, SLICE, BIAS)
        dy_c = load_rows(dy + start * H * K + head + c, H * K, L, K - c, BLOCK_L, SLICE)
        to_v = tl.dot(tl.trans(kept.to(dy_c.dtype)), dy_c, input_precision=PRECISION)
        store_rows(dv + grads + c, to_v, grad_row, L, K - c, BLOCK_L, SLICE)
        _store_sum(sums + 2 * H * K, to_v, c, K, SLICE, BIAS)
        dp = tl.dot(dy_c, tl.trans(v_c), dp, input_precision=PRECISION)
    if DROPPED > 0:
        dp *= _scales(keys, batch * H, L, BLOCK_L, DROPPED)
    dscores = p * (dp - tl.sum(p * dp, 1)[:, None]) * (1 / K**0.5)
    dscores = dscores.to(dy.dtype.element_ty)
    for c in range(0, K, SLICE):
        q_c = _load_slice(q, start, q_row, q_bias + run, head, c, L, K, BLOCK_L, SLICE, BIAS)
        k_c = _load_slice(k, start, k_row, k_bias + run, head, c, L, K, BLOCK_L, SLICE, BIAS)
        to_q = tl.dot(dscores, k_c, input_precision=PRECISION)
        store_rows(dq + grads + c, to_q, grad_row, L, K - c, BLOCK_L, SLICE)
        _store_sum(sums, to_q, c, K, SLICE, BIAS)
        to_k = tl.dot(tl.trans(dscores), q_c, input_precision=PRECISION)
        store_rows(dk + grads + c, to_k, grad_row, L, K - c, BLOCK_L, SLICE)
        _store_sum(sums + H * K, to_k, c, K, SLICE, BIAS)


def _sizes(q: Tensor, num_heads: int, allow_tf32: bool) -> dict[str, int | str]:
    L, K = q.shape[2], q.shape[3] // num_heads
    # slices of a head, because a wide one does not fit in registers
    sizes = {"H": num_heads, "L": L, "K": K, "BLOCK_L": padded(L), "SLICE": min(64, padded(K))}
    # of float32 alone: exact products spill most of their operands from the registers; three
    # products of their halves in tf32 do not, and lose two or three bits
    precision = "tf32" if allow_tf32 else "tf32x3"
    return {**sizes, "PRECISION": precision, "num_warps": padded(L) // 16, "num_stages": 1}


def _split(qkv: list[Tensor]) -> list[Tensor]:
    """q, k and v: [R, B, L, D] each, parts of one tensor if they come as one."""
    return list(qkv[0].chunk(3, dim=-1)) if len(qkv) == 1 else qkv


@torch.library.custom_op("zoorecall::attention", mutates_args=())
def _forward(
    qkv: list[Tensor],
    bias: list[Tensor],
    keys: Tensor | None,
    dropped: int,
    num_heads: int,
    allow_tf32: bool,
) -> Tensor:
    parts, bias_parts = _split(qkv), _split(bias or qkv)  # never read without a bias
    R, B, L, D = parts[0].shape
    q, k, v = (flat_rows(x) for x in parts)
    y = q.new_empty(R, B, L, D)
    with torch.cuda.device_of(q):
        _attention_forward_kernel[(R * B * num_heads,)](
            q, k, v, *bias_parts, keys, y, q.stride(0), k.stride(0), v.stride(0),
            bias_parts[0].stride(0), B, **_sizes(y, num_heads, allow_tf32),
            BIAS=bool(bias), DROPPED=dropped,
        )  # fmt: skip
    return y


@_forward.register_fake
def _(qkv, bias, keys, dropped, num_heads, allow_tf32):
    q = _split(qkv)[0]
    return q.new_empty(q.shape)


@torch.library.custom_op("zoorecall::attention_backward", mutates_args=())
def _backward(
    qkv: list[Tensor],
    bias: list[Tensor],
    keys: Tensor | None,
    dy: Tensor,
    dropped: int,
    num_heads: int,
    allow_tf32: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    gradients = [x.new_empty(x.shape) for x in qkv]
    q, k, v = (flat_rows(x) for x in _split(qkv))
    dq, dk, dv = (x.flatten(0, 2) for x in _split(gradients))
    bias_parts = _split(bias or qkv)
    R, B, L, D = dy.shape
    sums = dy.new_empty((R, B, 3 * D) if bias else (0, B, 3 * D), dtype=torch.float32)
    # 168 registers, which are enough, let three programs of four warps share a multiprocessor; left
    # alone, the compiler takes 179
    narrow = dy.dtype == torch.bfloat16 and padded(L) == 64 and D // num_heads <= 64
    limit = 168 if narrow and not dropped else None
    with torch.cuda.device_of(q):
        _attention_backward_kernel[(R * B * num_heads,)](
            q, k, v, *bias_parts, keys, dy.contiguous(), dq, dk, dv, sums,
            q.stride(0), k.stride(0), v.stride(0), dq.stride(0), bias_parts[0].stride(0), B,
            **_sizes(dy, num_heads, allow_tf32),
            BIAS=bool(bias), DROPPED=dropped, maxnreg=limit,
        )  # fmt: skip
    to_bias = sums.split([x.shape[1] for x in bias], dim=2) if bias else ()
    return gradients, [x.sum(1) for x in to_bias]


@_backward.register_fake
def _(qkv, bias, keys, dy, dropped, num_heads, allow_tf32):
    return [x.new_empty(x.shape) for x in qkv], [x.new_empty(x.shape) for x in bias]


def _save(ctx, inputs, output):
    qkv, bias, keys, *ctx.options = inputs
    ctx.parts = len(qkv)
    ctx.save_for_backward(keys, *qkv, *bias)


def _gradients(ctx, dy):
    keys, *saved = ctx.saved_tensors
    to_qkv, to_bias = _backward(saved[: ctx.parts], saved[ctx.parts :], keys, dy, *ctx.options)
    return to_qkv, to_bias, None, None, None, None


_forward.register_autograd(_gradients, setup_context=_save)


def attention_triton(
    qkv: QKV,
    num_heads: int,
    bias: QKV | None = None,
    dropped: Dropped | None = None,
    allow_tf32: bool = False,
) -> Tensor:
    """Causal attention, as `attention.attention`: y [R, B, L, D].

    qkv is one tensor [R, B, L, 3 D] or three of [R, B, L, D], bfloat16 or float32, and sums are
    float32; the bias is float32, [R, 3 D] or three of [R, D] as qkv. `allow_tf32` multiplies
    float32 with 10 bits of mantissa. Raises ValueError for other shapes and dtypes and where `fits`
    is False.
    """
    parts = [qkv] if isinstance(qkv, Tensor) else list(qkv)
    L, D = parts[0].shape[2], parts[0].shape[3] // (3 if len(parts) == 1 else 1)
    shape = (*parts[0].shape[:3], 3 * D if len(parts) == 1 else D)
    if len(parts) not in (1, 3) or D % num_heads or any(x.shape != shape for x in parts):
        shapes = [list(x.shape) for x in parts]
        raise ValueError(f"not q, k and v of {num_heads} heads: {shapes}")
    biases = [] if bias is None else [bias] if isinstance(bias, Tensor) else list(bias)
    expected = [(x.shape[0], x.shape[3]) for x in parts] if biases else []
    if [x.shape for x in biases] != expected or any(x.dtype != torch.float32 for x in biases):
        shapes = [list(x.shape) for x in biases]
        raise ValueError(f"not a float32 bias of {[list(x.shape) for x in parts]}: {shapes}")
    dtypes = [x.dtype for x in parts]
    if len(set(dtypes)) > 1 or not fits_on_chip(dtypes[0], L, D // num_heads):
        sizes = f"length {L}, head dim {D // num_heads}, {dtypes}"
        raise ValueError(f"no kernel for {sizes}: use ops.attention")
    words = 0 if dropped is None else round(dropped.rate * WORDS)
    keys = None if dropped is None else dropped.keys
    return _forward(parts, biases, keys, words, num_heads, allow_tf32)

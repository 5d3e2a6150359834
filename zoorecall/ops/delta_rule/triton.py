"""The delta rule for CUDA; the kernels here are for sequences of one chunk.

Yang et al. 2024 (arXiv 2406.06484, section 3). Shape letters: R runs, B batch, L length, H heads,
K key dim, V value dim. With N_ts = -beta_t k_t . k_s below the diagonal, zero elsewhere, and
P_ts = q_t . k_s / sqrt(K) on and below it,
    u = (I - N)^-1 beta v,    y = P u,
where u_t is what position t writes. A program owns one head of one sequence, of a wide head a
slice of q, k or v after the other. Longer sequences: `delta_rule_chunks_triton`.

Unlike the published kernels, the inverse is made by joining inverted blocks (see `_inverse`), and
y is P (I - N)^-1 times beta v: where keys repeat, the u of neighbours nearly cancel in P u, and
what bfloat16 drops of each would remain. Both L x L matrices are kept for the backward, which then
has no system to solve. No two programs write to the same place: the same input, the same bits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tiles import fits_on_chip, load_rows, padded, store_rows
from . import triton_chunks as delta_rule_chunks_triton
from .triton_chunks import delta_rule_chunks

SLICE = 64
"""Numbers of a head that a product takes at once. Not fewer: with 32 and bfloat16, Triton 3.6
compiles the products with the transposed u to wrong results and illegal memory accesses (H100 and
H200; float32 is right). Not more: the registers do not hold them."""


@triton.jit
def _inverse(
    N, LEVELS: tl.constexpr, BLOCK_L: tl.constexpr, SOLVE: tl.constexpr, PRECISION: tl.constexpr
):
    """(I - N)^-1 of a strictly lower triangular N, from its inverted diagonal blocks.

    With X and Z the inverses of two neighbouring blocks and Y the corner of N below them, the
    inverse of both is [[X, 0], [Z Y X, Z]]; so blocks of 1, 2, 4, ... are joined, all at once.
    What is held is always a part of the result, which is at most about one where |k| is. The
    product (I + N)(I + N^2)(I + N^4)... takes as many steps, but its powers reach 1e8.
    """
    i = tl.arange(0, BLOCK_L)
    inverse = tl.where(i[:, None] == i[None, :], 1.0, 0.0)
    inverse += tl.where((i[:, None] ^ i[None, :]) == 1, N, 0.0)
    for level in range(1, LEVELS):
        block = i >> level  # of 2^level positions; neighbours differ in the last bit alone
        corner = tl.where((block[:, None] ^ block[None, :]) == 1, N, 0.0).to(SOLVE)
        held = inverse.to(SOLVE)
        joined = tl.dot(corner, held, input_precision=PRECISION).to(SOLVE)
        inverse = tl.dot(held, joined, inverse, input_precision=PRECISION)
    return inverse


@triton.jit
def _delta_rule_forward_kernel(
    q, k, v, beta, y, inverse, read,
    H: tl.constexpr, L: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    BLOCK_L: tl.constexpr, SLICE: tl.constexpr, LEVELS: tl.constexpr,
    PRECISION: tl.constexpr, SOLVE: tl.constexpr, SAVE: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) // H).to(tl.int64) * L * H + tl.program_id(0) % H
    t = tl.arange(0, BLOCK_L)
    beta = tl.load(beta + row + t * H, mask=t < L, other=0.0).to(tl.float32)
    N = tl.zeros([BLOCK_L, BLOCK_L], tl.float32)
    for c in range(0, K, SLICE):
        k_c = load_rows(k + row * K + c, H * K, L, K - c, BLOCK_L, SLICE)
        N = tl.dot(k_c, tl.trans(k_c), N, input_precision=PRECISION)
    N = tl.where(t[:, None] > t[None, :], N * -beta[:, None], 0.0)
    solved = _inverse(N, LEVELS, BLOCK_L, SOLVE, PRECISION)
    # loaded only here, because the loop above needs the registers
    P = tl.zeros([BLOCK_L, BLOCK_L], tl.float32)
    for c in range(0, K, SLICE):
        q_c = load_rows(q + row * K + c, H * K, L, K - c, BLOCK_L, SLICE)
        k_c = load_rows(k + row * K + c, H * K, L, K - c, BLOCK_L, SLICE)
        P = tl.dot(q_c, tl.trans(k_c), P, input_precision=PRECISION)
    P = tl.where(t[:, None] >= t[None, :], P * (1 / K**0.5), 0.0)
    P_solved = tl.dot(P, solved, input_precision=PRECISION).to(v.dtype.element_ty)
    for c in range(0, V, SLICE):
        v_c = load_rows(v + row * V + c, H * V, L, V - c, BLOCK_L, SLICE)
        beta_v = (v_c * beta[:, None]).to(v_c.dtype)
        out = tl.dot(P_solved, beta_v, input_precision=PRECISION)
        store_rows(y + row * V + c, out, H * V, L, V - c, BLOCK_L, SLICE)
    if SAVE:
        square = tl.program_id(0).to(tl.int64) * L * L
        store_rows(inverse + square, solved, L, L, L, BLOCK_L, BLOCK_L)
        store_rows(read + square, P_solved, L, L, L, BLOCK_L, BLOCK_L)


@triton.jit
def _delta_rule_backward_kernel(
    q, k, v, beta, inverse, read, dy, dq, dk, dv, dbeta,
    H: tl.constexpr, L: tl.constexpr, K: tl.constexpr, V: tl.constexpr,
    BLOCK_L: tl.constexpr, SLICE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) // H).to(tl.int64) * L * H + tl.program_id(0) % H
    square = tl.program_id(0).to(tl.int64) * L * L
    t = tl.arange(0, BLOCK_L)
    P_solved = load_rows(read + square, L, L, L, BLOCK_L, BLOCK_L)
    solved = load_rows(inverse + square, L, L, L, BLOCK_L, BLOCK_L)
    beta = tl.load(beta + row + t * H, mask=t < L, other=0.0).to(tl.float32)
    to_beta = tl.zeros([BLOCK_L], tl.float32)
    dP = tl.zeros([BLOCK_L, BLOCK_L], tl.float32)
    minus_dN = tl.zeros([BLOCK_L, BLOCK_L], tl.float32)
    for c in range(0, V, SLICE):
        dy_c = load_rows(dy + row * V + c, H * V, L, V - c, BLOCK_L, SLICE)
        v_c = load_rows(v + row * V + c, H * V, L, V - c, BLOCK_L, SLICE)
        to_beta_v = tl.dot(tl.trans(P_solved), dy_c, input_precision=PRECISION)
        to_v = to_beta_v * beta[:, None]
        store_rows(dv + row * V + c, to_v, H * V, L, V - c, BLOCK_L, SLICE)
        to_beta += tl.sum(to_beta_v * v_c, 1)
        beta_v = (v_c * beta[:, None]).to(v_c.dtype)
        u = tl.dot(solved, beta_v, input_precision=PRECISION).to(v_c.dtype)
        dP = tl.dot(dy_c, tl.trans(u), dP, input_precision=PRECISION)
        # dN = (I - N)^-T P^T dy u^T, and the first three factors are to_beta_v
        to_beta_v = to_beta_v.to(dy_c.dtype)
        minus_dN = tl.dot(to_beta_v, tl.trans(u), minus_dN, input_precision=PRECISION)
    dP = tl.where(t[:, None] >= t[None, :], dP * (1 / K**0.5), 0.0).to(k.dtype.element_ty)
    minus_dN = tl.where(t[:, None] > t[None, :], -minus_dN, 0.0).to(k.dtype.element_ty)
    for c in range(0, K, SLICE):
        k_c = load_rows(k + row * K + c, H * K, L, K - c, BLOCK_L, SLICE)
        q_c = load_rows(q + row * K + c, H * K, L, K - c, BLOCK_L, SLICE)
        to_q = tl.dot(dP, k_c, input_precision=PRECISION)
        store_rows(dq + row * K + c, to_q, H * K, L, K - c, BLOCK_L, SLICE)
        to_k = tl.dot(tl.trans(dP), q_c, input_precision=PRECISION)
        from_keys = tl.dot(minus_dN, k_c, input_precision=PRECISION)
        to_beta += tl.sum(from_keys * k_c, 1)
        to_k += from_keys * beta[:, None]
        beta_k = (k_c * beta[:, None]).to(k_c.dtype)
        to_k = tl.dot(tl.trans(minus_dN), beta_k, to_k, input_precision=PRECISION)
        store_rows(dk + row * K + c, to_k, H * K, L, K - c, BLOCK_L, SLICE)
    tl.store(dbeta + row + t * H, to_beta.to(dbeta.dtype.element_ty), mask=t < L)


def _sizes(q: Tensor, v: Tensor) -> dict[str, int | str]:
    (L, H, K), V = q.shape[2:], v.shape[-1]
    sizes = {"H": H, "L": L, "K": K, "V": V, "BLOCK_L": padded(L), "SLICE": SLICE}
    # of what is float32: see attention_triton. With more stages, tiles of several slices would have
    # to fit at once
    precision = "tf32" if q.dtype == torch.bfloat16 else "tf32x3"
    return {**sizes, "PRECISION": precision, "num_warps": padded(L) // 16, "num_stages": 1}


def _solver(q: Tensor) -> dict[str, object]:
    """What the forward takes besides."""
    levels = padded(q.shape[2]).bit_length() - 1
    if q.dtype == torch.float32:
        return {"LEVELS": levels, "SOLVE": tl.float32}
    # float16 errs as little as tf32 at half the cost, and no number of the inverse is too large
    # for it. 168 registers let three programs of four warps share a multiprocessor; left alone,
    # the compiler takes 172
    return {"LEVELS": levels, "SOLVE": tl.float16, "maxnreg": 168 if levels == 6 else None}


@torch.library.custom_op("zoorecall::delta_rule", mutates_args=())
def _forward(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, save: bool
) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v, beta = (x.contiguous() for x in (q, k, v, beta))
    y, inverse, read = _outputs(v, save)
    R, B, _, H = beta.shape
    with torch.cuda.device_of(q):
        _delta_rule_forward_kernel[(R * B * H,)](
            q, k, v, beta, y, inverse, read, **_sizes(q, v), **_solver(q), SAVE=save
        )
    return y, inverse, read


def _outputs(v: Tensor, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    R, B, L, H, _ = v.shape
    shape = (R, B, H, L, L) if save else (0,)
    return v.new_empty(v.shape), v.new_empty(shape), v.new_empty(shape)


@_forward.register_fake
def _(q, k, v, beta, save):
    return _outputs(v, save)


@torch.library.custom_op("zoorecall::delta_rule_backward", mutates_args=())
def _backward(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, inverse: Tensor, read: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    q, k, v, beta, dy = (x.contiguous() for x in (q, k, v, beta, dy))
    dq, dk, dv, dbeta = (torch.empty_like(x) for x in (q, k, v, beta))
    R, B, _, H = beta.shape
    with torch.cuda.device_of(q):
        _delta_rule_backward_kernel[(R * B * H,)](
            q, k, v, beta, inverse, read, dy, dq, dk, dv, dbeta, **_sizes(q, v)
        )
    return dq, dk, dv, dbeta


@_backward.register_fake
def _(q, k, v, beta, inverse, read, dy):
    return tuple(x.new_empty(x.shape) for x in (q, k, v, beta))


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:-1], *output[1:])
    ctx.set_materialize_grads(
        False
    )  # else autograd would allocate zeros as gradients of both matrices


def _gradients(ctx, dy, *_):
    return *_backward(*ctx.saved_tensors, dy), None


_forward.register_autograd(_gradients, setup_context=_save)


def fits(dtype: torch.dtype, L: int, K: int, V: int) -> bool:
    """Whether the kernels take this dtype, length and these head dims, in one chunk or several."""
    return fits_on_chip(dtype, L, K, V) or delta_rule_chunks_triton.fits(dtype, K, V)


def delta_rule_triton(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    """The delta rule, as `delta_rule.delta_rule`: y [R, B, L, H, V].

    q, k [R, B, L, H, K], v [R, B, L, H, V] and beta [R, B, L, H] are all bfloat16 or all float32.
    Sums are float32; for the backward a head keeps 2 L^2 numbers, where it takes several chunks of
    64 positions L (64 + K + V + K V / 64). Raises ValueError for other shapes and dtypes and where
    `fits` is False.
    """
    (R, B, L, H, K), V = q.shape, v.shape[-1]
    if [x.shape for x in (k, v, beta)] != [(R, B, L, H, K), (R, B, L, H, V), (R, B, L, H)]:
        shapes = [list(x.shape) for x in (q, k, v, beta)]
        raise ValueError(f"q, k, v and beta do not fit: {shapes}")
    inputs = (q, k, v, beta)
    dtypes = [x.dtype for x in inputs]
    if len(set(dtypes)) > 1 or not fits(dtypes[0], L, K, V):
        sizes = f"length {L}, head dims {K} and {V}, {dtypes}"
        raise ValueError(f"no kernel for {sizes}: use ops.delta_rule")
    save = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    form = _forward if fits_on_chip(dtypes[0], L, K, V) else delta_rule_chunks
    return form(*inputs, save)[0]

"""The MLP half of a layer for CUDA, forward and backward, with the hidden activations on chip.

y = x + W2 a + b2 with a = gelu(h), h = W1 n + b1, n = LN(x), as `mlp.mlp_reference`.
Shape letters: R runs, T tokens, D width, F hidden width.

The forward keeps some tokens on chip and goes over the hidden width in chunks. The backward
recomputes n, h and a from the inputs: once token by token for the gradient of x, once chunk by
chunk for those of the weights. At small D these three more products cost less than moving
[R, T, F] through memory a dozen times. Sums over tokens are written as one partial sum a program
and added afterwards, so the same input gives the same bits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_WIDTH = 128
"""The widest D: beyond, the products made twice cost more than the traffic they save."""
PROGRAMS = 1188
"""The most programs of the weight gradients: three rounds of what an H100 holds at width 64, three
on each of its 132 multiprocessors."""


@triton.jit
def _load_tile(pointer, rows, num_rows, columns, num_columns, stride):
    """Some rows and columns of a matrix whose rows begin `stride` numbers apart, zeros outside."""
    inside = (rows < num_rows)[:, None] & (columns < num_columns)[None, :]
    return tl.load(pointer + rows[:, None] * stride + columns[None, :], mask=inside, other=0.0)


@triton.jit
def _store_tile(pointer, value, rows, num_rows, columns, num_columns, stride):
    inside = (rows < num_rows)[:, None] & (columns < num_columns)[None, :]
    value = value.to(pointer.dtype.element_ty)
    tl.store(pointer + rows[:, None] * stride + columns[None, :], value, mask=inside)


@triton.jit
def _load_row(pointer, columns, num_columns):
    """Some columns of a vector as [1, columns], zeros outside."""
    return tl.load(pointer + columns, mask=columns < num_columns, other=0.0)[None, :]


@triton.jit
def _upper_tail(h):
    """P(Z > |h|) of a standard normal Z, to 7e-8, and to 0.4 % of itself as far as |h| = 5.

    Its logarithm is nearly a parabola, so a short polynomial serves: a minimax fit on [0, 6] that
    falls for ever after. These kernels spend most of their time on GELU; this is half as long as
    `erf`, which besides loses its digits where 1 + erf is near zero.
    """
    z = tl.abs(h)
    p = z * -2.085504e-06 + 3.093497e-05
    p = p * z - 0.0001489452
    p = p * z - 0.0002190087
    p = p * z + 0.007159043
    p = p * z - 0.05255332
    p = p * z - 0.4591927
    p = p * z - 1.151107
    return tl.exp2(p * z - 1.0)


@triton.jit
def _gelu(h, tail):
    """h P(Z < h), `tail` being h's."""
    return tl.maximum(h, 0.0) - tl.abs(h) * tail


@triton.jit
def _gelu_slope(h, tail):
    """The derivative of GELU: P(Z < h) + h times the density at h."""
    density = tl.exp2(h * h * -0.7213475204444817 - 1.3257480647361592)  # exp(-h^2/2) / sqrt(2 pi)
    return tl.where(h > 0, 1.0 - tail, tail) + h * density


@triton.jit
def _moments(x, eps, D: tl.constexpr, BLOCK_D: tl.constexpr):
    """Mean of the rows of x, and one over their standard deviation."""
    x = x.to(tl.float32)
    mean = tl.sum(x, 1) / D
    centered = tl.where((tl.arange(0, BLOCK_D) < D)[None, :], x - mean[:, None], 0.0)
    return mean, tl.rsqrt(tl.sum(centered * centered, 1) / D + eps)


@triton.jit
def _mlp_forward_kernel(
    x, gamma, beta, w1, b1, w2, b2, y, gamma_run, beta_run, b1_run, b2_run, T, eps,
    D: tl.constexpr, F: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    run = tl.program_id(1).to(tl.int64)
    t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    d = tl.arange(0, BLOCK_D)
    x_tile = _load_tile(x + run * T * D, t, T, d, D, D)
    mean, scale = _moments(x_tile, eps, D, BLOCK_D)
    normed = (x_tile - mean[:, None]) * scale[:, None] * _load_row(gamma + run * gamma_run, d, D)
    normed = (normed + _load_row(beta + run * beta_run, d, D)).to(x_tile.dtype)
    total = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    for start in range(0, F, BLOCK_F):
        f = start + tl.arange(0, BLOCK_F)
        w1_tile = _load_tile(w1 + run * F * D, f, F, d, D, D)
        w2_tile = _load_tile(w2 + run * D * F, d, D, f, F, F)
        h = tl.dot(normed, tl.trans(w1_tile), input_precision=PRECISION)
        h += _load_row(b1 + run * b1_run, f, F)
        a = _gelu(h, _upper_tail(h)).to(x_tile.dtype)
        total = tl.dot(a, tl.trans(w2_tile), total, input_precision=PRECISION)
    total += _load_row(b2 + run * b2_run, d, D)
    _store_tile(y + run * T * D, x_tile + total, t, T, d, D, D)


@triton.jit
def _mlp_input_gradient_kernel(
    x, gamma, beta, w1, b1, w2, dy, dx, normed_x, sums, gamma_run, beta_run, b1_run, T, eps,
    D: tl.constexpr, F: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dx, the normed x for the kernel behind, and sums over the block's tokens: the gradients of
    the norm's weight, of its bias and of b2."""
    run = tl.program_id(1).to(tl.int64)
    t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    d = tl.arange(0, BLOCK_D)
    x_tile = _load_tile(x + run * T * D, t, T, d, D, D)
    dy_tile = _load_tile(dy + run * T * D, t, T, d, D, D)
    mean, scale = _moments(x_tile, eps, D, BLOCK_D)
    normed = (x_tile - mean[:, None]) * scale[:, None] * _load_row(gamma + run * gamma_run, d, D)
    normed = (normed + _load_row(beta + run * beta_run, d, D)).to(x_tile.dtype)
    _store_tile(normed_x + run * T * D, normed, t, T, d, D, D)
    dnormed = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    for start in range(0, F, BLOCK_F):
        f = start + tl.arange(0, BLOCK_F)
        w1_tile = _load_tile(w1 + run * F * D, f, F, d, D, D)
        w2_tile = _load_tile(w2 + run * D * F, d, D, f, F, F)
        h = tl.dot(normed, tl.trans(w1_tile), input_precision=PRECISION)
        h += _load_row(b1 + run * b1_run, f, F)
        da = tl.dot(dy_tile, w2_tile, input_precision=PRECISION)
        dh = (da * _gelu_slope(h, _upper_tail(h))).to(x_tile.dtype)
        dnormed = tl.dot(dh, w1_tile, dnormed, input_precision=PRECISION)

    # each input is loaded once more where it is needed, because the loop needs the registers
    sums += (run * tl.num_programs(0) + tl.program_id(0)) * 3 * D + d
    x_tile = _load_tile(x + run * T * D, t, T, d, D, D)
    standard = (x_tile - mean[:, None]) * scale[:, None]
    tl.store(sums, tl.sum(dnormed * standard, 0), mask=d < D)
    tl.store(sums + D, tl.sum(dnormed, 0), mask=d < D)
    dstandard = dnormed * _load_row(gamma + run * gamma_run, d, D)
    along = tl.sum(dstandard * standard, 1) / D
    dcentered = dstandard - (tl.sum(dstandard, 1) / D)[:, None] - standard * along[:, None]
    dy_tile = _load_tile(dy + run * T * D, t, T, d, D, D)
    tl.store(sums + 2 * D, tl.sum(dy_tile.to(tl.float32), 0), mask=d < D)
    _store_tile(dx + run * T * D, dy_tile + dcentered * scale[:, None], t, T, d, D, D)


@triton.jit
def _mlp_weight_gradient_kernel(
    normed_x, w1, b1, w2, dy, dw1, db1, dw2, b1_run, T,
    D: tl.constexpr, F: tl.constexpr, BLOCKS: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Of one chunk of F, the sums over `BLOCKS` blocks of tokens. Features are rows here and tokens
    columns, so that what one product gives is the left factor of the next, in registers."""
    run = tl.program_id(2).to(tl.int64)
    f = tl.program_id(0) * BLOCK_F + tl.arange(0, BLOCK_F)
    d = tl.arange(0, BLOCK_D)
    w1_tile = _load_tile(w1 + run * F * D, f, F, d, D, D)
    w2_tile = tl.trans(_load_tile(w2 + run * D * F, d, D, f, F, F))  # [F, D]
    b1_tile = tl.trans(_load_row(b1 + run * b1_run, f, F))
    to_w1 = tl.zeros([BLOCK_F, BLOCK_D], tl.float32)
    to_w2 = tl.zeros([BLOCK_F, BLOCK_D], tl.float32)
    to_b1 = tl.zeros([BLOCK_F], tl.float32)
    for block in range(BLOCKS):
        t = (tl.program_id(1) * BLOCKS + block) * BLOCK_T + tl.arange(0, BLOCK_T)
        n_tile = _load_tile(normed_x + run * T * D, t, T, d, D, D)
        dy_tile = _load_tile(dy + run * T * D, t, T, d, D, D)
        h = tl.dot(w1_tile, tl.trans(n_tile), input_precision=PRECISION) + b1_tile
        da = tl.dot(w2_tile, tl.trans(dy_tile), input_precision=PRECISION)
        tail = _upper_tail(h)
        dh = da * _gelu_slope(h, tail)
        to_b1 += tl.sum(dh, 1)
        to_w1 = tl.dot(dh.to(n_tile.dtype), n_tile, to_w1, input_precision=PRECISION)
        a = _gelu(h, tail).to(dy_tile.dtype)
        to_w2 = tl.dot(a, dy_tile, to_w2, input_precision=PRECISION)
    part = run * tl.num_programs(1) + tl.program_id(1)
    _store_tile(dw1 + part * F * D, to_w1, f, F, d, D, D)
    _store_tile(dw2 + part * D * F, tl.trans(to_w2), d, D, f, F, F)
    tl.store(db1 + part * F + f, to_b1, mask=f < F)


def fits(dtype: torch.dtype, D: int) -> bool:
    """Whether the kernels take this dtype and width; any hidden width and number of tokens do."""
    widest = {torch.bfloat16: MAX_WIDTH, torch.float32: MAX_WIDTH // 2}.get(dtype, 0)
    return widest >= D


def _sizes(x: Tensor, w1: Tensor, allow_tf32: bool) -> dict[str, int | str]:
    F, D = w1.shape[1:]
    # of float32 alone: three products of halves in tf32, as in attention_triton
    precision = "tf32" if allow_tf32 or x.dtype == torch.bfloat16 else "tf32x3"
    block_d = max(16, triton.next_power_of_2(D))
    return {"D": D, "F": F, "BLOCK_D": block_d, "PRECISION": precision}


def _token_tiles(dtype: torch.dtype) -> dict[str, int]:
    """Tiles of the kernels that own tokens: these and the next are the largest that hold their
    tiles in registers at the widest D."""
    chunk = 32 if dtype == torch.float32 else 64
    return {"BLOCK_T": 64, "BLOCK_F": chunk, "num_warps": 4, "num_stages": 2}


def _chunk_tiles(dtype: torch.dtype, D: int) -> dict[str, int]:
    """Tiles of the kernel that owns chunks of the hidden width."""
    if dtype == torch.float32:
        return {"BLOCK_T": 32, "BLOCK_F": 32, "num_warps": 4, "num_stages": 2}
    return {"BLOCK_T": 64 if D <= 64 else 32, "BLOCK_F": 64, "num_warps": 4, "num_stages": 2}


def _rows(p: Tensor) -> Tensor:
    """[R, n] with neighbours in memory along n; the parameters of a pack are, with gaps between
    the runs."""
    return p if p.stride(1) == 1 else p.contiguous()


def _as(x: Tensor, weight: Tensor) -> Tensor:
    """A weight as the kernels read it: without gaps, in x's dtype."""
    return weight.to(x.dtype).contiguous()


@torch.library.custom_op("zoorecall::mlp", mutates_args=())
def _forward(
    x: Tensor, norm_weight: Tensor, norm_bias: Tensor, w1: Tensor, b1: Tensor, w2: Tensor,
    b2: Tensor, eps: float, allow_tf32: bool,
) -> Tensor:  # fmt: skip
    x, w1, w2 = x.contiguous(), _as(x, w1), _as(x, w2)
    gamma, beta, b1, b2 = (_rows(p) for p in (norm_weight, norm_bias, b1, b2))
    y, (R, T, _), tiles = torch.empty_like(x), x.shape, _token_tiles(x.dtype)
    with torch.cuda.device_of(x):
        _mlp_forward_kernel[(triton.cdiv(T, tiles["BLOCK_T"]), R)](
            x, gamma, beta, w1, b1, w2, b2, y,
            gamma.stride(0), beta.stride(0), b1.stride(0), b2.stride(0), T, eps,
            **_sizes(x, w1, allow_tf32), **tiles,
        )  # fmt: skip
    return y


@_forward.register_fake
def _(x, norm_weight, norm_bias, w1, b1, w2, b2, eps, allow_tf32):
    return x.new_empty(x.shape)


@torch.library.custom_op("zoorecall::mlp_backward", mutates_args=())
def _backward(
    x: Tensor, norm_weight: Tensor, norm_bias: Tensor, w1: Tensor, b1: Tensor, w2: Tensor,
    dy: Tensor, eps: float, allow_tf32: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """dx, then [R, 3, D] of the norm's weight, its bias and b2, then those of w1, b1 and w2."""
    x, dy, w1, w2 = x.contiguous(), dy.contiguous(), _as(x, w1), _as(x, w2)
    gamma, beta, b1 = (_rows(p) for p in (norm_weight, norm_bias, b1))
    (R, T, D), F, sizes = x.shape, w1.shape[1], _sizes(x, w1, allow_tf32)
    tokens, chunks = _token_tiles(x.dtype), _chunk_tiles(x.dtype, D)
    blocks, num_chunks = triton.cdiv(T, chunks["BLOCK_T"]), triton.cdiv(F, chunks["BLOCK_F"])
    # fewer than four blocks a program would write more partial sums than it reads tokens
    blocks_each = max(4, triton.cdiv(blocks, max(1, PROGRAMS // (R * num_chunks))))
    parts = triton.cdiv(blocks, blocks_each)

    dx, normed_x = torch.empty_like(x), torch.empty_like(x)
    sums = b1.new_empty(R, triton.cdiv(T, tokens["BLOCK_T"]), 3, D)
    dw1, db1, dw2 = (b1.new_empty(R, parts, *shape) for shape in ((F, D), (F,), (D, F)))
    with torch.cuda.device_of(x):
        _mlp_input_gradient_kernel[(sums.shape[1], R)](
            x, gamma, beta, w1, b1, w2, dy, dx, normed_x, sums,
            gamma.stride(0), beta.stride(0), b1.stride(0), T, eps, **sizes, **tokens,
        )  # fmt: skip
        _mlp_weight_gradient_kernel[(num_chunks, parts, R)](
            normed_x, w1, b1, w2, dy, dw1, db1, dw2, b1.stride(0), T,
            BLOCKS=blocks_each, **sizes, **chunks,
        )  # fmt: skip
    return dx, sums.sum(1), dw1.sum(1), db1.sum(1), dw2.sum(1)


@_backward.register_fake
def _(x, norm_weight, norm_bias, w1, b1, w2, dy, eps, allow_tf32):
    (R, _, D) = x.shape
    shared = b1.new_empty(R, 3, D)
    return (x.new_empty(x.shape), shared, *(p.new_empty(p.shape) for p in (w1, b1, w2)))


def _save(ctx, inputs, output):
    *tensors, _, eps, allow_tf32 = inputs  # b2 is not needed
    ctx.save_for_backward(*tensors)
    ctx.options = (eps, allow_tf32)


def _gradients(ctx, dy):
    dx, shared, dw1, db1, dw2 = _backward(*ctx.saved_tensors, dy, *ctx.options)
    dgamma, dbeta, db2 = shared.unbind(1)
    return dx, dgamma, dbeta, dw1, db1, dw2, db2, None, None


_forward.register_autograd(_gradients, setup_context=_save)


def mlp_triton(
    x: Tensor, norm_weight: Tensor, norm_bias: Tensor, w1: Tensor, b1: Tensor, w2: Tensor,
    b2: Tensor, eps: float, allow_tf32: bool = False,
) -> Tensor:  # fmt: skip
    """y [R, T, D] of x [R, T, D] as `mlp.mlp_reference`, in x's dtype, bfloat16 or float32.

    norm_weight, norm_bias and b2 [R, D], b1 [R, F], w1 [R, F, D] and w2 [R, D, F] are float32, as
    are their gradients; the weights are multiplied in x's dtype, sums are float32. `allow_tf32`
    multiplies float32 with 10 bits of mantissa. eps is positive. Raises ValueError for other shapes
    and dtypes and where `fits` is False.
    """
    (R, _, D), F = x.shape, w1.shape[1]
    parameters = (norm_weight, norm_bias, w1, b1, w2, b2)
    shapes = [(R, D), (R, D), (R, F, D), (R, F), (R, D, F), (R, D)]
    if [p.shape for p in parameters] != shapes:
        raise ValueError(f"x {list(x.shape)} does not fit {[list(p.shape) for p in parameters]}")
    if any(p.dtype != torch.float32 for p in parameters):
        raise ValueError(f"the parameters must be float32, not {[p.dtype for p in parameters]}")
    if not fits(x.dtype, D):
        raise ValueError(f"no kernel for width {D} in {x.dtype}: use the reference")
    return _forward(x, *parameters, eps, allow_tf32)

"""Short causal depthwise convolution for CUDA, with its bias and SiLU in the same pass.

    y_t = act(a_t),  a_t = bias + sum_j weight[:, j] * x_{t - (T-1) + j},  act the identity or SiLU

Shape letters: R runs, B batch, L length, C channels, T taps.

There is little to compute, so the aim is to move every number once: the forward reads x and writes
y; the backward, which recomputes a, reads x and dy and writes dx. A program owns some channels of
one run and goes over tiles of neighbouring positions of a sequence. It loads all rows of a tile at
once, those shared with the neighbouring tiles from the cache, and does the rest in registers. The
gradients of weight and bias are summed over a program's tiles; these partial sums are added
afterwards, without atomics, so the same input gives the same bits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tiles import store, window

MAX_TAPS = 8
"""The most taps whose rows fit in registers."""
SPAN = 16
"""Most positions of a tile. Larger tiles load fewer rows twice, but need more registers."""
TILES = 16
"""Tiles of a program. With more tiles there are fewer partial sums, but also fewer programs."""
CHANNELS = 128
"""Most channels of a program. A thread has two, 4 bytes of bfloat16, because rows that are sliced
from wider ones often begin at odd multiples of 4 bytes."""


@triton.jit
def _place(splits, width: tl.constexpr, BLOCK_C: tl.constexpr):
    """A program's run, its number among those that share the run's tiles, and its channels."""
    blocks: tl.constexpr = (width + BLOCK_C - 1) // BLOCK_C
    owner = tl.program_id(0) // blocks
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    return (owner // splits).to(tl.int64), owner % splits, c


@triton.jit
def _parameters(weight, bias, strides, run, c, in_c, T: tl.constexpr):
    """The taps, a tuple, and the bias."""
    weight += run * strides[0] + c * strides[1]
    taps: tl.tuple = ()
    for j in tl.static_range(T):
        taps += (tl.load(weight + j * strides[2], mask=in_c, other=0.0),)
    shift = tl.zeros(c.shape, tl.float32)
    if bias is not None:
        shift = tl.load(bias + run * strides[3] + c * strides[4], mask=in_c, other=0.0)
    return taps, shift


@triton.jit
def _convolve(taps, shift, rows, k: tl.constexpr, T: tl.constexpr):
    """a of the k-th position, where rows[0] is T - 1 positions before the first."""
    a = shift
    for j in tl.static_range(T):
        a += taps[j] * rows[k + j]
    return a


@triton.jit
def _sigmoid(a):
    # 1 / (1 + e^-a): a GPU has an instruction for inverse roots, a division takes several
    root = tl.rsqrt(1.0 + tl.exp2(a * -1.4426950408889634))
    return root * root


@triton.jit
def _conv_forward_kernel(
    x, weight, bias, y, x_run, x_sequence: tl.constexpr, x_row: tl.constexpr, strides,
    batch, splits, length: tl.constexpr, width: tl.constexpr, T: tl.constexpr, SILU: tl.constexpr,
    SPAN: tl.constexpr, TILES: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    run, split, c = _place(splits, width, BLOCK_C)
    in_c = c < width
    taps, shift = _parameters(weight, bias, strides, run, c, in_c, T)
    x += run * x_run + c
    y += run * batch * (length * width) + c
    spans: tl.constexpr = (length + SPAN - 1) // SPAN  # tiles of a sequence
    for i in range(TILES):
        tile = split * TILES + i
        sequence, t = (tile // spans).to(tl.int64), tile % spans * SPAN
        inside = in_c & (sequence < batch)
        xs = window(x + sequence * x_sequence, x_row, t - (T - 1), inside, SPAN + T - 1, length)
        out = y + sequence * (length * width) + t * width
        for k in tl.static_range(SPAN):
            a = _convolve(taps, shift, xs, k, T)
            if SILU:
                a *= _sigmoid(a)
            store(out + k * width, a, inside & (t + k < length))


@triton.jit
def _conv_backward_kernel(
    x, weight, bias, dy, dx, sums, x_run, x_sequence: tl.constexpr, x_row: tl.constexpr, strides,
    batch, splits, length: tl.constexpr, width: tl.constexpr, T: tl.constexpr, SILU: tl.constexpr,
    SPAN: tl.constexpr, TILES: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    run, split, c = _place(splits, width, BLOCK_C)
    in_c = c < width
    taps, shift = _parameters(weight, bias, strides, run, c, in_c, T)
    x += run * x_run + c
    dy += run * batch * (length * width) + c
    dx += run * batch * (length * width) + c
    dtaps: tl.tuple = ()
    for _ in tl.static_range(T):
        dtaps += (tl.zeros([BLOCK_C], tl.float32),)
    dshift = tl.zeros([BLOCK_C], tl.float32)
    spans: tl.constexpr = (length + SPAN - 1) // SPAN
    for i in range(TILES):
        tile = split * TILES + i
        sequence, t = (tile // spans).to(tl.int64), tile % spans * SPAN
        inside = in_c & (sequence < batch)
        # x_t reaches y up to T - 1 positions later, and those depend on x as long before
        xs = window(x + sequence * x_sequence, x_row, t - (T - 1), inside, SPAN + 2 * T - 2, length)
        das = window(dy + sequence * (length * width), width, t, inside, SPAN + T - 1, length)
        if SILU:
            dys = das
            das = ()
            for k in tl.static_range(SPAN + T - 1):
                a = _convolve(taps, shift, xs, k, T)
                s = _sigmoid(a)
                das += (dys[k] * (s + s * (a - a * s)),)
        out = dx + sequence * (length * width) + t * width
        for k in tl.static_range(SPAN):
            to_x = taps[T - 1] * das[k]
            for j in tl.static_range(1, T):
                to_x += taps[T - 1 - j] * das[k + j]
            store(out + k * width, to_x, inside & (t + k < length))
        before = dtaps
        dtaps = ()
        for j in tl.static_range(T):
            total = before[j]
            for k in tl.static_range(SPAN):
                total += das[k] * xs[k + j]
            dtaps += (total,)
        for k in tl.static_range(SPAN):
            dshift += das[k]
    sums += (run * splits + split) * ((T + 1) * width) + c
    for j in tl.static_range(T):
        tl.store(sums + j * width, dtaps[j], mask=in_c)
    tl.store(sums + T * width, dshift, mask=in_c)


def _spans(length: int) -> tuple[int, int]:
    """Positions of a tile and tiles of a sequence, as even as can be."""
    count = triton.cdiv(length, SPAN)
    return triton.cdiv(length, count), count


def _splits(x: Tensor) -> int:
    """Programs that share the tiles of a run."""
    return triton.cdiv(x.shape[1] * _spans(x.shape[2])[1], TILES)


def _launch(
    kernel, x: Tensor, weight: Tensor, bias: Tensor | None, others: tuple[Tensor, ...], silu: bool
) -> None:
    R, batch, length, width = x.shape
    # a divisor of the width spares its last program idle lanes
    block = min(CHANNELS, max(32, width & -width))
    splits = _splits(x)
    strides = (*weight.stride(), *(bias.stride() if bias is not None else (0, 0)))
    with torch.cuda.device_of(x):
        kernel[(R * splits * triton.cdiv(width, block),)](
            x, weight, bias, *others, *x.stride()[:3], strides,
            batch, splits, length, width, T=weight.shape[-1], SILU=silu,
            SPAN=_spans(length)[0], TILES=TILES, BLOCK_C=block, num_warps=max(1, block // 64),
        )  # fmt: skip


def _channels_last(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


@torch.library.custom_op("zoorecall::causal_conv", mutates_args=())
def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool) -> Tensor:
    y = x.new_empty(x.shape)
    _launch(_conv_forward_kernel, _channels_last(x), weight, bias, (y,), silu)
    return y


@_forward.register_fake
def _(x, weight, bias, silu):
    return x.new_empty(x.shape)


@torch.library.custom_op("zoorecall::causal_conv_backward", mutates_args=())
def _backward(
    x: Tensor, weight: Tensor, bias: Tensor | None, dy: Tensor, silu: bool
) -> tuple[Tensor, Tensor]:
    dx, sums = _gradient_outputs(x, weight)
    others = (dy.contiguous(), dx, sums)
    _launch(_conv_backward_kernel, _channels_last(x), weight, bias, others, silu)
    return dx, sums


def _gradient_outputs(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of x, and partial sums [R, splits, T + 1, C] of those of the taps and bias."""
    R, C, T = weight.shape
    return x.new_empty(x.shape), weight.new_empty(R, _splits(x), T + 1, C)


@_backward.register_fake
def _(x, weight, bias, dy, silu):
    return _gradient_outputs(x, weight)


def _save(ctx, inputs, output):
    x, weight, bias, ctx.silu = inputs
    ctx.save_for_backward(x, weight, bias)


def _gradients(ctx, dy):
    x, weight, bias = ctx.saved_tensors
    dx, sums = _backward(x, weight, bias, dy, ctx.silu)
    dweight, dbias = sums.sum(1).split([weight.shape[-1], 1], dim=1)
    return dx, dweight.mT, None if bias is None else dbias.squeeze(1), None


_forward.register_autograd(_gradients, setup_context=_save)


def causal_conv_triton(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, silu: bool = False
) -> Tensor:
    """The causal convolution of x [R, B, L, C], SiLU of it if `silu`: y [R, B, L, C] in x's dtype.

    weight [R, C, T] and bias [R, C] are float32, T is at most 8; sums are float32. x may be sliced
    from a wider tensor: its rows are read where they lie. Raises ValueError for other shapes and
    dtypes.
    """
    (R, _, _, C), T = x.shape, weight.shape[-1]
    if weight.shape != (R, C, T) or (bias is not None and bias.shape != (R, C)):
        shapes = [list(p.shape) for p in (weight, bias) if p is not None]
        raise ValueError(f"weight and bias {shapes} do not fit x {list(x.shape)}")
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"x must be float32, bfloat16 or float16, not {x.dtype}")
    if any(p is not None and p.dtype != torch.float32 for p in (weight, bias)):
        raise ValueError("weight and bias must be float32")
    if T > MAX_TAPS:
        raise ValueError(f"{T} taps are more than {MAX_TAPS}: use the reference")
    return _forward(x, weight, bias, silu)

"""RWKV-4's WKV for CUDA, forward and backward, one parameter set a run.

    y_t = mean_t + sigmoid(k_t + u - log_t) (v_t - mean_t)
    mean_{t+1} = mean_t + sigmoid(k_t + w - log_t) (v_t - mean_t)
    log_{t+1} = log(e^{log_t - w} + e^{k_t}),    mean_0 = 0, log_0 = -inf

as `wkv.fast` derives them. Shape letters: R runs, B batch, L length, C channels, K positions of a
chunk.

There is little to compute, so the aim is to move few bytes. A thread owns a channel of one sequence
and walks along the length, a chunk of K positions at a time; it loads the next chunk's rows while
it works on this one's. The forward stores mean and log in front of every chunk, 8 / K bytes a
number; the backward takes the chunks from the last to the first, repeats their K steps and goes
back through them in registers. RWKV's own CUDA kernel repeats the whole sequence instead and keeps
3 numbers a position on the way.

Exponents are in base 2. The gradients of w and u are written as a partial sum a sequence and added
afterwards, without atomics: the same input gives the same bits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tiles import store, window

CHUNK = 8
"""Positions between two stored states, K: more of them need less memory and more registers."""
CHANNELS = 128
"""Most channels of a program."""


@triton.jit
def _sigmoid(x):
    """1 / (1 + 2^-x), one minus it without cancellation, and 2^-|x|."""
    small = tl.exp2(-tl.abs(x))
    large = 1.0 / (1.0 + small)
    return tl.where(x < 0, small * large, large), tl.where(x < 0, large, small * large), small


@triton.jit
def _update(k, v, mean, log, w):
    """The state behind a position, and the shares of v and of the mean in the new mean."""
    new, old, small = _sigmoid(k + w - log)
    mean = new * v + old * mean
    return mean, tl.maximum(k, log - w) + tl.log2(1.0 + small), new, old


@triton.jit
def _place(width: tl.constexpr, batch, BLOCK_C: tl.constexpr):
    """A program's sequence (r * batch + b), its run, and its channels."""
    blocks: tl.constexpr = (width + BLOCK_C - 1) // BLOCK_C
    sequence = (tl.program_id(0) // blocks).to(tl.int64)
    return sequence, sequence // batch, tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)


@triton.jit
def _wkv_forward_kernel(
    k, v, w, u, y, states, batch, length: tl.constexpr, width: tl.constexpr,
    CHUNK: tl.constexpr, BLOCK_C: tl.constexpr, SAVE_STATES: tl.constexpr,
):  # fmt: skip
    log2_e: tl.constexpr = 1.4426950408889634
    sequence, run, c = _place(width, batch, BLOCK_C)
    in_c = c < width
    w_log2 = tl.load(w + run * width + c, mask=in_c, other=0.0) * log2_e
    u_log2 = tl.load(u + run * width + c, mask=in_c, other=0.0) * log2_e
    chunks: tl.constexpr = (length + CHUNK - 1) // CHUNK
    k += sequence * length * width + c
    v += sequence * length * width + c
    y += sequence * length * width + c
    states += sequence * chunks * 2 * width + c

    mean = tl.zeros([BLOCK_C], tl.float32)
    log = tl.full([BLOCK_C], float("-inf"), tl.float32)
    ks_ahead = window(k, width, 0, in_c, CHUNK, length)
    vs_ahead = window(v, width, 0, in_c, CHUNK, length)
    for first in range(0, length, CHUNK):
        if SAVE_STATES:
            tl.store(states, mean, mask=in_c)
            tl.store(states + width, log, mask=in_c)
            states += 2 * width
        ks, vs = ks_ahead, vs_ahead
        ks_ahead = window(k, width, first + CHUNK, in_c, CHUNK, length)
        vs_ahead = window(v, width, first + CHUNK, in_c, CHUNK, length)
        for i in tl.static_range(CHUNK):
            k_log2 = ks[i] * log2_e
            now, rest, _ = _sigmoid(k_log2 + u_log2 - log)
            store(y + (first + i) * width, now * vs[i] + rest * mean, in_c & (first + i < length))
            mean, log, _, _ = _update(k_log2, vs[i], mean, log, w_log2)


@triton.jit
def _wkv_backward_kernel(
    k, v, w, u, states, dy, dk, dv, dw, du, batch, length: tl.constexpr, width: tl.constexpr,
    CHUNK: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    log2_e: tl.constexpr = 1.4426950408889634
    sequence, run, c = _place(width, batch, BLOCK_C)
    in_c = c < width
    w_log2 = tl.load(w + run * width + c, mask=in_c, other=0.0) * log2_e
    u_log2 = tl.load(u + run * width + c, mask=in_c, other=0.0) * log2_e
    chunks: tl.constexpr = (length + CHUNK - 1) // CHUNK
    k += sequence * length * width + c
    v += sequence * length * width + c
    dy += sequence * length * width + c
    dk += sequence * length * width + c
    dv += sequence * length * width + c
    states += sequence * chunks * 2 * width + c

    dmean = tl.zeros([BLOCK_C], tl.float32)  # of the state behind the position
    dlog = tl.zeros([BLOCK_C], tl.float32)
    sum_w = tl.zeros([BLOCK_C], tl.float32)
    sum_u = tl.zeros([BLOCK_C], tl.float32)
    last: tl.constexpr = chunks - 1
    ks_ahead = window(k, width, last * CHUNK, in_c, CHUNK, length)
    vs_ahead = window(v, width, last * CHUNK, in_c, CHUNK, length)
    dys_ahead = window(dy, width, last * CHUNK, in_c, CHUNK, length)
    state_ahead = window(states, width, last * 2, in_c, 2, chunks * 2)
    for chunk in range(last, -1, -1):
        first = chunk * CHUNK
        ks, vs, dys, state = ks_ahead, vs_ahead, dys_ahead, state_ahead
        # in front of the first chunk there are zeros
        ks_ahead = window(k, width, first - CHUNK, in_c, CHUNK, length)
        vs_ahead = window(v, width, first - CHUNK, in_c, CHUNK, length)
        dys_ahead = window(dy, width, first - CHUNK, in_c, CHUNK, length)
        state_ahead = window(states, width, chunk * 2 - 2, in_c, 2, chunks * 2)
        mean, log = state[0], state[1]
        means: tl.tuple = ()
        shares: tl.tuple = ()
        for i in tl.static_range(CHUNK):
            k_log2 = ks[i] * log2_e
            now, rest, _ = _sigmoid(k_log2 + u_log2 - log)
            means += (mean,)
            mean, log, new, old = _update(k_log2, vs[i], mean, log, w_log2)
            shares += (now, rest, new, old)
        # positions beyond the end have dy = 0 and change nothing
        for i in tl.static_range(CHUNK - 1, -1, -1):
            now, rest, new, old = shares[4 * i : 4 * i + 4]
            ahead = vs[i] - means[i]
            to_now = dys[i] * ahead * now * rest
            to_new = dmean * ahead * new * old
            here, inside = (first + i) * width, in_c & (first + i < length)
            store(dv + here, dmean * new + dys[i] * now, inside)
            store(dk + here, to_new + to_now + dlog * new, inside)
            to_decayed = dlog * old - to_new  # the gradient of log - w
            sum_w -= to_decayed
            sum_u += to_now
            dlog = to_decayed - to_now
            dmean = dmean * old + dys[i] * rest
    tl.store(dw + sequence * width + c, sum_w, mask=in_c)
    tl.store(du + sequence * width + c, sum_u, mask=in_c)


def _launch(kernel, k: Tensor, *others: Tensor, **flags: bool) -> None:
    R, batch, length, width = k.shape
    # a divisor of the width spares its last program idle threads
    block = min(CHANNELS, max(32, width & -width))
    with torch.cuda.device_of(k):
        kernel[(R * batch * triton.cdiv(width, block),)](
            k, *others, batch, length, width,
            CHUNK=CHUNK, BLOCK_C=block, num_warps=block // 32, **flags,
        )  # fmt: skip


@torch.library.custom_op("zoorecall::wkv", mutates_args=())
def _forward(
    k: Tensor, v: Tensor, w: Tensor, u: Tensor, save_states: bool
) -> tuple[Tensor, Tensor]:
    y, states = _outputs(v, save_states)
    inputs = (x.contiguous() for x in (k, v, w, u))
    _launch(_wkv_forward_kernel, *inputs, y, states, SAVE_STATES=save_states)
    return y, states


def _outputs(v: Tensor, save_states: bool) -> tuple[Tensor, Tensor]:
    R, B, L, C = v.shape
    shape = (R, B, triton.cdiv(L, CHUNK), 2, C) if save_states else (0,)
    return v.new_empty(v.shape), v.new_empty(shape, dtype=torch.float32)


@_forward.register_fake
def _(k, v, w, u, save_states):
    return _outputs(v, save_states)


@torch.library.custom_op("zoorecall::wkv_backward", mutates_args=())
def _backward(
    k: Tensor, v: Tensor, w: Tensor, u: Tensor, states: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dk, dv, dw, du = _gradient_outputs(k, v, w)
    inputs = (x.contiguous() for x in (k, v, w, u, states, dy))
    _launch(_wkv_backward_kernel, *inputs, dk, dv, dw, du)
    return dk, dv, dw, du


def _gradient_outputs(k: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of k and v, and partial sums [R, B, C] of those of w and u."""
    R, batch, _, width = k.shape
    dw, du = (w.new_empty(R, batch, width) for _ in range(2))
    return k.new_empty(k.shape), v.new_empty(v.shape), dw, du


@_backward.register_fake
def _(k, v, w, u, states, dy):
    return _gradient_outputs(k, v, w)


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:-1], output[1])
    ctx.set_materialize_grads(False)  # else autograd would allocate zeros as the gradient of states


def _gradients(ctx, dy, _):
    dk, dv, dw, du = _backward(*ctx.saved_tensors, dy)
    return dk, dv, dw.sum(1), du.sum(1), None


_forward.register_autograd(_gradients, setup_context=_save)


def wkv_triton(k: Tensor, v: Tensor, w: Tensor, u: Tensor) -> Tensor:
    """WKV of k and v [R, B, L, C]; returns y [R, B, L, C] in v's dtype.

    w (positive) and u [R, C] are float32; states and sums are float32. Raises ValueError for other
    shapes and dtypes.
    """
    R, _, _, C = k.shape
    if v.shape != k.shape or w.shape != (R, C) or u.shape != (R, C):
        shapes = [list(x.shape) for x in (v, w, u)]
        raise ValueError(f"v, w and u {shapes} do not fit k {list(k.shape)}")
    halves_or_floats = (torch.float32, torch.bfloat16, torch.float16)
    if k.dtype not in halves_or_floats or v.dtype not in halves_or_floats:
        raise ValueError("k and v must be float32, bfloat16 or float16")
    if w.dtype != torch.float32 or u.dtype != torch.float32:
        raise ValueError(f"w and u must be float32, not {w.dtype} and {u.dtype}")
    inputs = (k, v, w, u)
    save_states = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    return _forward(*inputs, save_states)[0]

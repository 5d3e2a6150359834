"""Mamba's selective scan for CUDA, forward and backward, one parameter set a run.

Gu and Dao 2023 (arXiv 2312.00752), section 3.2, with the Euler step for B as in the official code:
    h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t,    y_t = <C_t, h_t> + D u_t.
Shape letters: R runs, B batch, L length, C channels, N state, K positions of one chunk.

A program of one warp owns some channels of one sequence, keeps their states in registers and walks
along the length. The forward stores the state in front of every chunk of K positions; the backward
takes the chunks from the last to the first, repeats K steps from the stored state and keeps those
K states and decays in registers while it goes back through them. (Running the recurrence backwards
instead, h_{t-1} = (h_t - delta_t u_t B_t) / exp(delta_t A), would divide by decays near zero.)

The backward fills the registers, so only 8 warps share a multiprocessor, too few to wait for each
other's loads. Hence it loads the inputs of a chunk while it works on another, as matrices [C, K]
and [N, K], and sums over threads once a chunk, not once a position.

Unlike the official CUDA kernel this one takes the run axis, has no convolution, gate or softplus
inside, and sums without atomics: gradients that many programs share are written as one partial sum
each and added afterwards, so the same input gives the same bits.
"""

# a kernel keeps the positions of a chunk in tuples that grow, which have no one type for mypy
# mypy: disable-error-code="assignment"

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tiles import load, store

CHUNK = 4
"""Positions between two stored states, K: more of them need less memory and more registers.
`_columns` and `_sums` take exactly these."""
CELLS = 512
"""State cells (channels times N) of one warp: 16 a thread, so that the backward hardly spills."""
QUAD = 4
"""States lie in memory as [N / 4, C, 4]: the compiler then gives a thread 4 of the N and as many
channels, which makes the sums over N and the sums over channels about equally cheap."""


@triton.jit
def _positions(chunk, length: tl.constexpr, CHUNK: tl.constexpr):
    """[1, K]: which positions of a chunk exist; a constant where all chunks are full."""
    left = CHUNK if length % CHUNK == 0 else length - chunk * CHUNK
    return (tl.arange(0, CHUNK) < left)[None, :]


@triton.jit
def _columns(x):
    """The columns of x [M, 4], of K = 4 positions."""
    even, odd = tl.split(tl.reshape(x, [x.shape[0], 2, 2]))
    first, third = tl.split(even)
    second, fourth = tl.split(odd)
    return first, second, third, fourth


@triton.jit
def _halve(x, SIZE: tl.constexpr):
    """[M, K] from x [M, K, SIZE], summed by halves."""
    if SIZE == 1:
        return tl.reshape(x, [x.shape[0], x.shape[1]])
    else:
        even, odd = tl.split(tl.reshape(x, [x.shape[0], x.shape[1], SIZE // 2, 2]))
        return _halve(even + odd, SIZE // 2)


@triton.jit
def _sums(x):
    """[M, 4]: the sums over S of four x [M, S], S in different threads.

    A split wants its operands in one thread. So this moves the summands of all positions through
    shared memory once, where tl.sum would take shuffles for each position and leave every thread
    with a copy of the result.
    """
    stacked = tl.join(tl.join(x[0], x[2]), tl.join(x[1], x[3]))
    stacked = tl.reshape(stacked, [x[0].shape[0], x[0].shape[1], 4])
    return _halve(tl.permute(stacked, (0, 2, 1)), x[0].shape[1])


@triton.jit
def _over_state(x, QUAD: tl.constexpr):
    """[C, S] from x [C, N]: what one thread can add by itself of a sum over N."""
    return tl.sum(tl.reshape(x, [x.shape[0], x.shape[1] // QUAD, QUAD]), 2)


@triton.jit
def _over_channels(x, THREADS: tl.constexpr):
    """[N, S] from x [C, N]: what one thread can add by itself of a sum over C."""
    return tl.trans(tl.sum(tl.reshape(x, [x.shape[0] // THREADS, THREADS, x.shape[1]]), 0))


@triton.jit
def _load_inputs(
    u, delta, B, C, places, chunk, width, d_state, length: tl.constexpr, CHUNK: tl.constexpr
):
    """Of one chunk; beyond the end delta = 0 and u = 0, a step that changes nothing."""
    at_c, at_n, in_c, in_n = places
    in_t = _positions(chunk, length, CHUNK)
    at_c += chunk * CHUNK * width
    at_n += chunk * CHUNK * d_state
    return (
        tl.load(u + at_c, in_c & in_t, 0.0),
        load(delta + at_c, in_c & in_t),
        tl.load(B + at_n, in_n & in_t, 0.0),
        tl.load(C + at_n, in_n & in_t, 0.0),
    )


@triton.jit
def _scan_forward_kernel(
    u, delta, A, B, C, D, y, states,
    batch, width, d_state, blocks, length: tl.constexpr,
    BLOCK_C: tl.constexpr, N: tl.constexpr, QUAD: tl.constexpr, CHUNK: tl.constexpr,
    SAVE_STATES: tl.constexpr,
):  # fmt: skip
    log2_e: tl.constexpr = 1.4426950408889634
    sequence = (tl.program_id(0) // blocks).to(tl.int64)  # r * batch + b
    run = sequence // batch
    c = tl.program_id(0) % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    n = tl.arange(0, N)
    position = tl.arange(0, CHUNK)
    in_c, in_n = (c < width)[:, None], (n < d_state)[:, None]
    cells = run * width * d_state + c[:, None] * d_state + n[None, :]
    A_log2 = load(A + cells, in_c & (n < d_state)[None, :]) * log2_e
    skip = load(D + run * width + c[:, None], in_c)
    chunks: tl.constexpr = (length + CHUNK - 1) // CHUNK
    quads = (n // QUAD * width * QUAD + n % QUAD)[None, :] + c[:, None] * QUAD
    at_c = c[:, None] + position[None, :] * width
    at_n = n[:, None] + position[None, :] * d_state
    places = at_c, at_n, in_c, in_n

    to_c, to_n = sequence * length * width, sequence * length * d_state
    u, delta, y, B, C = u + to_c, delta + to_c, y + to_c, B + to_n, C + to_n
    states += sequence * chunks * width * N

    h = tl.zeros([BLOCK_C, N], tl.float32)
    ahead = _load_inputs(u, delta, B, C, places, 0, width, d_state, length, CHUNK)
    for chunk in range(chunks):
        if SAVE_STATES:
            store(states + chunk * width * N + quads, h, in_c)
        u_chunk, delta_chunk = ahead[0].to(tl.float32), ahead[1]
        Bs, Cs = _columns(ahead[2]), _columns(ahead[3])
        deltas, inputs = _columns(delta_chunk), _columns(delta_chunk * u_chunk)
        coming = tl.minimum(chunk + 1, chunks - 1)
        ahead = _load_inputs(u, delta, B, C, places, coming, width, d_state, length, CHUNK)
        outs = ()
        for k in tl.static_range(CHUNK):
            decay = tl.exp2(A_log2 * deltas[k][:, None])
            h = decay * h + inputs[k][:, None] * Bs[k].to(tl.float32)[None, :]
            outs += (_over_state(h * Cs[k].to(tl.float32)[None, :], QUAD),)
        in_t = _positions(chunk, length, CHUNK)
        store(y + chunk * CHUNK * width + at_c, _sums(outs) + skip * u_chunk, in_c & in_t)


@triton.jit
def _scan_backward_kernel(
    u, delta, A, B, C, D, states, dy, du, ddelta, dA, dB, dC, dD,
    sequences, batch, width, d_state, blocks, length: tl.constexpr,
    BLOCK_C: tl.constexpr, N: tl.constexpr, QUAD: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    log2_e: tl.constexpr = 1.4426950408889634
    ln_2: tl.constexpr = 0.6931471805599453
    sequence = (tl.program_id(0) // blocks).to(tl.int64)
    block = tl.program_id(0) % blocks
    run = sequence // batch
    c = block * BLOCK_C + tl.arange(0, BLOCK_C)
    n = tl.arange(0, N)
    position = tl.arange(0, CHUNK)
    in_c, in_n = (c < width)[:, None], (n < d_state)[:, None]
    cells = c[:, None] * d_state + n[None, :]
    in_cell = in_c & (n < d_state)[None, :]
    A_log2 = load(A + run * width * d_state + cells, in_cell) * log2_e
    skip = load(D + run * width + c[:, None], in_c)
    chunks: tl.constexpr = (length + CHUNK - 1) // CHUNK
    quads = (n // QUAD * width * QUAD + n % QUAD)[None, :] + c[:, None] * QUAD
    at_c = c[:, None] + position[None, :] * width
    at_n = n[:, None] + position[None, :] * d_state
    places = at_c, at_n, in_c, in_n
    THREADS: tl.constexpr = min(32 * QUAD // N, BLOCK_C)  # that share the channels

    to_c, to_n = sequence * length * width, sequence * length * d_state
    u, delta, B, C, dy = u + to_c, delta + to_c, B + to_n, C + to_n, dy + to_c
    du, ddelta = du + to_c, ddelta + to_c
    dB += (block * sequences + sequence) * length * d_state
    dC += (block * sequences + sequence) * length * d_state
    states += sequence * chunks * width * N

    dh = tl.zeros([BLOCK_C, N], tl.float32)  # from all positions behind t, decayed to t
    sum_A = tl.zeros([BLOCK_C, N], tl.float32)
    sum_D = tl.zeros([BLOCK_C, CHUNK], tl.float32)
    last: tl.constexpr = chunks - 1
    ahead = _load_inputs(u, delta, B, C, places, last, width, d_state, length, CHUNK)
    in_t = _positions(last, length, CHUNK)
    dy_ahead = tl.load(dy + last * CHUNK * width + at_c, in_c & in_t, 0.0)
    h_ahead = tl.load(states + (last * width * N + quads), in_c, 0.0)
    for chunk in range(chunks - 1, -1, -1):
        u_chunk, delta_chunk = ahead[0].to(tl.float32), ahead[1]
        dy_chunk = dy_ahead.to(tl.float32)
        deltas, inputs = _columns(delta_chunk), _columns(delta_chunk * u_chunk)
        Bs, Cs, dys = _columns(ahead[2]), _columns(ahead[3]), _columns(dy_chunk)
        hs, decays = (h_ahead.to(tl.float32),), ()
        for k in tl.static_range(CHUNK):
            decays += (tl.exp2(A_log2 * deltas[k][:, None]),)
            hs += (decays[k] * hs[k] + inputs[k][:, None] * Bs[k].to(tl.float32)[None, :],)
        to_B, to_C, to_input, to_exponent = (), (), (), ()
        for k in tl.static_range(CHUNK - 1, -1, -1):
            # hs[k] is the state in front of position k, hs[k + 1] the one after
            dh += dys[k][:, None] * Cs[k].to(tl.float32)[None, :]
            to_C += (_over_channels(hs[k + 1] * dys[k][:, None], THREADS),)
            to_B += (_over_channels(dh * inputs[k][:, None], THREADS),)
            to_input += (_over_state(dh * Bs[k].to(tl.float32)[None, :], QUAD),)
            dh *= decays[k]
            product = dh * hs[k]  # the gradient of the exponent delta_t A
            sum_A += product * deltas[k][:, None]
            to_exponent += (_over_state(product * A_log2, QUAD),)
            if k == CHUNK // 2:
                # half of the states and decays are dead by now: their registers take the loads
                # of the next chunk, which arrive while the other half is worked off
                coming = tl.maximum(chunk - 1, 0)
                ahead = _load_inputs(u, delta, B, C, places, coming, width, d_state, length, CHUNK)
                in_t = _positions(coming, length, CHUNK)
                dy_ahead = tl.load(dy + coming * CHUNK * width + at_c, in_c & in_t, 0.0)
                h_ahead = tl.load(states + (coming * width * N + quads), in_c, 0.0)
        in_t = _positions(chunk, length, CHUNK)
        here_c, here_n = at_c + chunk * CHUNK * width, at_n + chunk * CHUNK * d_state
        through_B, through_A = _sums(to_input[::-1]), _sums(to_exponent[::-1])
        store(du + here_c, through_B * delta_chunk + dy_chunk * skip, in_c & in_t)
        store(ddelta + here_c, through_B * u_chunk + through_A * ln_2, in_c & in_t)
        store(dB + here_n, _sums(to_B[::-1]), in_n & in_t)
        store(dC + here_n, _sums(to_C[::-1]), in_n & in_t)
        sum_D += dy_chunk * u_chunk
    store(dA + sequence * width * d_state + cells, sum_A, in_cell)
    store(dD + sequence * width + c, tl.sum(sum_D, 1), c < width)


def _tiles(C: int, N: int) -> tuple[int, int, int]:
    """Channels of a program, N padded to a power of two and programs a sequence."""
    padded = max(triton.next_power_of_2(N), QUAD)
    # with 4 states a channel there would be too many channels to hold the inputs of in registers
    block = min(CELLS // max(padded, 8), triton.next_power_of_2(C))
    return block, padded, -(-C // block)


@torch.library.custom_op("zoorecall::selective_scan", mutates_args=())
def _forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, save_states: bool
) -> tuple[Tensor, Tensor]:
    u, delta, A, B, C, D = (x.contiguous() for x in (u, delta, A, B, C, D))
    (runs, batch, length, width), d_state = u.shape, A.shape[-1]
    block, padded, blocks = _tiles(width, d_state)
    y, states = _outputs(u, A, save_states)
    with torch.cuda.device_of(u):
        _scan_forward_kernel[(runs * batch * blocks,)](
            u, delta, A, B, C, D, y, states, batch, width, d_state, blocks, length,
            BLOCK_C=block, N=padded, QUAD=QUAD, CHUNK=CHUNK, SAVE_STATES=save_states, num_warps=1,
        )  # fmt: skip
    return y, states


def _outputs(u: Tensor, A: Tensor, save_states: bool) -> tuple[Tensor, Tensor]:
    R, B, L, C = u.shape
    padded = _tiles(C, A.shape[-1])[1]
    # a state in half precision starts one chunk only, so its rounding does not accumulate;
    # bfloat16 because a state may outgrow float16
    dtype = torch.float32 if u.dtype == torch.float32 else torch.bfloat16
    shape = (R, B, -(-L // CHUNK), padded // QUAD, C, QUAD) if save_states else (0,)
    return u.new_empty(u.shape), u.new_empty(shape, dtype=dtype)


@_forward.register_fake
def _(u, delta, A, B, C, D, save_states):
    return _outputs(u, A, save_states)


@torch.library.custom_op("zoorecall::selective_scan_backward", mutates_args=())
def _backward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, states: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    u, delta, A, B, C, D, dy = (x.contiguous() for x in (u, delta, A, B, C, D, dy))
    (runs, batch, length, width), d_state = u.shape, A.shape[-1]
    block, padded, blocks = _tiles(width, d_state)
    du, ddelta = torch.empty_like(u), torch.empty_like(delta)
    dA = A.new_empty(runs, batch, width, d_state)
    dD = D.new_empty(runs, batch, width)
    dB, dC = (torch.empty(blocks, *B.shape, device=B.device) for _ in range(2))
    with torch.cuda.device_of(u):
        _scan_backward_kernel[(runs * batch * blocks,)](
            u, delta, A, B, C, D, states, dy, du, ddelta, dA, dB, dC, dD,
            runs * batch, batch, width, d_state, blocks, length,
            BLOCK_C=block, N=padded, QUAD=QUAD, CHUNK=CHUNK, num_warps=1,
        )  # fmt: skip
    return du, ddelta, dA.sum(1), dB.sum(0).to(B.dtype), dC.sum(0).to(C.dtype), dD.sum(1)


@_backward.register_fake
def _(u, delta, A, B, C, D, states, dy):
    return tuple(x.new_empty(x.shape) for x in (u, delta, A, B, C, D))


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:-1], output[1])
    ctx.set_materialize_grads(False)  # else autograd would allocate zeros as the gradient of states


def _gradients(ctx, dy, _):
    return *_backward(*ctx.saved_tensors, dy), None


_forward.register_autograd(_gradients, setup_context=_save)


def selective_scan_triton(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor
) -> Tensor:
    """The selective scan of u [R, B, L, C]; returns y [R, B, L, C] in u's dtype.

    delta [R, B, L, C] is positive, A [R, C, N] (negative) and D [R, C] are float32, B and C are
    [R, B, L, N]; N is at most 64. States and sums are float32. Raises ValueError for other shapes
    and dtypes.
    """
    (R, batch, L, width), N = u.shape, A.shape[-1]
    shapes = [(R, batch, L, width), (R, width, N), (R, batch, L, N), (R, batch, L, N), (R, width)]
    if [x.shape for x in (delta, A, B, C, D)] != shapes:
        raise ValueError(f"shapes do not fit u {list(u.shape)} and A {list(A.shape)}")
    halves_or_floats = (torch.float32, torch.bfloat16, torch.float16)
    if any(x.dtype not in halves_or_floats for x in (u, delta, B, C)):
        raise ValueError("u, delta, B and C must be float32, bfloat16 or float16")
    if A.dtype != torch.float32 or D.dtype != torch.float32:
        raise ValueError(f"A and D must be float32, not {A.dtype} and {D.dtype}")
    if N > 64:
        raise ValueError(f"d_state {N} is more than 64")
    inputs = (u, delta, A, B, C, D)
    save_states = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    return _forward(*inputs, save_states)[0]

"""Mamba's selective scan for CUDA, forward and backward, one parameter set a run.

Gu and Dao 2023 (arXiv 2312.00752), section 3.2, with the Euler step for B as in the official code:
    h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t,    y_t = <C_t, h_t> + D u_t.
Shape letters: R runs, B batch, L length, C channels, N state, K positions of one chunk.

A program of one warp owns some channels of one sequence, keeps their states in registers and walks
along the length. The forward stores the state in front of every chunk of K positions; the backward
takes the chunks from the last to the first, repeats K steps from the stored state and keeps those
K states and decays in registers while it goes back through them. (Running the recurrence backwards
instead, h_{t-1} = (h_t - delta_t u_t B_t) / exp(delta_t A), would divide by decays near zero.)

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

CHUNK = 4
"""Positions between two stored states, K: more of them need less memory and more registers."""
CELLS = 512
"""State cells (channels times N) of one warp: 16 a thread, so that the backward hardly spills."""
QUAD = 4
"""States lie in memory as [N / 4, C, 4]: the compiler then gives a thread 4 of the N and as many
channels, which makes the sums over N and the sums over channels about equally cheap."""


@triton.jit
def _load(pointer, mask):
    return tl.load(pointer, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _store(pointer, value, mask):
    tl.store(pointer, value.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def _is_position(t, length: tl.constexpr):
    return tl.full([1], t, tl.int32) < length  # a tensor even where t is a number, interpreted


@triton.jit
def _forward_kernel(
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
    in_c, in_n = c < width, n < d_state
    cells = run * width * d_state + c[:, None] * d_state + n[None, :]
    A_log2 = _load(A + cells, in_c[:, None] & in_n[None, :]) * log2_e
    skip = _load(D + run * width + c, in_c)
    chunks: tl.constexpr = (length + CHUNK - 1) // CHUNK
    quads = (n // QUAD * width * QUAD + n % QUAD)[None, :] + c[:, None] * QUAD

    u += sequence * length * width + c
    delta += sequence * length * width + c
    y += sequence * length * width + c
    B += sequence * length * d_state + n
    C += sequence * length * d_state + n
    states += sequence * chunks * width * N + quads

    h = tl.zeros([BLOCK_C, N], tl.float32)
    for chunk in range(chunks):
        if SAVE_STATES:
            _store(states + chunk * width * N, h, in_c[:, None])
        # all loads of a chunk come first, so that their latencies overlap; beyond the end they
        # give delta = 0 and u = 0, a step that changes nothing
        us, deltas, Bs, Cs = (), (), (), ()
        for k in tl.static_range(CHUNK):
            t = chunk * CHUNK + k
            in_t = _is_position(t, length)
            us += (_load(u + t * width, in_c & in_t),)
            deltas += (_load(delta + t * width, in_c & in_t),)
            Bs += (_load(B + t * d_state, in_n & in_t),)
            Cs += (_load(C + t * d_state, in_n & in_t),)
        for k in tl.static_range(CHUNK):
            t = chunk * CHUNK + k
            in_t = _is_position(t, length)
            decay = tl.exp2(A_log2 * deltas[k][:, None])
            h = decay * h + (us[k] * deltas[k])[:, None] * Bs[k][None, :]
            out = tl.sum(h * Cs[k][None, :], 1) + skip * us[k]
            _store(y + t * width, out, in_c & in_t)


@triton.jit
def _backward_kernel(
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
    in_c, in_n = c < width, n < d_state
    cells = c[:, None] * d_state + n[None, :]
    in_cell = in_c[:, None] & in_n[None, :]
    A_log2 = _load(A + run * width * d_state + cells, in_cell) * log2_e
    skip = _load(D + run * width + c, in_c)
    chunks: tl.constexpr = (length + CHUNK - 1) // CHUNK
    quads = (n // QUAD * width * QUAD + n % QUAD)[None, :] + c[:, None] * QUAD

    u += sequence * length * width + c
    delta += sequence * length * width + c
    dy += sequence * length * width + c
    du += sequence * length * width + c
    ddelta += sequence * length * width + c
    B += sequence * length * d_state + n
    C += sequence * length * d_state + n
    dB += (block * sequences + sequence) * length * d_state + n
    dC += (block * sequences + sequence) * length * d_state + n
    states += sequence * chunks * width * N + quads

    dh = tl.zeros([BLOCK_C, N], tl.float32)  # from all positions behind t, decayed to t
    sum_A = tl.zeros([BLOCK_C, N], tl.float32)
    sum_D = tl.zeros([BLOCK_C], tl.float32)
    for chunk in range(chunks - 1, -1, -1):
        hs = (_load(states + chunk * width * N, in_c[:, None]),)
        us, deltas, dys, Bs, Cs, decays = (), (), (), (), (), ()
        for k in tl.static_range(CHUNK):
            t = chunk * CHUNK + k
            in_t = _is_position(t, length)
            us += (_load(u + t * width, in_c & in_t),)
            deltas += (_load(delta + t * width, in_c & in_t),)
            dys += (_load(dy + t * width, in_c & in_t),)
            Bs += (_load(B + t * d_state, in_n & in_t),)
            Cs += (_load(C + t * d_state, in_n & in_t),)
        for k in tl.static_range(CHUNK):
            decays += (tl.exp2(A_log2 * deltas[k][:, None]),)
            hs += (decays[k] * hs[k] + (us[k] * deltas[k])[:, None] * Bs[k][None, :],)
        for k in tl.static_range(CHUNK - 1, -1, -1):
            t = chunk * CHUNK + k  # hs[k] is the state in front of t, hs[k + 1] the one after
            in_t = _is_position(t, length)
            dh += dys[k][:, None] * Cs[k][None, :]
            _store(dC + t * d_state, tl.sum(hs[k + 1] * dys[k][:, None], 0), in_n & in_t)
            to_B = tl.sum(dh * (us[k] * deltas[k])[:, None], 0)
            _store(dB + t * d_state, to_B, in_n & in_t)
            through_B = tl.sum(dh * Bs[k][None, :], 1)
            dh *= decays[k]
            to_exponent = dh * hs[k]
            sum_A += to_exponent * deltas[k][:, None]
            through_A = tl.sum(to_exponent * A_log2, 1) * ln_2
            sum_D += dys[k] * us[k]
            du_t = through_B * deltas[k] + dys[k] * skip
            _store(du + t * width, du_t, in_c & in_t)
            _store(ddelta + t * width, through_B * us[k] + through_A, in_c & in_t)
    _store(dA + sequence * width * d_state + cells, sum_A, in_cell)
    _store(dD + sequence * width + c, sum_D, in_c)


def _tiles(C: int, N: int) -> tuple[int, int, int]:
    """Channels of a program, N padded to a power of two and programs a sequence."""
    padded = max(triton.next_power_of_2(N), QUAD)
    block = min(CELLS // padded, triton.next_power_of_2(C))
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
        _forward_kernel[(runs * batch * blocks,)](
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
        _backward_kernel[(runs * batch * blocks,)](
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
    ctx.set_materialize_grads(False)  # or autograd would make zeros as the gradient of states


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

"""Mamba's selective scan, parallel over the length. See `reference` for the definition and shapes.

M = R B is the number of sequences. They are scanned a block at a time, so that a block's states
never leave the processor's cache. The backward pass computes the states again.
"""

import math
from collections.abc import Iterator

import torch
from einops import repeat
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 2**19
"""Numbers in one tensor of states [M, L, N, C]: four of these, 8 MB, are in use at a time."""


def selective_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The definition, parallel over the length: y [R, B, L, C] in u's dtype."""
    R, batch = u.shape[:2]
    wide = torch.promote_types(u.dtype, torch.float32)
    A = repeat(A.to(wide), "r c n -> (r b) n c", b=batch)
    sequences = (x.to(wide).flatten(0, 1) for x in (u, delta, B, C))
    y = _Scan.apply(A, *sequences).unflatten(0, (R, batch))
    return (y + D[:, None, None] * u).to(u.dtype)


class _Scan(torch.autograd.Function):
    """y_t = <C_t, h_t> of M sequences: A [M, N, C], u and delta [M, L, C], B and C [M, L, N]."""

    @staticmethod
    def forward(ctx, A, u, delta, B, C):
        ctx.save_for_backward(A, u, delta, B, C)
        y = torch.empty_like(u)
        for m, (decay, h) in _blocks(A, u, scratch=2):
            _states(A[m], u[m], delta[m], B[m], decay, h)
            scan_(decay, h)
            y[m] = (C[m].unsqueeze(2) @ h).squeeze(2)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        """With g_t the gradient of h_t: g_t = dy_t C_t + decay_{t+1} g_{t+1}, the same recurrence
        from the end; and g_t decay_t h_{t-1} is the gradient of the exponent delta_t A."""
        A, u, delta, B, C = ctx.saved_tensors
        dA, du, dB, dC = (torch.empty_like(x) for x in (A, u, B, C))
        ddelta = torch.zeros_like(delta)
        for m, (decay, h, g, work) in _blocks(A, u, scratch=4):
            _states(A[m], u[m], delta[m], B[m], decay, h)
            work.copy_(decay)
            scan_(work, h)
            torch.mul(dy[m].unsqueeze(2), C[m].unsqueeze(3), out=g)
            work[:, :-1] = decay[:, 1:]  # the last is not used: nothing follows the last position
            scan_(work, g, reverse=True)
            # sums over channels: a product and then a sum take a fraction of the time of a batched
            # matrix-vector product
            torch.mul(h, dy[m].unsqueeze(2), out=work)
            torch.sum(work, 3, out=dC[m])
            torch.mul(g, (delta[m] * u[m]).unsqueeze(2), out=work)
            torch.sum(work, 3, out=dB[m])
            through_input = (B[m].unsqueeze(2) @ g).squeeze(2)
            exponent, work = decay[:, 1:].mul_(h[:, :-1]).mul_(g[:, 1:]), work[:, 1:]
            torch.mul(exponent, delta[m, 1:].unsqueeze(2), out=work)
            torch.sum(work, 1, out=dA[m])
            torch.mul(exponent, A[m].unsqueeze(1), out=work)
            torch.sum(work, 2, out=ddelta[m, 1:])
            ddelta[m].addcmul_(through_input, u[m])
            torch.mul(through_input, delta[m], out=du[m])
        return dA, du, ddelta, dB, dC


def _blocks(A: Tensor, u: Tensor, scratch: int) -> Iterator[tuple[slice, Tensor]]:
    """Slices of the M sequences, each with `scratch` tensors [m, L, N, C] to write into."""
    (M, N, channels), L = A.shape, u.shape[1]
    size = min(M, max(1, BLOCK // (L * N * channels)))
    tensors = u.new_empty(scratch, size, L, N, channels)
    for start in range(0, M, size):
        m = slice(start, min(start + size, M))
        yield m, tensors[:, : m.stop - m.start]


def _states(A: Tensor, u: Tensor, delta: Tensor, B: Tensor, decay: Tensor, h: Tensor) -> None:
    """Write exp(delta_t A) into decay and delta_t u_t B_t into h: [m, L, N, C]."""
    # torch's exp2 takes a third of the time of its exp on a CPU
    torch.mul(delta.unsqueeze(2), A.unsqueeze(1) * math.log2(math.e), out=decay).exp2_()
    torch.mul((delta * u).unsqueeze(2), B.unsqueeze(3), out=h)


def scan_(decay: Tensor, h: Tensor, reverse: bool = False) -> None:
    """In place, along axis 1, h_t += decay_t h_{t-1}; reverse: h_t += decay_t h_{t+1}.

    Brent and Kung's scan (1982): log2(L) steps up a tree and as many down, on 2 L positions in all.
    decay is overwritten with products of decays.
    """
    L = h.shape[1]

    def at(x: Tensor, positions: range) -> Tensor:
        first, last = positions[0], positions[-1]
        if reverse:
            first, last = L - 1 - last, L - 1 - first
        return x[:, first : last + 1 : positions.step]

    reach = 1  # positions that h holds the sum of, at the ends of the tree's blocks
    while 2 * reach <= L:
        before, here = range(reach - 1, L - reach, 2 * reach), range(2 * reach - 1, L, 2 * reach)
        at(h, here).addcmul_(at(decay, here), at(h, before))
        at(decay, here).mul_(at(decay, before))
        reach *= 2
    while reach > 1:
        reach //= 2
        before = range(2 * reach - 1, L - reach, 2 * reach)
        here = range(3 * reach - 1, L, 2 * reach)
        if here:
            at(h, here).addcmul_(at(decay, here), at(h, before))

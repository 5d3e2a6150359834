"""RWKV-4's WKV: a softmax over the past whose logits are the keys, less a decay by distance.

    y_t = (sum_{s<t} e^{k_s - (t-1-s) w} v_s + e^{u + k_t} v_t)
        / (sum_{s<t} e^{k_s - (t-1-s) w} + e^{u + k_t})

Peng et al. 2023 (arXiv 2305.13048), of every channel by itself. Shape letters: R runs,
B batch, L length, C channels. k, v: [R, B, L, C]; w, u: [R, C]; w is positive. Half precision is
computed in float32.

The fast form and the kernel carry the past as its mean and the logarithm of its total weight:

    mean_t = num_t / den_t,    log_t = log den_t,    of the sums over s < t,

    y_t = mean_t + sigmoid(k_t + u - log_t) (v_t - mean_t)
    mean_{t+1} = mean_t + sigmoid(k_t + w - log_t) (v_t - mean_t)
    log_{t+1} = log(e^{log_t - w} + e^{k_t})

No exponential of these overflows, and at the first position, where log = -inf, the sigmoids are 1.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def wkv_recurrent(k: Tensor, v: Tensor, w: Tensor, u: Tensor) -> Tensor:
    """The definition, one position after the other: y [R, B, L, C] in v's dtype.

    Numerator and denominator are divided by e^top, top the largest exponent in them.
    """
    wide = torch.promote_types(v.dtype, torch.float32)
    num = torch.zeros_like(v[:, :, 0], dtype=wide)
    state = WKVState(num, num, torch.full_like(num, -torch.inf))
    outputs = []
    for k_t, v_t in zip(k.unbind(2), v.unbind(2), strict=True):
        y, state = wkv_step(k_t, v_t, w, u, state)
        outputs.append(y)
    return torch.stack(outputs, dim=2)


class WKVState(NamedTuple):
    """The sums over the past, divided by e^top, [R, B, C] each; at first 0, 0 and -inf."""

    num: Tensor
    den: Tensor
    top: Tensor


def wkv_step(
    k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: WKVState
) -> tuple[Tensor, WKVState]:
    """One position: y_t [R, B, C] in v's dtype and the next state, of k and v without L."""
    (num, den, top), dtype = state, v.dtype
    k, v, w, u = (x.to(num.dtype) for x in (k, v, w[:, None], u[:, None]))
    new_top = torch.maximum(top, u + k)
    past, now = torch.exp(top - new_top), torch.exp(u + k - new_top)
    y = (past * num + now * v) / (past * den + now)
    new_top = torch.maximum(top - w, k)
    past, now = torch.exp(top - w - new_top), torch.exp(k - new_top)
    return y.to(dtype), WKVState(past * num + now * v, past * den + now, new_top)


def wkv(k: Tensor, v: Tensor, w: Tensor, u: Tensor) -> Tensor:
    """The same, its backward pass written out: y [R, B, L, C] in v's dtype.

    A parallel scan takes longer on a CPU: a loop's tensors of one position stay in the cache.
    """
    wide = torch.promote_types(v.dtype, torch.float32)
    return _WKV.apply(*(x.to(wide) for x in (k, v, w, u))).to(v.dtype)


class _WKV(torch.autograd.Function):
    @staticmethod
    def forward(ctx, k, v, w, u):
        R, batch, L, channels = k.shape
        w, u = w[:, None], u[:, None]
        y = torch.empty_like(v)
        means, logs = k.new_empty(2, L + 1, R, batch, channels)
        means[0], logs[0] = 0, -torch.inf
        steps = zip(*(x.unbind(2) for x in (k, v, y)), strict=True)
        for t, (k_t, v_t, y_t) in enumerate(steps):
            mean, log = means[t], logs[t]
            torch.lerp(mean, v_t, torch.sigmoid(k_t + u - log), out=y_t)
            torch.lerp(mean, v_t, torch.sigmoid(k_t + w - log), out=means[t + 1])
            torch.logaddexp(log - w, k_t, out=logs[t + 1])
        ctx.save_for_backward(k, v, w, u, means[:-1], logs[:-1])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        """From the end, with the gradients of mean_{t+1} and log_{t+1}; new and now are the
        sigmoids of state and output, old and rest one minus them, without cancellation."""
        k, v, w, u, means, logs = ctx.saved_tensors
        dk, dv = torch.empty_like(k), torch.empty_like(v)
        dmean, dlog, dw, du = (torch.zeros_like(means[0]) for _ in range(4))
        by_position = (*(x.unbind(2) for x in (k, v, dy, dk, dv)), means.unbind(), logs.unbind())
        for k_t, v_t, dy_t, dk_t, dv_t, mean, log in reversed(list(zip(*by_position, strict=True))):
            gap, ahead = k_t - log, v_t - mean
            new, old = torch.sigmoid(gap + w), torch.sigmoid(-w - gap)
            now, rest = torch.sigmoid(gap + u), torch.sigmoid(-u - gap)
            to_new, to_now = dmean * ahead * new * old, dy_t * ahead * now * rest
            torch.add(dmean * new, dy_t * now, out=dv_t)
            torch.add(to_new + to_now, dlog * new, out=dk_t)
            to_decayed = dlog * old - to_new  # the gradient of log_t - w
            dw -= to_decayed
            du += to_now
            dlog = to_decayed - to_now
            dmean = dmean * old + dy_t * rest
        return dk, dv, dw.sum(1), du.sum(1)

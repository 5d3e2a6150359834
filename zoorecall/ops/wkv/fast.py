"""RWKV-4's WKV with its backward pass written out. See `reference` for the definition and shapes.

This form and the kernel carry the past as its mean and the logarithm of its total weight:

    mean_t = num_t / den_t,    log_t = log den_t,    of the sums over s < t,

    y_t = mean_t + sigmoid(k_t + u - log_t) (v_t - mean_t)
    mean_{t+1} = mean_t + sigmoid(k_t + w - log_t) (v_t - mean_t)
    log_{t+1} = log(e^{log_t - w} + e^{k_t})

No exponential of these overflows, and at the first position, where log = -inf, the sigmoids are 1.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def wkv(k: Tensor, v: Tensor, w: Tensor, u: Tensor) -> Tensor:
    """The definition, its backward pass written out: y [R, B, L, C] in v's dtype.

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

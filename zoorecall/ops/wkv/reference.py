"""RWKV-4's WKV: a softmax over the past whose logits are the keys, less a decay by distance.

    y_t = (sum_{s<t} e^{k_s - (t-1-s) w} v_s + e^{u + k_t} v_t)
        / (sum_{s<t} e^{k_s - (t-1-s) w} + e^{u + k_t})

Peng et al. 2023 (arXiv 2305.13048), of every channel by itself. Shape letters: R runs,
B batch, L length, C channels. k, v: [R, B, L, C]; w, u: [R, C]; w is positive. Half precision is
computed in float32.
"""

from typing import NamedTuple

import torch
from torch import Tensor


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

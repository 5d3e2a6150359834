"""Which form of an operation runs: on a GPU a Triton kernel, if Triton is installed and the sizes
fit it, else plain torch. The choice changes speed, never results.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar

import torch
from torch import Tensor

from . import attention as plain_attention
from . import causal_conv as plain_conv
from . import delta_rule as plain_delta_rule
from . import gated_norm as plain_gated_norm
from . import selective_scan as plain_scan
from . import ssd as plain_ssd
from . import wkv as plain_wkv
from .attention import QKV
from .delta_rule_fla import delta_rule_fla
from .delta_rule_fla import fits as fla_fits
from .linear_cross_entropy import linear_cross_entropy_reference
from .mlp import mlp_reference

HAS_TRITON = torch.cuda.is_available() and find_spec("triton") is not None
HAS_FLA = HAS_TRITON and find_spec("fla") is not None

if HAS_TRITON:
    from .attention_triton import attention_triton, fits
    from .causal_conv_triton import MAX_TAPS, causal_conv_triton
    from .delta_rule_triton import delta_rule_triton
    from .delta_rule_triton import fits as delta_rule_fits
    from .gated_norm_triton import fits as gated_norm_fits
    from .gated_norm_triton import gated_rms_norm_triton
    from .linear_cross_entropy_triton import MAX_WIDTH, linear_cross_entropy_triton
    from .mlp_triton import fits as mlp_fits
    from .mlp_triton import mlp_triton
    from .selective_scan_triton import selective_scan_triton
    from .ssd_triton import fits as ssd_fits
    from .ssd_triton import ssd_triton
    from .wkv_triton import wkv_triton


T = TypeVar("T")
_called: set[str] = set()


def _call(form: Callable[..., T], *args: Any) -> T:
    """Run the form that was chosen, and remember its name."""
    if not torch.compiler.is_compiling():  # what is compiled runs outside of it too, to evaluate
        _called.add(form.__name__)
    return form(*args)


def attention(qkv: QKV, num_heads: int, bias: QKV | None = None) -> Tensor:
    """Causal softmax attention, as `attention.attention_reference` defines it."""
    q = qkv if isinstance(qkv, Tensor) else qkv[0]
    head_dim = q.shape[-1] // num_heads // (3 if q is qkv else 1)
    if HAS_TRITON and q.is_cuda and fits(q.dtype, q.shape[2], head_dim):
        tf32 = torch.get_float32_matmul_precision() != "highest"
        return _call(attention_triton, qkv, num_heads, bias, tf32)
    return _call(plain_attention.attention, qkv, num_heads, bias)


def delta_rule(q: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
    """The delta rule, as `delta_rule.delta_rule_recurrent` defines it."""
    if HAS_TRITON and q.is_cuda and delta_rule_fits(q.dtype, q.shape[2], q.shape[4], v.shape[4]):
        return _call(delta_rule_triton, q, k, v, beta)
    if HAS_FLA and q.is_cuda and fla_fits(q.dtype, q.shape[4], v.shape[4]):
        return _call(delta_rule_fla, q, k, v, beta)
    return _call(plain_delta_rule.delta_rule, q, k, v, beta)


def causal_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, silu: bool = False
) -> Tensor:
    """Short causal convolution, as `causal_conv.causal_conv_reference` defines it."""
    if HAS_TRITON and x.is_cuda and weight.dtype == torch.float32 and weight.shape[-1] <= MAX_TAPS:
        return _call(causal_conv_triton, x, weight, bias, silu)
    return _call(plain_conv.causal_conv, x, weight, bias, silu)


def selective_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """Mamba's selective scan, as `selective_scan.selective_scan_recurrent` defines it."""
    if HAS_TRITON and u.is_cuda and A.shape[-1] <= 64:
        return _call(selective_scan_triton, u, delta, A, B, C, D)
    return _call(plain_scan.selective_scan, u, delta, A, B, C, D)


def ssd(xBC: Tensor, dt: Tensor, A: Tensor, D: Tensor, num_groups: int, d_state: int) -> Tensor:
    """Mamba2's SSD and skip, as `ssd.ssd_with_skip` defines them."""
    head_dim = (xBC.shape[-1] - 2 * num_groups * d_state) // D.shape[-1]
    if HAS_TRITON and xBC.is_cuda and ssd_fits(xBC.dtype, xBC.shape[2], head_dim, d_state):
        tf32 = torch.get_float32_matmul_precision() != "highest"
        return _call(ssd_triton, xBC, dt, A, D, num_groups, d_state, tf32)
    return _call(plain_ssd.ssd_with_skip, xBC, dt, A, D, num_groups, d_state)


def wkv(k: Tensor, v: Tensor, w: Tensor, u: Tensor) -> Tensor:
    """RWKV's WKV, as `wkv.wkv_recurrent` defines it."""
    if HAS_TRITON and k.is_cuda:
        return _call(wkv_triton, k, v, w, u)
    return _call(plain_wkv.wkv, k, v, w, u)


def gated_rms_norm(y: Tensor, z: Tensor, weight: Tensor, num_groups: int, eps: float) -> Tensor:
    """The gated norm, as `gated_norm.gated_rms_norm` defines it."""
    if HAS_TRITON and y.is_cuda and gated_norm_fits(y.dtype, y.shape[-1], num_groups):
        return _call(gated_rms_norm_triton, y, z, weight, num_groups, eps)
    return _call(plain_gated_norm.gated_rms_norm, y, z, weight, num_groups, eps)


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of a linear head, as `linear_cross_entropy_reference` defines it."""
    if HAS_TRITON and hidden.is_cuda and hidden.shape[-1] <= MAX_WIDTH:
        return _call(linear_cross_entropy_triton, hidden, weight, targets)
    return _call(linear_cross_entropy_reference, hidden, weight, targets)


def mlp(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    eps: float,
) -> Tensor:
    """Norm, MLP and residual of x [R, ..., D], as `mlp.mlp_reference` defines them."""
    tokens, parameters = x.flatten(1, -2), (norm_weight, norm_bias, w1, b1, w2, b2)
    if HAS_TRITON and x.is_cuda and w1.dtype == torch.float32 and mlp_fits(x.dtype, x.shape[-1]):
        tf32 = torch.get_float32_matmul_precision() != "highest"
        return _call(mlp_triton, tokens, *parameters, eps, tf32).view(x.shape)
    return _call(mlp_reference, tokens, *parameters, eps).view(x.shape)


def forget_forms() -> None:
    """Start the record of `kernels` anew."""
    _called.clear()


def kernels(device: torch.device) -> str:
    """The forms that ran since `forget_forms`, for the record of a run on a GPU."""
    if device.type == "cpu":
        return "torch"
    return ", ".join([*sorted(_called), "compiled, captured"])

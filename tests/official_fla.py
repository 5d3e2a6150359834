"""flash-linear-attention's own layers on a machine without a GPU and without transformers.

Needs triton and, without their dependencies, fla-core and flash-linear-attention 0.6.0. The two
packages whose `__init__` would import every layer and transformers are replaced by empty ones on
the same folder. The layers' code runs as it is; only the three Triton kernels under them are
replaced, by fla's naive delta rule, fla's reference norm and torch's convolution. Based's layer has
a forward pass without kernels, of which only the checkpointing is taken away.
"""

import importlib.util
import sys
import types
import warnings

import torch
import torch.nn.functional as F


def _import_without_init(*names: str) -> None:
    folder = importlib.util.find_spec("fla").submodule_search_locations[0]
    for name in names:
        module = types.ModuleType(f"fla.{name}")
        module.__path__ = [f"{folder}/{name}"]
        module.__all__ = []
        sys.modules.setdefault(module.__name__, module)


_import_without_init("layers", "models")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # triton has no driver here
    from fla.layers import based, delta_net
    from fla.modules import RMSNorm, ShortConvolution, feature_map
    from fla.modules.norm.layernorm import rms_norm_ref
    from fla.ops.delta_rule.naive import delta_rule_recurrence


def naive_delta_rule(q, k, v, beta, use_qk_l2norm_in_kernel=False, **unused):
    """fla's naive loop over [B, H, L, ...], called as `chunk_delta_rule` with [B, L, H, ...]."""
    if use_qk_l2norm_in_kernel:  # the formula of l2norm_fwd_kernel
        q, k = (t * torch.rsqrt(t.square().sum(-1, keepdim=True) + 1e-6) for t in (q, k))
    heads_first = (t.transpose(1, 2) for t in (q, k, v, beta))
    o, state = delta_rule_recurrence(*heads_first)
    return o.transpose(1, 2), state


def _conv_forward(self, x, **unused):
    y = F.conv1d(x.mT, self.weight, self.bias, padding=self.padding, groups=self.groups)
    y = y[..., : x.shape[1]].mT
    return (y if self.activation is None else F.silu(y)), None


def _norm_forward(self, x):
    return rms_norm_ref(x, self.weight, self.bias, eps=self.eps)


delta_net.fused_recurrent_delta_rule = delta_net.chunk_delta_rule = naive_delta_rule
ShortConvolution.forward = _conv_forward
RMSNorm.forward = _norm_forward
feature_map.flatten_diag_outer_product_off1 = (
    feature_map.flatten_diag_outer_product_off1.__wrapped__
)
DeltaNet = delta_net.DeltaNet
Based = based.BasedLinearAttention

"""flash-linear-attention's own layers on a machine without a GPU and without transformers.

Needs triton and, without their dependencies, fla-core and flash-linear-attention 0.6.0. The two
packages whose `__init__` would import every layer and transformers are replaced by empty ones on
the same folder. The layers' code runs as it is; only the Triton kernels under them are replaced, by
fla's naive loops, fla's reference norm and torch's convolution. Based's layer has a forward pass
without kernels, of which only the checkpointing is taken away.
"""

import importlib.util
import sys
import types
import warnings

import torch
import torch.nn.functional as F
from conftest import gradients
from torch import nn
from torch.testing import assert_close


def _import_without_init(*names: str) -> None:
    folder = importlib.util.find_spec("fla").submodule_search_locations[0]
    for name in names:
        module = types.ModuleType(f"fla.{name}")
        module.__path__ = [f"{folder}/{name}"]
        module.__all__ = []
        sys.modules.setdefault(module.__name__, module)


_import_without_init("layers", "models", "ops")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # triton has no driver here
    from fla.layers import based, delta_net, gated_deltanet, gla
    from fla.modules import FusedRMSNormGated, RMSNorm, ShortConvolution, feature_map
    from fla.modules.norm.layernorm import rms_norm_ref
    from fla.ops.delta_rule.naive import delta_rule_recurrence
    from fla.ops.gated_delta_rule.gate import naive_gdn_gate
    from fla.ops.gated_delta_rule.naive import naive_recurrent_gated_delta_rule
    from fla.ops.gla.naive import naive_recurrent_gla


def _l2_norm(x):
    """The formula of l2norm_fwd_kernel."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def naive_delta_rule(q, k, v, beta, use_qk_l2norm_in_kernel=False, **unused):
    """fla's naive loop over [B, H, L, ...], called as `chunk_delta_rule` with [B, L, H, ...]."""
    if use_qk_l2norm_in_kernel:
        q, k = _l2_norm(q), _l2_norm(k)
    heads_first = (t.transpose(1, 2) for t in (q, k, v, beta))
    o, state = delta_rule_recurrence(*heads_first)
    return o.transpose(1, 2), state


def naive_gated_delta_rule(q, k, v, g, beta, A_log, dt_bias, **steps):
    """fla's naive loop, after the steps that its layer leaves to `chunk_gated_delta_rule`."""
    asked = ("use_qk_l2norm_in_kernel", "use_gate_in_kernel", "use_beta_sigmoid_in_kernel")
    assert all(steps[name] for name in asked) and not steps["allow_neg_eigval"]
    g = naive_gdn_gate(g, A_log, dt_bias)
    return naive_recurrent_gated_delta_rule(_l2_norm(q), _l2_norm(k), v, beta.sigmoid(), g)


def naive_gla(q, k, v, gk=None, g=None, **unused):
    """fla's naive loop, called as `fused_recurrent_gla` with gk or as `chunk_gla` with g."""
    return naive_recurrent_gla(q, k, v, g if gk is None else gk)


def _conv(x, weight, bias, activation, **unused):
    """x: [B, L, C]; weight: [C, T]."""
    channels, taps = weight.shape
    y = F.conv1d(x.mT, weight.unsqueeze(1), bias, padding=taps - 1, groups=channels)
    y = y[..., : x.shape[1]].mT
    return (y if activation is None else F.silu(y)), None


def _conv_forward(self, x, **unused):
    return _conv(x, self.weight.squeeze(1), self.bias, self.activation)


def _norm_forward(self, x):
    return rms_norm_ref(x, self.weight, self.bias, eps=self.eps)


def _gated_norm_forward(self, x, g):
    """The formula of layer_norm_gated_fwd_kernel."""
    assert self.activation == "swish"
    return rms_norm_ref(x, self.weight, self.bias, eps=self.eps) * F.silu(g)


delta_net.fused_recurrent_delta_rule = delta_net.chunk_delta_rule = naive_delta_rule
gated_deltanet.fused_recurrent_gated_delta_rule = naive_gated_delta_rule
gated_deltanet.chunk_gated_delta_rule = naive_gated_delta_rule
gated_deltanet.causal_conv1d = _conv
gla.fused_recurrent_gla = gla.chunk_gla = naive_gla
ShortConvolution.forward = _conv_forward
RMSNorm.forward = _norm_forward
FusedRMSNormGated.forward = _gated_norm_forward
feature_map.flatten_diag_outer_product_off1 = (
    feature_map.flatten_diag_outer_product_off1.__wrapped__
)
DeltaNet = delta_net.DeltaNet
GatedDeltaNet = gated_deltanet.GatedDeltaNet
GatedLinearAttention = gla.GatedLinearAttention
Based = based.BasedLinearAttention


def assert_pack_is(mixer, officials, length, parameter_of=nn.Module.get_parameter):
    """The outputs and every gradient of a pack of width 12 are those of fla's layers, one a run.

    `parameter_of(layer, name)` is a layer's parameter that a run has under that name.
    """
    x = torch.randn(len(officials), 2, length, 12, requires_grad=True)
    y = mixer(x)
    expected = torch.stack([layer(x[r])[0] for r, layer in enumerate(officials)])
    assert_close(y, expected, rtol=1e-4, atol=1e-5)
    names = [name for name, _ in mixer.named_parameters()]
    ours = gradients(y, [x, *mixer.parameters()])
    of_layers = [parameter_of(layer, name) for name in names for layer in officials]
    theirs = gradients(expected, [x, *of_layers])
    assert_close(ours[0], theirs[0], rtol=1e-4, atol=1e-4)
    for i, name in enumerate(names):
        of_runs = theirs[1 + i * len(officials) : 1 + (i + 1) * len(officials)]
        grad = torch.stack(of_runs).view_as(ours[1 + i])
        assert_close(ours[1 + i], grad, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: n + m)

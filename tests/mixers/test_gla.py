"""`GatedLinearAttention` of flash-linear-attention: outputs, gradients, initial weights."""

import copy
import re

import pytest
import torch
from conftest import gradients
from official_fla import GatedLinearAttention, assert_pack_is, naive_recurrent_gla
from torch.testing import assert_close

from zoorecall.mixers import gla
from zoorecall.mixers.gla import GLA, GLAConfig
from zoorecall.ops.gated_linear_attention.fast import gated_linear_attention
from zoorecall.ops.gated_linear_attention.reference import gated_linear_attention_recurrent

STATE_SIZES = [
    ("gla", {}, 72, 72),
    (
        "gla",
        {"num_heads": 3, "expand_k": 1.0, "expand_v": 0.5, "conv": True, "conv_size": 3},
        84,
        84,
    ),
    ("gla", {"gating": False}, 72, 72),
]

OPTIONS = [
    {},
    {"num_heads": 3, "expand_k": 1.0, "expand_v": 0.5, "conv": True, "conv_size": 3},
    {"gating": False},
]


def inputs(R=3, B=2, L=13, H=5, K=4, V=7, dtype=torch.float64):
    """q, k, v and g; a step keeps 0.6 of a key feature on average."""
    q, k = (torch.randn(R, B, L, H, K, dtype=dtype) for _ in range(2))
    v, g = torch.randn(R, B, L, H, V, dtype=dtype), torch.rand(R, B, L, H, K, dtype=dtype).log()
    return [t.requires_grad_() for t in (q, k, v, 0.7 * g)]


def official_parameter(layer, name):
    fused = name == "g_norm.weight" and layer.use_output_gate
    return layer.get_parameter("g_norm_swish_gate.weight" if fused else name)


def make(num_runs=3, d_model=12, dtype=torch.float64, **options):
    """A pack and the official layers whose weights it holds."""
    mixer = GLA(GLAConfig(**options), d_model, 13, 2)
    conv, gating = options.pop("conv", False), options.pop("gating", True)
    make_official = dict(use_short_conv=conv, use_output_gate=gating, num_heads=1) | options
    officials = [
        GatedLinearAttention(hidden_size=d_model, **make_official) for _ in range(num_runs)
    ]
    for name, parameter in mixer.named_parameters():
        weights = [official_parameter(o, name).detach().view_as(parameter) for o in officials]
        parameter.data = torch.cat(weights)
    mixer.g_norm.weight.data += torch.rand_like(mixer.g_norm.weight)
    for r, o in enumerate(officials):
        official_parameter(o, "g_norm.weight").data = mixer.g_norm.weight.data[r].clone()
    return mixer.to(dtype), [o.to(dtype) for o in officials]


@pytest.mark.parametrize("chunk_size", [8, 32])
@pytest.mark.parametrize("length", [1, 2, 13, 64, 100])
def test_chunked_form_is_the_recurrence(length, chunk_size):
    tensors = inputs(L=length)
    y = gated_linear_attention(*tensors, chunk_size=chunk_size)
    expected = gated_linear_attention_recurrent(*tensors)
    assert y.shape == (3, 2, length, 5, 7)
    assert_close(y, expected)
    assert_close(gradients(y, tensors), gradients(expected, tensors))


def test_recurrence_is_flas_naive_one():
    tensors = inputs(R=1, dtype=torch.float32)
    expected, _ = naive_recurrent_gla(*(t[0] for t in tensors))
    assert_close(gated_linear_attention_recurrent(*tensors)[0], expected)


@pytest.mark.parametrize("mixed", ["features", "positions too"])
def test_strong_decays_keep_float32_accuracy(mixed):
    *qkv, g = inputs(L=100)
    rates = torch.tensor([-0.01, -1.0, -10.0, -100.0], dtype=torch.float64)
    g = rates.expand_as(g) if mixed == "features" else rates[torch.randint(4, g.shape)]
    tensors = [*qkv, g.clone().requires_grad_()]
    expected = gated_linear_attention_recurrent(*tensors)
    singles = [t.detach().float().requires_grad_() for t in tensors]
    y = gated_linear_attention(*singles).double()
    assert_close(y, expected, rtol=1e-5, atol=2e-5)
    ours, theirs = gradients(y, singles), gradients(expected, tensors)
    assert_close([grad.double() for grad in ours], list(theirs), rtol=1e-5, atol=1e-4)


def test_a_value_fades_with_the_feature_that_reads_it():
    _, _, v, g = (t.detach() for t in inputs(K=4))
    k, q = torch.zeros_like(g), torch.zeros_like(g)
    k[:, :, 0], q[..., 2] = 1, 2  # the square root of K, which the scale divides by
    faded = g[:, :, 1:, :, 2:3].cumsum(2).exp() * v[:, :, :1]
    assert_close(gated_linear_attention(q, k, v, g), torch.cat([v[:, :, :1], faded], dim=2))


@pytest.mark.parametrize("length", [13, 65])  # fla's layer calls another kernel up to 64
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("num_runs", [1, 3])
def test_pack_is_the_official_layers(num_runs, options, length):
    mixer, officials = make(num_runs, dtype=torch.float32, **options)
    assert_pack_is(mixer, officials, length, official_parameter)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("conv", [False, True])
def test_initial_weights_are_the_official_ones(conv, seed):
    torch.manual_seed(seed)
    mixer = GLA(GLAConfig(num_heads=3, conv=conv), 12, 13, 2)
    torch.manual_seed(seed)
    official = GatedLinearAttention(hidden_size=12, num_heads=3, use_short_conv=conv)
    assert len(list(mixer.parameters())) == len(list(official.parameters()))
    for name, parameter in mixer.named_parameters():
        assert_close(parameter, official_parameter(official, name).view_as(parameter))


def test_later_inputs_do_not_reach_earlier_outputs():
    mixer, _ = make()
    x = torch.randn(3, 2, 70, 12, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(mixer(x)[:, :, :66].sum(), x)
    assert grad[:, :, :66].abs().amin(dim=(0, 1, 3)).gt(0).all()
    assert grad[:, :, 66:].eq(0).all()


@pytest.mark.parametrize("gating", [False, True])
def test_sequence_flops_count_a_step_and_the_gate(gating):
    mixer, _ = make(num_heads=3, gating=gating)
    step = 3 * 2 * 4 * (1 + 2 + 2)  # 3 heads of 2 x 4: decay, write, read
    assert mixer.sequence_flops(13) == 13 * (step + 12 * gating)


def test_bf16_input_gives_bf16_output_near_float32_and_finite_gradients():
    mixer, _ = make(dtype=torch.float32)
    x = torch.randn(3, 2, 13, 12)
    y = mixer(x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert_close(y.float(), mixer(x), rtol=0.1, atol=0.1)
    y.float().square().mean().backward()
    for parameter in mixer.parameters():
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()


def test_log_decays_are_float32_in_bf16(monkeypatch):
    def operation(q, k, v, g):
        assert [t.dtype for t in (q, k, v, g)] == [torch.bfloat16] * 3 + [torch.float32]
        return gated_linear_attention(q, k, v, g)

    monkeypatch.setattr(gla, "gated_linear_attention", operation)
    mixer, _ = make(dtype=torch.float32)
    mixer(torch.randn(3, 2, 13, 12, dtype=torch.bfloat16))


def test_a_run_of_nan_leaves_its_neighbours():
    mixer, _ = make()
    x = torch.randn(3, 2, 13, 12, dtype=torch.float64)
    expected = mixer(x)
    broken = copy.deepcopy(mixer)
    broken.k_proj.weight.data[1] = torch.nan
    y = broken(x)
    assert y[1].isnan().all()
    assert_close(y[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, "expand_k * d_model = 6 is not a multiple of num_heads 5"),
        ({"num_heads": 6, "expand_v": 1.25}, "expand_v * d_model = 15 is not a multiple of"),
        ({"expand_k": 0.6}, "expand_k * d_model = 7.2 is not a multiple of num_heads 1"),
    ],
)
def test_heads_must_divide_keys_and_values(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        GLAConfig(**options).check(12)


def test_key_features_may_be_off_by_rounding():
    GLAConfig(expand_k=0.55).check(100)  # 55.00000000000001 in floating point

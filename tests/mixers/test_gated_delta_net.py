"""`GatedDeltaNet` of flash-linear-attention: outputs, gradients, initial weights."""

import copy

import pytest
import torch
from conftest import gradients
from official_fla import GatedDeltaNet as OfficialGatedDeltaNet
from official_fla import assert_pack_is, naive_recurrent_gated_delta_rule
from torch.nn.functional import normalize
from torch.testing import assert_close

from zoorecall.mixers.gated_delta_net import GatedDeltaNet, GatedDeltaNetConfig
from zoorecall.ops.delta_rule.fast import delta_rule
from zoorecall.ops.gated_delta_rule.fast import gated_delta_rule
from zoorecall.ops.gated_delta_rule.reference import gated_delta_rule_recurrent

STATE_SIZES = [
    ("gated_delta_net", {}, 432, 432),
    ("gated_delta_net", {"num_heads": 3, "expand_v": 1, "conv_size": 3}, 120, 120),
    ("gated_delta_net", {"num_heads": 2, "head_dim": 5, "conv": False}, 100, 100),
    ("gated_delta_net", {"gating": False}, 432, 432),
]

OPTIONS = [
    {},
    {"num_heads": 3, "expand_v": 1, "conv_size": 3},
    {"num_heads": 2, "head_dim": 5},
    {"conv": False},
    {"gating": False},
]


def inputs(R=3, B=2, L=13, H=5, K=4, V=7, dtype=torch.float64):
    """q, k, v, beta and g; a step keeps 0.6 of the state on average."""
    q, k = (normalize(torch.randn(R, B, L, H, K, dtype=dtype), dim=-1) for _ in range(2))
    v, beta = torch.randn(R, B, L, H, V, dtype=dtype), torch.rand(R, B, L, H, dtype=dtype)
    g = torch.rand(R, B, L, H, dtype=dtype).log() * 0.7
    return [t.requires_grad_() for t in (q, k, v, beta, g)]


def strong_decays(kind, L=100):
    """Inputs whose decays go down to e^-50 a step: in every position, or in some of them."""
    *others, g = inputs(L=L)
    share = 1.0 if kind == "all" else torch.rand_like(g).pow(8)
    return [*others, (torch.full_like(g, -50.0) * share).requires_grad_()]


def make(num_runs=3, d_model=12, dtype=torch.float64, **options):
    """A pack and the official layers whose weights it holds."""
    mixer = GatedDeltaNet(GatedDeltaNetConfig(**options), d_model, 13, 2)
    use_conv, use_gate = options.pop("conv", True), options.pop("gating", True)
    heads = options.setdefault("num_heads", 1)
    officials = []
    for _ in range(num_runs):
        make_official = dict(head_dim=d_model // heads, use_short_conv=use_conv, use_gate=use_gate)
        make_official |= dict(hidden_size=d_model) | options
        if use_conv:
            officials.append(OfficialGatedDeltaNet(**make_official))
        else:
            with pytest.warns(UserWarning, match="crucial"):
                officials.append(OfficialGatedDeltaNet(**make_official))
    for name, parameter in mixer.named_parameters():
        weights = [o.get_parameter(name).detach().view_as(parameter) for o in officials]
        parameter.data = torch.cat(weights)
    return mixer.to(dtype), [o.to(dtype) for o in officials]


@pytest.mark.parametrize("chunk_size", [16, 64])
@pytest.mark.parametrize("length", [1, 2, 13, 64, 100])
def test_chunked_form_is_the_recurrence(length, chunk_size):
    tensors = inputs(L=length)
    y = gated_delta_rule(*tensors, chunk_size=chunk_size)
    expected = gated_delta_rule_recurrent(*tensors)
    assert y.shape == (3, 2, length, 5, 7)
    assert_close(y, expected)
    assert_close(gradients(y, tensors), gradients(expected, tensors))


@pytest.mark.parametrize("kind", ["all", "some"])
def test_strong_decays_are_right_and_finite(kind):
    tensors = strong_decays(kind)
    y, expected = gated_delta_rule(*tensors), gated_delta_rule_recurrent(*tensors)
    expected_grads = gradients(expected, tensors)
    assert_close(y, expected)
    assert_close(gradients(y, tensors), expected_grads)
    narrow = [t.detach().float().requires_grad_() for t in tensors]
    y = gated_delta_rule(*narrow)
    assert_close(y.double(), expected, rtol=1e-3, atol=1e-4)
    for grad, expected_grad in zip(gradients(y, narrow), expected_grads, strict=True):
        assert_close(grad.double(), expected_grad, rtol=1e-3, atol=1e-3)


def test_recurrence_is_flas_naive_one():
    tensors = inputs(R=1, dtype=torch.float32)
    expected, _ = naive_recurrent_gated_delta_rule(*(t[0] for t in tensors))
    assert_close(gated_delta_rule_recurrent(*tensors)[0], expected)


def test_without_decay_it_is_the_delta_rule():
    *tensors, g = inputs(L=100)
    y, expected = gated_delta_rule(*tensors, torch.zeros_like(g)), delta_rule(*tensors)
    assert_close(y, expected)
    assert_close(gradients(y, tensors), gradients(expected, tensors))


def test_repeated_keys_keep_float32_accuracy():
    q, k, v, beta, g = inputs(L=64, K=16)
    k, beta, g = k[:, :, :1].expand_as(k), torch.ones_like(beta), g / 100
    y = gated_delta_rule(*(t.float() for t in (q, k, v, beta, g)))
    expected = gated_delta_rule_recurrent(q, k, v, beta, g)
    assert_close(y.double(), expected, rtol=0, atol=1e-5)


def test_the_state_decays_before_a_key_is_read_and_written():
    # one key: the first value decays by half twice, and half of what is left is overwritten
    k = torch.ones(1, 1, 3, 1, 1, dtype=torch.float64)
    v = torch.tensor([8.0, 0.0, 0.0], dtype=torch.float64).view(1, 1, 3, 1, 1)
    beta, g = torch.tensor([[1.0, 0.0, 0.5], [0.3, 0.5, 0.5]], dtype=torch.float64)
    y = gated_delta_rule(k, k, v, beta.view(1, 1, 3, 1), g.log().view(1, 1, 3, 1))
    assert_close(y.flatten(), torch.tensor([8.0, 4.0, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("length", [13, 65])  # one chunk and two
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("num_runs", [1, 3])
def test_pack_is_the_official_layers(num_runs, options, length):
    mixer, officials = make(num_runs, dtype=torch.float32, **options)
    assert_pack_is(mixer, officials, length)


@pytest.mark.parametrize("options", [{}, {"num_heads": 3, "expand_v": 1}, {"gating": False}])
@pytest.mark.parametrize("seed", [0, 1])
def test_initial_weights_are_the_official_ones(seed, options):
    torch.manual_seed(seed)
    mixer = GatedDeltaNet(GatedDeltaNetConfig(**options), 12, 13, 2)
    torch.manual_seed(seed)
    heads, gate = options.get("num_heads", 1), options.get("gating", True)
    sizes = dict(num_heads=heads, head_dim=12 // heads, expand_v=options.get("expand_v", 2))
    official = OfficialGatedDeltaNet(hidden_size=12, use_gate=gate, **sizes)
    assert {n for n, _ in mixer.named_parameters()} == {n for n, _ in official.named_parameters()}
    for name, parameter in mixer.named_parameters():
        assert_close(parameter, official.get_parameter(name).view_as(parameter))


def test_later_inputs_do_not_reach_earlier_outputs():
    mixer, _ = make()
    x = torch.randn(3, 2, 70, 12, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(mixer(x)[:, :, :66].sum(), x)
    assert grad[:, :, :66].abs().amin(dim=(0, 1, 3)).gt(0).all()
    assert grad[:, :, 66:].eq(0).all()


def test_flops_count_the_decay_and_the_three_products_of_a_step():
    mixer, _ = make(num_heads=3, expand_v=2)  # 3 heads of 4 x 8
    assert mixer.sequence_flops(13) == 13 * 3 * (4 * 8 + 3 * 2 * 4 * 8)
    square, wide, narrow, taps = 12 * 12, 12 * 24, 12 * 3, 4 * (12 + 12 + 24)
    linear = 2 * (2 * square + 3 * wide + 2 * narrow + taps)  # q, k; v, g, o; a, b
    assert mixer.flops(13) == 13 * linear + mixer.sequence_flops(13)
    assert mixer.flops(13, outputs=2) == mixer.flops(13) - 11 * 2 * wide


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


def test_decays_of_bf16_inputs_are_float32(monkeypatch):
    mixer, _ = make(dtype=torch.float32)
    given = []
    module = "zoorecall.mixers.gated_delta_net.gated_delta_rule"
    monkeypatch.setattr(module, lambda *args: given.append(args) or gated_delta_rule(*args))
    mixer(torch.randn(3, 2, 13, 12).bfloat16())
    q, k, v, beta, g = given[0]
    assert {t.dtype for t in (q, k, v)} == {torch.bfloat16}
    assert {t.dtype for t in (beta, g)} == {torch.float32}
    assert (g != g.bfloat16().float()).any()


def test_norm_and_gate_of_bf16_inputs_are_rounded_once():
    mixer, _ = make(dtype=torch.float32)
    parts = [torch.randn(3, 2, 13, 24).bfloat16() for _ in range(2)]
    given = []
    mixer.o_proj.register_forward_pre_hook(lambda module, args: given.append(args[0]))
    mixer.finish(tuple(parts))
    mixer.finish(tuple(part.float() for part in parts))
    assert torch.equal(given[0], given[1].bfloat16())


def test_a_run_of_nan_leaves_its_neighbours():
    mixer, _ = make()
    x = torch.randn(3, 2, 13, 12, dtype=torch.float64)
    expected = mixer(x)
    broken = copy.deepcopy(mixer)
    broken.k_proj.weight.data[1] = torch.nan
    y = broken(x)
    assert y[1].isnan().all()
    assert_close(y[[0, 2]], expected[[0, 2]])


def test_heads_must_divide_the_width_unless_their_size_is_given():
    with pytest.raises(ValueError, match="d_model 12 is not a multiple of num_heads 5"):
        GatedDeltaNetConfig(num_heads=5).check(12)
    GatedDeltaNetConfig(num_heads=5, head_dim=4).check(12)

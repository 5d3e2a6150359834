"""BaseConv against its equations, written out one position after the other."""

import cmath
import math

import pytest
import torch
import torch.nn.functional as F
from conftest import assert_pack_is_its_runs, gradients
from torch.testing import assert_close

from zoorecall.mixers.base_conv import BaseConv, BaseConvConfig

CASES = [
    {},
    {"conv_size": 4, "activation": True},
    {"conv": "implicit"},
    {"conv": "implicit", "activation": True},
    {"conv": "explicit"},
]
STATE_SIZES = [
    ("base_conv", {}, 24, 24),
    ("base_conv", {"conv_size": 4, "activation": True}, 36, 36),
    ("base_conv", {"conv": "implicit"}, 48, 120),
    ("base_conv", {"conv": "explicit", "activation": True}, 48, 120),
]

each_case = pytest.mark.parametrize("options", CASES)


def solo(seq_len=13, **options):
    """A mixer of one run whose parameters are all far from special values."""
    mixer = BaseConv(BaseConvConfig(**options), 6, seq_len, 2).double()
    for parameter in mixer.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    return mixer


def long_filter(weights, seq_len):
    """The long filter of one run from its parameters, [L, D]."""
    if "conv.filter.weight" in weights:
        return weights["conv.filter.weight"]
    taps = []
    for t in range(seq_len):
        wave = cmath.exp(-2j * math.pi * 1e-4 * t / seq_len)
        h = torch.tensor([t / (seq_len - 1), wave.real, wave.imag], dtype=torch.float64)
        for i, act in ((1, torch.relu), (2, lambda y: y)):
            w, b = (weights[f"conv.filter.fc{i}.{name}"] for name in ("weight", "bias"))
            h = act(w @ h + b)
        taps.append(h)
    return torch.stack(taps)


def base_conv_step_by_step(mixer, x, seq_len, activation=False, **_):
    """The equations for one run and sequence: x [L, D] -> y [L, D]."""
    weights = {name: parameter[0] for name, parameter in mixer.named_parameters()}
    act = F.silu if activation else (lambda y: y)
    outputs = []
    for t in range(len(x)):
        if "conv.bias" in weights:
            convolved, taps = weights["conv.bias"], weights["conv.weight"].flip(1).T
        else:
            convolved, taps = x[t], long_filter(weights, seq_len)
        for lag in range(min(t + 1, len(taps))):
            convolved = convolved + taps[lag] * x[t - lag]
        gate = weights["projection.weight"] @ x[t] + weights["projection.bias"]
        outputs.append(act(convolved) * act(gate) + x[t])
    return torch.stack(outputs)


@each_case
@pytest.mark.parametrize("length", [1, 2, 13, 70])
def test_mixer_is_the_equations(length, options):
    mixer = solo(seq_len=70, **options)
    x = torch.randn(1, 2, length, 6, dtype=torch.float64, requires_grad=True)
    y = mixer(x)
    expected = torch.stack([base_conv_step_by_step(mixer, u, 70, **options) for u in x[0]])[None]
    # the features of the positions are float32 constants
    assert_close(y, expected, rtol=1e-5, atol=1e-5)
    tensors = [x, *mixer.parameters()]
    assert_close(gradients(y, tensors), gradients(expected, tensors), rtol=1e-4, atol=1e-4)


@each_case
def test_pack_is_its_runs(options):
    x = torch.randn(3, 2, 13, 6, dtype=torch.float64, requires_grad=True)
    assert_pack_is_its_runs(solo(**options), [solo(**options) for _ in range(3)], x)


def test_initial_weights_follow_zoology():
    mixers = [
        BaseConv(BaseConvConfig(conv=x), 96, 64, 3) for x in ("short", "implicit", "explicit")
    ]
    short, implicit, explicit = (dict(mixer.named_parameters()) for mixer in mixers)
    assert {name: tuple(x.shape[1:]) for name, x in implicit.items()} == {
        "projection.weight": (96, 96),
        "projection.bias": (96,),
        "conv.filter.fc1.weight": (16, 3),
        "conv.filter.fc1.bias": (16,),
        "conv.filter.fc2.weight": (96, 16),
        "conv.filter.fc2.bias": (96,),
    }
    for weights in (short, implicit, explicit):
        for name, weight in weights.items():
            if name.endswith(("projection.bias", "fc1.bias", "fc2.bias")):
                assert weight.eq(0).all()
            elif name.endswith(("projection.weight", "fc1.weight", "fc2.weight")):
                assert_close(weight.std().item(), 0.02, rtol=0.35, atol=0)
    for name in ("conv.weight", "conv.bias"):
        assert 0.5 < short[name].abs().max() <= 1 / math.sqrt(3)
    assert_close(explicit["conv.filter.weight"].std().item(), 1.0, rtol=0.1, atol=0)


@each_case
def test_later_inputs_do_not_reach_earlier_outputs(options):
    # shorter than the explicit filter, whose last taps Zoology's FFT would wrap around
    mixer = solo(seq_len=70, **options)
    x = torch.randn(1, 2, 13, 6, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(mixer(x)[:, :, :9].sum(), x)
    assert grad[:, :, :9].abs().amin(dim=(0, 1, 3)).gt(0).all()
    assert grad[:, :, 9:].abs().max() < 1e-12


def test_flops_of_a_small_model_by_hand():
    # projection 6 -> 6, three taps, gate and addition
    assert solo(seq_len=64).flops(64) == 2 * 64 * (6 * 6 + 6 * 3) + 6 * 2 * 64
    # instead of the taps an FFT of 128 points each way, a complex product and "x +"
    of_fft = 2 * 2.5 * 128 * 7 + 6 * 65
    for conv in ("implicit", "explicit"):
        mixer = solo(seq_len=64, conv=conv)
        assert mixer.flops(64) == 2 * 64 * 6 * 6 + 6 * (of_fft + 3 * 64)
        assert mixer.flops(64, 4) == mixer.flops(64) - 2 * 60 * 6 * 6


@each_case
def test_bf16_input_gives_bf16_output_near_float32_and_finite_gradients(options):
    for length in (13, 70):
        mixer = solo(seq_len=70, **options).float()
        x = torch.randn(1, 2, length, 6)
        y, expected = mixer(x.bfloat16()), mixer(x)
        assert y.dtype == torch.bfloat16
        assert_close(y.float(), expected, rtol=0.1, atol=0.1 * expected.abs().max().item())
        y.float().square().mean().backward()
        for parameter in mixer.parameters():
            assert parameter.grad.dtype == torch.float32 and parameter.grad.isfinite().all()


def test_an_input_beyond_a_long_filter_is_an_error():
    for conv in ("implicit", "explicit"):
        with pytest.raises(ValueError, match="base_conv was built for 13 positions, not 14"):
            solo(conv=conv)(torch.randn(1, 2, 14, 6, dtype=torch.float64))
    solo()(torch.randn(1, 2, 14, 6, dtype=torch.float64))

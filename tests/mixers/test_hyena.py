"""The equations of the paper, written out; initial weights by Zoology's rules."""

import cmath
import math

import pytest
import torch
from conftest import assert_pack_is_its_runs, gradients
from torch.testing import assert_close

from zoorecall.mixers.hyena import Hyena, HyenaConfig
from zoorecall.ops.long_conv import long_conv
from zoorecall.ops.long_conv.fast import TOEPLITZ_UP_TO, long_conv_fft, long_conv_toeplitz
from zoorecall.ops.long_conv.reference import long_conv_direct

STATE_SIZES = [
    ("hyena", {}, 132, 204),
    (
        "hyena",
        {"conv_size": 4, "filter_order": 7, "filter_freq": 2.0, "emb_dim": 5, "init_std": 0.3},
        168,
        240,
    ),
]

FORMS = [long_conv, long_conv_fft, long_conv_toeplitz]


def inputs(R=3, B=2, L=13, C=5, dtype=torch.float64):
    shapes = (R, B, L, C), (R, L, C)
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def solo(seq_len=13, **options):
    """A mixer of one run whose parameters are all far from special values."""
    mixer = Hyena(HyenaConfig(**options), 6, seq_len, 2).double()
    for parameter in mixer.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    return mixer


def hyena_step_by_step(mixer, x):
    """The equations of the paper for one run and sequence, x [L, D] -> y [L, D] and the number of
    values carried from each step to the next."""
    weights = {name: parameter[0] for name, parameter in mixer.named_parameters()}
    D, longest = x.shape[1], weights["filter_fn.z"].shape[0]
    outputs, carried = [], []
    past_inputs: list[torch.Tensor] = []  # x1 . v at every position so far
    taps = weights["short_filter.weight"].shape[1]
    window = [torch.zeros(3 * D, dtype=x.dtype) for _ in range(taps - 1)]
    filters = []
    for t in range(len(x)):
        h = weights["filter_fn.z"][t]
        for i in range(3):
            w, b = (weights[f"filter_fn.linears.{i}.{name}"] for name in ("weight", "bias"))
            h = torch.sin(weights["filter_fn.freq"] * (w @ h + b))
        rates = [
            -math.log(0.01) / 1.5 + d / (D - 1) * math.log(0.01) * (1 / 1.5 - 1 / 0.3)
            for d in range(D)
        ]
        decay = torch.tensor([math.exp(-rate * t / (longest - 1)) for rate in rates])
        filters.append(weights["filter_fn.out.weight"] @ h * decay)

        window.append(weights["in_proj.weight"] @ x[t] + weights["in_proj.bias"])
        u = weights["short_filter.bias"].clone()
        for j in range(taps):
            u = u + weights["short_filter.weight"][:, j] * window[j]
        window = window[1:]
        x1, x2, v = u[:D], u[D : 2 * D], u[2 * D :]
        past_inputs.append(x1 * v)
        y = weights["bias"] * past_inputs[t]
        for s in range(t + 1):
            y = y + filters[t - s] * past_inputs[s]
        outputs.append(weights["out_proj.weight"] @ (x2 * y) + weights["out_proj.bias"])
        carried.append(sum(value.numel() for value in (*past_inputs, *window)))
    return torch.stack(outputs), carried


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length", [1, 2, 13, 64, TOEPLITZ_UP_TO["cpu"] + 1, 100])
def test_fast_forms_are_the_definition(form, length):
    tensors = inputs(L=length)
    y, expected = form(*tensors), long_conv_direct(*tensors)
    assert y.shape == (3, 2, length, 5)
    assert_close(y, expected)
    assert_close(gradients(y, tensors), gradients(expected, tensors))


@pytest.mark.parametrize("form", [*FORMS, long_conv_direct])
def test_convolution_keeps_half_precision(form):
    u, h = inputs(dtype=torch.float32)
    y = form(u.bfloat16(), h)
    assert y.dtype == torch.bfloat16
    assert_close(y.float(), long_conv_direct(u, h), rtol=0.05, atol=0.2)


@pytest.mark.parametrize("options", [{}, {"conv_size": 4, "filter_order": 7, "emb_dim": 5}])
@pytest.mark.parametrize("length", [1, 2, 13, 70])
def test_mixer_is_the_equations_of_the_paper(length, options):
    mixer = solo(seq_len=70, **options)
    x = torch.randn(1, 2, length, 6, dtype=torch.float64, requires_grad=True)
    y = mixer(x)
    expected = torch.stack([hyena_step_by_step(mixer, u)[0] for u in x[0]])[None]
    # the decay is a float32 constant
    assert_close(y, expected, rtol=1e-5, atol=1e-5)
    tensors = [x, *mixer.parameters()]
    assert_close(gradients(y, tensors), gradients(expected, tensors), rtol=1e-4, atol=1e-4)


def test_pack_is_its_runs():
    x = torch.randn(3, 2, 13, 6, dtype=torch.float64, requires_grad=True)
    assert_pack_is_its_runs(solo(), [solo() for _ in range(3)], x)


def test_filter_starts_from_complex_exponentials_and_a_decay():
    mixer = Hyena(HyenaConfig(emb_dim=7), 6, 13, 2)
    for t in range(13):
        waves = [cmath.exp(-2j * math.pi * f * t / 13) for f in (1e-4, 1.00005, 2)]
        features = [t / 12, *(w.real for w in waves), *(w.imag for w in waves)]
        assert_close(mixer.filter_fn.z[0, t], torch.tensor(features))
    assert_close(mixer.filter_fn.decay[0], torch.ones(6))
    ends = mixer.filter_fn.decay[12, [0, 5]]
    assert_close(ends, torch.tensor([0.01 ** (1 / 1.5), 0.01 ** (1 / 0.3)]))
    assert_close(mixer.filter_fn.freq, torch.ones(1, 64))


def test_initial_weights_follow_zoology():
    mixer = Hyena(HyenaConfig(), 96, 13, 3)
    weights = dict(mixer.named_parameters())
    for name in ("in_proj", "filter_fn.linears.0", "filter_fn.linears.2", "filter_fn.out"):
        assert_close(weights[f"{name}.weight"].std().item(), 0.02, rtol=0.2, atol=0)
    out_std = weights["out_proj.weight"].std().item()
    assert_close(out_std, 0.02 / math.sqrt(6), rtol=0.1, atol=0)
    for name in ("in_proj", "filter_fn.linears.1", "out_proj"):
        assert weights[f"{name}.bias"].eq(0).all()
    assert_close(weights["bias"].std().item(), 1.0, rtol=0.3, atol=0)
    assert 0.55 < weights["short_filter.weight"].abs().max() <= 1 / math.sqrt(3)
    assert "filter_fn.out.bias" not in weights


def test_without_a_std_linear_layers_start_as_torchs():
    mixer = Hyena(HyenaConfig(init_std=None), 96, 13, 3)
    for linear in (mixer.in_proj, mixer.out_proj, mixer.filter_fn.out):
        bound = linear.weight.shape[-1] ** -0.5
        assert 0.99 * bound < linear.weight.abs().max() <= bound
    assert mixer.out_proj.bias.abs().max() > 0


@pytest.mark.parametrize("length", [13, 70])
def test_later_inputs_do_not_reach_earlier_outputs(length):
    mixer = solo(seq_len=70)
    x = torch.randn(1, 2, length, 6, dtype=torch.float64)
    later = x.clone()
    later[:, :, 9:] += 1
    before, after = mixer(x), mixer(later)
    # an FFT mixes all positions and separates them again: equal to rounding, not to the bit
    assert_close(after[:, :, :9], before[:, :, :9], rtol=0, atol=1e-12)
    assert (after - before)[:, :, 9:].abs().amin(dim=-1).gt(1e-6).all()


@pytest.mark.parametrize("conv_size", [2, 3])
def test_state_size_counts_what_a_step_carries(conv_size):
    mixer = solo(conv_size=conv_size)
    _, carried = hyena_step_by_step(mixer, torch.randn(13, 6, dtype=torch.float64))
    assert [mixer.state_size(t + 1) for t in range(13)] == carried


def test_flops_leave_out_the_filters_network():
    mixer = solo(seq_len=64)
    small = solo(seq_len=64, filter_order=1)
    assert mixer.flops(64) == small.flops(64)
    # a sequence: projections 6 -> 18 and 6 -> 6, short convolution, FFT of 128 points, gates
    linear = 2 * 64 * (6 * 18 + 18 * 3 + 6 * 6)
    transform = 2.5 * 128 * 7
    assert mixer.flops(64) == linear + 6 * (2 * transform + 6 * 65 + 2 * 64)


def test_bf16_input_gives_bf16_output_near_float32_and_finite_gradients():
    for length in (13, 70):
        mixer = solo(seq_len=70).float()
        x = torch.randn(1, 2, length, 6)
        y = mixer(x.bfloat16())
        assert y.dtype == torch.bfloat16
        expected = mixer(x)
        assert_close(y.float(), expected, rtol=0.1, atol=0.1 * expected.abs().max().item())
        y.float().square().mean().backward()
        for parameter in mixer.parameters():
            assert parameter.grad.dtype == torch.float32
            assert parameter.grad.isfinite().all()


def test_an_input_beyond_the_filter_is_an_error():
    with pytest.raises(ValueError, match="hyena was built for 13 positions, not 14"):
        solo()(torch.randn(1, 2, 14, 6, dtype=torch.float64))


def test_even_number_of_features_is_an_error():
    with pytest.raises(ValueError, match="emb_dim must be odd"):
        HyenaConfig(emb_dim=4).check(6)

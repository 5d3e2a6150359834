"""The equations of the paper, written out; initial values by RWKV-4's rules."""

import math

import pytest
import torch
from conftest import assert_pack_is_its_runs, gradients
from torch.testing import assert_close

from zoorecall.mixers import make_mixer
from zoorecall.mixers.rwkv import RWKV, RWKVConfig
from zoorecall.ops.wkv.fast import wkv
from zoorecall.ops.wkv.reference import wkv_recurrent

STATE_SIZES = [
    ("rwkv", {}, 48, 48),
]


def inputs(R=3, B=2, L=13, C=5, dtype=torch.float64):
    k, v = (torch.randn(R, B, L, C, dtype=dtype) for _ in range(2))
    w, u = torch.rand(R, C, dtype=dtype) + 0.01, torch.randn(R, C, dtype=dtype)
    return [t.requires_grad_() for t in (k, v, w, u)]


def extreme_inputs():
    """Keys of +-100 in any order, decays from 1e-3 to 20, bonuses of +-30."""
    k, v, _, _ = inputs(L=40, C=12)
    k = 100 * k.sign() * (torch.rand_like(k) < 0.3) + k
    w = torch.logspace(-3, math.log10(20), 12, dtype=k.dtype).repeat(3, 1)
    u = torch.tensor([-30.0, 0.0, 30.0], dtype=k.dtype)[:, None].repeat(1, 12)
    return [t.detach().requires_grad_() for t in (k, v, w, u)]


def wkv_by_formula(k, v, w, u):
    """The sums as the paper has them, of exponentials that float64 holds up to e^709."""
    outputs = []
    for t in range(k.shape[2]):
        own = torch.exp(u[:, None] + k[:, :, t])
        num, den = own * v[:, :, t], own
        for s in range(t):
            weight = torch.exp(k[:, :, s] - (t - 1 - s) * w[:, None])
            num, den = num + weight * v[:, :, s], den + weight
        outputs.append(num / den)
    return torch.stack(outputs, dim=2)


def solo(d_model=6, layer=1):
    """A mixer of one run whose parameters are all far from special values."""
    mixer = make_mixer(RWKVConfig(), d_model, 13, 2, layer)
    for parameter in mixer.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    return mixer.double()


def rwkv_step_by_step(mixer, x):
    """The time mixing of one run and sequence with RWKV's state, x [L, D] -> y [L, D], and the
    number of values carried from each step to the next."""
    weights = {name: parameter[0] for name, parameter in mixer.named_parameters()}
    last = num = den = torch.zeros(x.shape[1], dtype=x.dtype)
    top = torch.full_like(num, -1e38)
    w, u = weights["time_decay"].exp(), weights["time_first"]
    outputs, carried = [], []
    for x_t in x:
        branches = []
        for letter, name in (("k", "key"), ("v", "value"), ("r", "receptance")):
            mix = weights[f"time_mix_{letter}"]
            branches.append(weights[f"{name}.weight"] @ (x_t * mix + last * (1 - mix)))
        k, v, r = branches
        last = x_t
        peak = torch.maximum(top, u + k).detach()
        past, now = torch.exp(top - peak), torch.exp(u + k - peak)
        y = (past * num + now * v) / (past * den + now)
        peak = torch.maximum(top - w, k).detach()
        past, now = torch.exp(top - w - peak), torch.exp(k - peak)
        num, den, top = past * num + now * v, past * den + now, peak
        outputs.append(weights["output.weight"] @ (y / (1 + torch.exp(-r))))
        carried.append(sum(state.numel() for state in (last, num, den, top)))
    return torch.stack(outputs), carried


@pytest.mark.parametrize("length", [1, 2, 13, 64, 100])
def test_fast_form_is_the_recurrence(length):
    tensors = inputs(L=length)
    y, expected = wkv(*tensors), wkv_recurrent(*tensors)
    assert y.shape == (3, 2, length, 5)
    assert_close(y, expected)
    assert_close(gradients(y, tensors), gradients(expected, tensors))


@pytest.mark.parametrize("form", [wkv, wkv_recurrent])
@pytest.mark.parametrize("make", [inputs, extreme_inputs])
def test_both_forms_are_the_formula(form, make):
    tensors = make()
    y, expected = form(*tensors), wkv_by_formula(*tensors)
    assert_close(y, expected)
    assert_close(gradients(y, tensors), gradients(expected, tensors))


@pytest.mark.parametrize("form", [wkv, wkv_recurrent])
def test_extreme_keys_keep_float32_accuracy(form):
    tensors = extreme_inputs()
    expected = wkv_by_formula(*tensors)
    singles = [t.detach().float().requires_grad_() for t in tensors]
    y = form(*singles)
    assert_close(y.double(), expected, rtol=1e-4, atol=1e-4)
    for actual, exact in zip(gradients(y, singles), gradients(expected, tensors), strict=True):
        scale = exact.abs().max().item()
        assert_close(actual.double(), exact, rtol=1e-3, atol=1e-4 * scale)


def test_gradient_of_a_fast_decay_keeps_relative_accuracy():
    # e^-w is 2e-9: a difference of numbers near one would leave nothing of it
    tensors = inputs()
    tensors[2] = torch.full_like(tensors[2], 20.0).requires_grad_()
    expected = gradients(wkv_by_formula(*tensors), tensors)[2]
    singles = [t.detach().float().requires_grad_() for t in tensors]
    assert_close(gradients(wkv(*singles), singles)[2].double(), expected, rtol=1e-3, atol=1e-13)


def test_half_precision_is_computed_in_float32():
    k, v, w, u = (t.detach().float() for t in inputs())
    y = wkv(k.bfloat16(), v.bfloat16(), w, u)
    assert y.dtype == torch.bfloat16
    assert_close(y, wkv(k.bfloat16().float(), v.bfloat16().float(), w, u).bfloat16())


def test_mixer_is_the_equations_of_the_paper():
    mixer = solo()
    x = torch.randn(1, 2, 13, 6, dtype=torch.float64, requires_grad=True)
    y = mixer(x)
    expected = torch.stack([rwkv_step_by_step(mixer, sequence)[0] for sequence in x[0]])[None]
    assert_close(y, expected)
    tensors = [x, *mixer.parameters()]
    assert_close(gradients(y, tensors), gradients(expected, tensors))


def test_pack_is_its_runs():
    x = torch.randn(3, 2, 13, 6, dtype=torch.float64, requires_grad=True)
    assert_pack_is_its_runs(solo(), [solo() for _ in range(3)], x)


@pytest.mark.parametrize("layer", [0, 1, 11])
def test_vectors_start_as_rwkv_4s_of_twelve_layers(layer):
    mixer = make_mixer(RWKVConfig(), 7, 13, 2, layer)
    for i in range(7):
        decay = -5 + 8 * (i / 6) ** (0.7 + 1.3 * layer / 11)
        bonus = math.log(0.3) + 0.5 * (0, 1, -1)[i % 3]
        mix = (i / 7) ** (1 - layer / 12)
        starts = [decay, bonus, mix, mix + 0.3 * layer / 11, mix**0.5]
        names = ["decay", "first", "mix_k", "mix_v", "mix_r"]
        for name, expected in zip(names, starts, strict=True):
            value = mixer.get_parameter(f"time_{name}")[0, i].item()
            assert_close(value, expected, rtol=1e-5, atol=1e-6)


def test_a_mixer_on_its_own_starts_as_the_first_layer_and_late_ones_as_the_twelfth():
    alone, first = RWKV(RWKVConfig(), 6, 13, 2), make_mixer(RWKVConfig(), 6, 13, 2, 0)
    late, twelfth = (make_mixer(RWKVConfig(), 6, 13, 20, layer) for layer in (19, 11))
    for name in ("decay", "first", "mix_k", "mix_v", "mix_r"):
        for mixer, other in ((alone, first), (late, twelfth)):
            parameters = (m.get_parameter(f"time_{name}") for m in (mixer, other))
            assert torch.equal(*parameters)


def test_one_channel_decays_slowly():
    assert RWKV(RWKVConfig(), 1, 13, 2).time_decay.item() == -5


def test_linear_layers_start_as_torchs():
    mixer = RWKV(RWKVConfig(), 96, 13, 2)
    for linear in (mixer.key, mixer.value, mixer.receptance, mixer.output):
        bound = 96**-0.5
        assert 0.99 * bound < linear.weight.abs().max() <= bound
        assert linear.bias is None


def test_later_inputs_do_not_reach_earlier_outputs():
    mixer = solo()
    x = torch.randn(1, 2, 13, 6, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(mixer(x)[:, :, :9].sum(), x)
    assert grad[:, :, :9].abs().amin(dim=(0, 1, 3)).gt(0).all()
    assert grad[:, :, 9:].eq(0).all()


def test_state_size_counts_what_a_step_carries():
    mixer = solo()
    _, carried = rwkv_step_by_step(mixer, torch.randn(13, 6, dtype=torch.float64))
    assert [mixer.state_size(t + 1) for t in range(13)] == carried


def test_flops_of_a_sequence():
    mixer = solo()
    mixes = 3 * (2 + 1)  # x mix + x' (1 - mix): two products and a sum
    state = (2 + 1) + (1 + 1)  # decay num + e^k v, decay den + e^k
    output = 1 + 1 + 2 + 1  # the exponent u + k, e^(u + k) v, two sums, a quotient
    assert mixer.sequence_flops(13) == 13 * 6 * (mixes + state + output + 1)
    assert mixer.flops(13, 4) == 2 * 36 * (3 * 13 + 4) + mixer.sequence_flops(13)


def test_bf16_input_gives_bf16_output_near_float32_and_finite_gradients():
    mixer = solo().float()
    x = torch.randn(1, 2, 13, 6)
    y, expected = mixer(x.bfloat16()), mixer(x)
    assert y.dtype == torch.bfloat16
    assert_close(y.float(), expected, rtol=0.05, atol=0.05 * expected.abs().max().item())
    y.float().square().mean().backward()
    for parameter in mixer.parameters():
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()

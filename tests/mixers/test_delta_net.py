"""`DeltaNet` of flash-linear-attention: outputs, gradients, initial weights."""

import copy

import pytest
import torch
from conftest import gradients
from official_fla import DeltaNet as OfficialDeltaNet
from official_fla import assert_pack_is, naive_delta_rule
from torch.nn.functional import normalize
from torch.testing import assert_close

from zoorecall.mixers.delta_net import DeltaNet, DeltaNetConfig
from zoorecall.ops.delta_rule.fast import delta_rule
from zoorecall.ops.delta_rule.reference import delta_rule_recurrent

STATE_SIZES = [
    ("delta_net", {}, 252, 252),
    ("delta_net", {"num_heads": 3, "conv_size": 3}, 120, 120),
    ("delta_net", {"conv": False}, 144, 144),
]


def inputs(R=3, B=2, L=13, H=5, K=4, V=7, dtype=torch.float64):
    q, k = (normalize(torch.randn(R, B, L, H, K, dtype=dtype), dim=-1) for _ in range(2))
    v, beta = torch.randn(R, B, L, H, V, dtype=dtype), torch.rand(R, B, L, H, dtype=dtype)
    return [t.requires_grad_() for t in (q, k, v, beta)]


def make(num_runs=3, d_model=12, dtype=torch.float64, **options):
    """A pack and the official layers whose weights it holds."""
    mixer = DeltaNet(DeltaNetConfig(**options), d_model, 13, 2)
    use_conv = options.pop("conv", True)
    officials = []
    for _ in range(num_runs):
        make_official = dict(d_model=d_model, use_short_conv=use_conv, num_heads=1) | options
        if use_conv:
            officials.append(OfficialDeltaNet(**make_official))
        else:
            with pytest.warns(UserWarning, match="crucial"):
                officials.append(OfficialDeltaNet(**make_official))
    for name, parameter in mixer.named_parameters():
        weights = [o.get_parameter(name).detach().view_as(parameter) for o in officials]
        parameter.data = torch.cat(weights)
    return mixer.to(dtype), [o.to(dtype) for o in officials]


@pytest.mark.parametrize("chunk_size", [16, 64])
@pytest.mark.parametrize("length", [1, 2, 13, 64, 100])
def test_chunked_form_is_the_recurrence(length, chunk_size):
    tensors = inputs(L=length)
    y, expected = delta_rule(*tensors, chunk_size=chunk_size), delta_rule_recurrent(*tensors)
    assert y.shape == (3, 2, length, 5, 7)
    assert_close(y, expected)
    assert_close(gradients(y, tensors), gradients(expected, tensors))


def test_recurrence_is_flas_naive_one():
    tensors = inputs(R=1, dtype=torch.float32)
    expected, _ = naive_delta_rule(*(t[0] for t in tensors))
    assert_close(delta_rule_recurrent(*tensors)[0], expected)


def test_repeated_keys_keep_float32_accuracy():
    q, k, v, beta = inputs(L=64, K=16)
    k = k[:, :, :1].expand_as(k)
    beta = torch.ones_like(beta)
    y = delta_rule(*(t.float() for t in (q, k, v, beta)))
    assert_close(y.double(), delta_rule_recurrent(q, k, v, beta), rtol=0, atol=1e-5)


def test_a_written_value_is_read_back_with_its_key():
    # orthonormal keys, each written twice at full strength: the second value replaces the first
    keys = torch.eye(4, dtype=torch.float64).repeat(2, 1)  # [L = 8, K = 4]
    k = keys[None, None, :, None].expand(3, 2, 8, 1, 4)
    v = torch.randn(3, 2, 8, 1, 7, dtype=torch.float64)
    y = delta_rule(2 * k, k, v, torch.ones(3, 2, 8, 1, dtype=torch.float64))
    assert_close(y, v)  # 2 is the square root of K, which the scale divides by


@pytest.mark.parametrize("length", [13, 65])  # fla's layer calls another kernel up to 64
@pytest.mark.parametrize("options", [{}, {"num_heads": 3, "conv_size": 3}, {"conv": False}])
@pytest.mark.parametrize("num_runs", [1, 3])
def test_pack_is_the_official_layers(num_runs, options, length):
    mixer, officials = make(num_runs, dtype=torch.float32, **options)
    assert_pack_is(mixer, officials, length)


@pytest.mark.parametrize("seed", [0, 1])
def test_initial_weights_are_the_official_ones(seed):
    torch.manual_seed(seed)
    mixer = DeltaNet(DeltaNetConfig(num_heads=3), 12, 13, 2)
    torch.manual_seed(seed)
    official = OfficialDeltaNet(d_model=12, num_heads=3)
    assert {n for n, _ in mixer.named_parameters()} == {n for n, _ in official.named_parameters()}
    for name, parameter in mixer.named_parameters():
        assert_close(parameter, official.get_parameter(name).view_as(parameter))


def test_later_inputs_do_not_reach_earlier_outputs():
    mixer, _ = make()
    x = torch.randn(3, 2, 70, 12, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(mixer(x)[:, :, :66].sum(), x)
    assert grad[:, :, :66].abs().amin(dim=(0, 1, 3)).gt(0).all()
    assert grad[:, :, 66:].eq(0).all()


def test_sequence_flops_count_the_three_products_of_a_step():
    mixer, _ = make(num_heads=3)  # 3 heads of 4 x 4, an add and a multiply for each number
    assert mixer.sequence_flops(13) == 13 * 3 * (2 * 4 * 4 + 2 * 4 * 4 + 2 * 4 * 4)


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


def test_a_run_of_nan_leaves_its_neighbours():
    mixer, _ = make()
    x = torch.randn(3, 2, 13, 12, dtype=torch.float64)
    expected = mixer(x)
    broken = copy.deepcopy(mixer)
    broken.k_proj.weight.data[1] = torch.nan
    y = broken(x)
    assert y[1].isnan().all()
    assert_close(y[[0, 2]], expected[[0, 2]])


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="d_model 12 is not a multiple of num_heads 5"):
        DeltaNetConfig(num_heads=5).check(12)

"""`Mamba2` of mamba-ssm: outputs, gradients, initial weights, defaults."""

import copy

import pytest
import torch
from official import Mamba2 as OfficialMamba2
from official import ssd_minimal_discrete
from test_mamba import Arithmetic, gradients
from torch.nn.functional import softplus
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from zoorecall.layers import Linear
from zoorecall.mixers.mamba2 import Mamba2, Mamba2Config
from zoorecall.ops.ssd.fast import ssd
from zoorecall.ops.ssd.reference import ssd_recurrent

STATE_SIZES = [
    ("mamba2", {"headdim": 8}, 3912, 3912),
    (
        "mamba2",
        {"headdim": 4, "expand": 3, "d_state": 5, "d_conv": 3, "ngroups": 3, "init_std": 0.3},
        312,
        312,
    ),
]

CASES = [
    {"headdim": 8},
    {"headdim": 4, "expand": 3, "d_state": 5, "d_conv": 3, "ngroups": 3},
]


def inputs(R=3, B=2, L=13, H=6, P=7, G=2, N=5, dtype=torch.float64):
    x, dt = torch.randn(R, B, L, H, P, dtype=dtype), torch.rand(R, B, L, H, dtype=dtype)
    A = -4 * torch.rand(R, H, dtype=dtype)
    tensors = [x, dt, A, *(torch.randn(R, B, L, G, N, dtype=dtype) for _ in range(2))]
    return [t.requires_grad_() for t in tensors]


def make(num_runs=3, dtype=torch.float32, **options):
    """A pack of width 12 and the official layers whose weights it holds."""
    mixer = Mamba2(Mamba2Config(**options), 12, 13, 2)
    officials = [OfficialMamba2(12, use_mem_eff_path=False, **options) for _ in range(num_runs)]
    for official in officials:
        for parameter in official.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    for name, parameter in mixer.named_parameters():
        weights = [o.get_parameter(name).detach().view_as(parameter) for o in officials]
        parameter.data = torch.cat(weights)
    return mixer.to(dtype), officials


@pytest.mark.parametrize("chunk_size", [8, 32, 64])
@pytest.mark.parametrize("length", [1, 2, 13, 64, 100])
def test_parallel_form_is_the_recurrence(length, chunk_size):
    tensors = inputs(L=length)
    y, expected = ssd(*tensors, chunk_size=chunk_size), ssd_recurrent(*tensors)
    assert y.shape == (3, 2, length, 6, 7)
    assert_close(y, expected)
    assert_close(gradients(y, tensors), gradients(expected, tensors))


def test_recurrence_is_the_official_minimal_one():
    tensors = inputs(R=1, L=12)
    x, dt, A, B, C = (t[0] for t in tensors)
    B, C = (t.repeat_interleave(3, dim=2) for t in (B, C))
    expected, _ = ssd_minimal_discrete(x * dt[..., None], A * dt, B, C, 4)
    assert_close(ssd_recurrent(*tensors)[0], expected)


def test_work_grows_with_the_length_and_not_with_its_square():
    counts = []
    for length in (256, 512):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            ssd(*inputs(R=1, B=1, L=length))
        counts.append(counter.get_total_flops())
    assert counts[1] < 2.5 * counts[0]


@pytest.mark.parametrize("chunk_size", [8, 64])
def test_steps_that_forget_everything_leave_finite_gradients(chunk_size):
    x, dt, A, B, C = inputs(L=100, dtype=torch.float32)
    tensors = [x, (1e3 * dt).detach().requires_grad_(), A, B, C]
    y, expected = ssd(*tensors, chunk_size=chunk_size), ssd_recurrent(*tensors)
    assert (y - expected).norm() < 1e-3 * expected.norm()
    assert all(gradient.isfinite().all() for gradient in gradients(y, tensors))


@pytest.mark.parametrize("length", [13, 130])
@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize("num_runs", [1, 3])
def test_pack_is_the_official_layers(num_runs, options, length):
    mixer, officials = make(num_runs, **options)
    x = torch.randn(num_runs, 2, length, 12, requires_grad=True)
    y = mixer(x)
    expected = torch.stack([o(x[r]) for r, o in enumerate(officials)])
    assert_close(y, expected, rtol=1e-4, atol=1e-4)
    names = [name for name, _ in mixer.named_parameters()]
    ours = gradients(y, [x, *mixer.parameters()])
    theirs = gradients(expected, [x, *(o.get_parameter(n) for n in names for o in officials)])
    assert_close(ours[0], theirs[0], rtol=1e-3, atol=1e-3)
    for i, name in enumerate(names):
        of_runs = theirs[1 + i * num_runs : 1 + (i + 1) * num_runs]
        expected_gradient = torch.stack(of_runs).view_as(ours[1 + i])
        message = lambda m, name=name: f"{name}: {m}"  # noqa: E731
        assert_close(ours[1 + i], expected_gradient, rtol=1e-3, atol=1e-3, msg=message)


@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_initial_weights_are_the_official_ones(seed, options):
    torch.manual_seed(seed)
    mixer = Mamba2(Mamba2Config(**options), 12, 13, 2)
    torch.manual_seed(seed)
    official = OfficialMamba2(12, **options)
    assert {n for n, _ in mixer.named_parameters()} == {n for n, _ in official.named_parameters()}
    for name, parameter in mixer.named_parameters():
        assert torch.equal(parameter, official.get_parameter(name).view_as(parameter)), name


def test_defaults_are_the_official_ones():
    mixer, official = Mamba2(Mamba2Config(), 64, 13, 2), OfficialMamba2(64)
    for name, parameter in mixer.named_parameters():
        assert parameter.numel() == official.get_parameter(name).numel(), name


def test_init_std_draws_linear_layers_as_zoology_does():
    mixer = Mamba2(Mamba2Config(init_std=0.02), 128, 13, num_layers=8)
    assert_close(mixer.in_proj.weight.std(), torch.tensor(0.02), rtol=0.05, atol=0)
    assert_close(mixer.out_proj.weight.std(), torch.tensor(0.02 / 4), rtol=0.05, atol=0)
    assert softplus(mixer.dt_bias).max() < 0.11


@pytest.mark.parametrize("options", CASES)
def test_later_inputs_do_not_reach_earlier_outputs(options):
    mixer, _ = make(dtype=torch.float64, **options)
    x = torch.randn(3, 2, 150, 12, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(mixer(x)[:, :, :70].sum(), x)
    assert grad[:, :, :70].abs().amin(dim=(0, 1, 3)).gt(0).all()
    assert grad[:, :, 70:].eq(0).all()


def test_sequence_flops_count_the_arithmetic_of_the_recurrence():
    mixer, _ = make(num_runs=1, **CASES[1])
    tensors = inputs(R=1, B=1, H=9, P=4, G=3, N=5)
    with Arithmetic() as arithmetic:
        ssd_recurrent(*tensors)
    skip_and_gate = 13 * 9 * 4 * (2 + 1)
    assert mixer.sequence_flops(13) == arithmetic.count + skip_and_gate


def test_matrix_products_are_those_of_the_linear_layers_and_of_the_square_of_positions():
    mixer, _ = make(**CASES[1])
    with FlopCounterMode(display=False) as counter:
        mixer(torch.randn(3, 2, 13, 12))
    linears = sum(m.weight[0].numel() for m in mixer.modules() if isinstance(m, Linear))
    square = 13 * 13 * (3 * 5 + 9 * 4)  # C B^T for 3 groups of state 5; 9 heads of 4 channels
    assert counter.get_total_flops() == 3 * 2 * 2 * (13 * linears + square)
    of_layers = mixer.flops(13) - mixer.sequence_flops(13)
    assert of_layers == 13 * 2 * (linears + mixer.conv1d.weight[0].numel())


@pytest.mark.parametrize("length", [13, 150])
@pytest.mark.parametrize("options", CASES)
def test_bf16_input_gives_bf16_output_near_float32_and_finite_gradients(options, length):
    mixer, _ = make(**options)
    x = torch.randn(3, 2, length, 12)
    y, expected = mixer(x.bfloat16()), mixer(x)
    assert y.dtype == torch.bfloat16
    assert (y - expected).norm() < 0.02 * expected.norm()
    y.float().square().mean().backward()
    for parameter in mixer.parameters():
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()


def test_a_run_of_nan_leaves_its_neighbours():
    mixer, _ = make(dtype=torch.float64, **CASES[1])
    x = torch.randn(3, 2, 150, 12, dtype=torch.float64)
    broken = copy.deepcopy(mixer)
    broken.A_log.data[1] = torch.nan
    y, expected = broken(x), mixer(x)
    assert y[1].isnan().all()
    assert_close(y[[0, 2]], expected[[0, 2]])
    y[[0, 2]].sum().backward()
    expected[[0, 2]].sum().backward()
    for ours, theirs in zip(broken.parameters(), mixer.parameters(), strict=True):
        assert_close(ours.grad[[0, 2]], theirs.grad[[0, 2]])


def test_head_dim_must_divide_the_channels_and_groups_the_heads():
    Mamba2Config().check(32)
    with pytest.raises(ValueError, match="= 96 is not a multiple of headdim 64; headdim 48 fits"):
        Mamba2Config().check(48)
    with pytest.raises(ValueError, match="headdim 24 fits"):
        Mamba2Config().check(12)
    with pytest.raises(ValueError, match="2 heads cannot be split into 3 groups"):
        Mamba2Config(ngroups=3).check(64)

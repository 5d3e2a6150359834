"""`Mamba` of mamba-ssm, of whose parts one may be left out: outputs, gradients, initial weights."""

import copy

import pytest
import torch
from conftest import gradients
from official import Mamba as OfficialMamba
from official import mamba_simple, selective_scan_ref
from pydantic import ValidationError
from torch import nn
from torch.nn.functional import softplus
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from zoorecall.layers import Linear
from zoorecall.mixers.mamba import S6, Mamba, MambaConfig, S6Config
from zoorecall.ops.selective_scan import fast
from zoorecall.ops.selective_scan.fast import selective_scan
from zoorecall.ops.selective_scan.reference import selective_scan_recurrent

STATE_SIZES = [
    ("mamba", {}, 456, 456),
    ("mamba", {"expand": 3, "d_state": 5, "d_conv": 3, "dt_rank": 2, "init_std": 0.3}, 252, 252),
    ("mamba", {"conv": False, "norm": True}, 384, 384),
    ("mamba", {"gating": False, "d_state": 3}, 144, 144),
    ("s6", {}, 192, 192),
    ("s6", {"conv": True, "d_state": 5, "d_conv": 3, "dt_rank": 2, "init_std": 0.3}, 84, 84),
]

CASES = [
    (Mamba, {}),
    (Mamba, {"expand": 3, "d_state": 5, "d_conv": 3, "dt_rank": 2}),
    (Mamba, {"conv": False}),
    (Mamba, {"gating": False, "d_state": 3}),
    (S6, {}),
    (S6, {"conv": True, "d_state": 5}),
]


def inputs(R=3, B=2, L=13, C=5, N=4, dtype=torch.float64):
    u, delta = torch.randn(R, B, L, C, dtype=dtype), torch.rand(R, B, L, C, dtype=dtype)
    A, D = -4 * torch.rand(R, C, N, dtype=dtype), torch.randn(R, C, dtype=dtype)
    tensors = [u, delta, A, *(torch.randn(R, B, L, N, dtype=dtype) for _ in range(2)), D]
    return [t.requires_grad_() for t in tensors]


def without(official, mixer, options):
    """The official layer with the parts turned into the identity that the mixer does not have."""
    channels = official.d_inner
    if not options.get("conv", mixer is Mamba):
        last_tap = torch.eye(4)[3].repeat(channels, 1, 1)
        official.conv1d.weight.data, official.conv1d.bias.data = last_tap, torch.zeros(channels)
    if mixer is S6:
        official.in_proj.weight.data = torch.eye(channels).repeat(2, 1)
        official.out_proj.weight.data = torch.eye(channels)
        if not options.get("conv"):
            official.act = nn.Identity()
    return official


def make(cls=Mamba, num_runs=3, d_model=12, dtype=torch.float32, **options):
    """A pack and the official layers whose weights it holds."""
    mixer = cls(cls.Config(**options), d_model, 13, 2)
    make_official = {"expand": 1} if cls is S6 else {}
    make_official |= {k: v for k, v in options.items() if k not in ("conv", "gating")}
    officials = [OfficialMamba(d_model, **make_official) for _ in range(num_runs)]
    for official in officials:
        for parameter in official.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        without(official, cls, options)
    for name, parameter in mixer.named_parameters():
        weights = [in_our_shape(o.get_parameter(name).detach(), parameter) for o in officials]
        parameter.data = torch.stack(weights)
    return mixer.to(dtype), officials


def in_our_shape(weight, parameter):
    """An official weight without its axis of size one and, of in_proj, an unused gate's half."""
    weight = weight.squeeze(1) if weight.ndim == 3 else weight
    return weight[: parameter.shape[1]]


@pytest.fixture
def no_gate(monkeypatch):
    def scan(*args, z, return_last_state, **options):
        return selective_scan_ref(*args, **options)

    monkeypatch.setattr(mamba_simple, "selective_scan_fn", scan)


@pytest.mark.parametrize("sequences_in_a_block", [1, 4, 100])
@pytest.mark.parametrize("length", [1, 2, 13, 64, 100])
def test_parallel_form_is_the_recurrence(length, sequences_in_a_block, monkeypatch):
    monkeypatch.setattr(fast, "BLOCK", sequences_in_a_block * length * 5 * 4)
    tensors = inputs(L=length)
    y, expected = selective_scan(*tensors), selective_scan_recurrent(*tensors)
    assert y.shape == (3, 2, length, 5)
    assert_close(y, expected)
    assert_close(gradients(y, tensors), gradients(expected, tensors))


def test_recurrence_is_the_official_reference():
    tensors = inputs(R=1, dtype=torch.float32)
    u, delta, A, B, C, D = (t[0] for t in tensors)
    expected = selective_scan_ref(u.mT, delta.mT, A, B.mT, C.mT, D).mT
    assert_close(selective_scan_recurrent(*tensors)[0], expected)


def test_steps_that_forget_everything_leave_finite_gradients():
    u, delta, A, B, C, D = inputs(dtype=torch.float32)
    tensors = [u, (1e4 * delta).detach().requires_grad_(), A, B, C, D]
    y = selective_scan(*tensors)
    assert_close(y, selective_scan_recurrent(*tensors))
    assert all(gradient.isfinite().all() for gradient in gradients(y, tensors))


def test_a_norm_is_between_gate_and_out_proj_and_draws_nothing():
    mixers = []
    for norm in (False, True):
        torch.manual_seed(0)
        mixers.append(Mamba(MambaConfig(norm=norm), 12, 13, 2))
    plain, normed = mixers
    weights = dict(normed.named_parameters())
    assert weights.keys() - dict(plain.named_parameters()).keys() == {"norm.weight"}
    assert all(torch.equal(weights[name], w) for name, w in plain.named_parameters())
    normed.norm.weight.data = torch.rand(1, 24)
    x = torch.randn(1, 2, 13, 12)
    gated = plain.mix(x)[0] * torch.nn.functional.silu(plain.mix(x)[1])
    expected = torch.nn.functional.rms_norm(gated, (24,), eps=1e-5) * normed.norm.weight
    assert_close(normed(x), plain.out_proj(expected))


def test_a_norm_needs_the_gate_and_changes_no_run_that_has_none():
    assert MambaConfig().label == "mamba" and MambaConfig(norm=True).label == "mamba (norm=True)"
    with pytest.raises(ValueError, match="leave gating true"):
        MambaConfig(norm=True, gating=False).check(12)


def test_no_unwritten_memory_is_read():
    tensors = inputs()
    expected = gradients(selective_scan_recurrent(*tensors), tensors)
    torch.use_deterministic_algorithms(True)  # fills new memory with NaN
    try:
        assert torch.empty(1).isnan()
        actual = gradients(selective_scan(*tensors), tensors)
    finally:
        torch.use_deterministic_algorithms(False)
    assert_close(actual, expected)


@pytest.mark.parametrize(("cls", "options"), CASES)
@pytest.mark.parametrize("num_runs", [1, 3])
def test_pack_is_the_official_layers(num_runs, cls, options, request):
    if cls is S6 or not options.get("gating", True):
        request.getfixturevalue("no_gate")
    mixer, officials = make(cls, num_runs, **options)
    x = torch.randn(num_runs, 2, 13, 12, requires_grad=True)
    y = mixer(x)
    expected = torch.stack([o(x[r]) for r, o in enumerate(officials)])
    assert_close(y, expected, rtol=1e-4, atol=1e-5)
    names = [name for name, _ in mixer.named_parameters()]
    ours = gradients(y, [x, *mixer.parameters()])
    theirs = gradients(expected, [x, *(o.get_parameter(n) for n in names for o in officials)])
    assert_close(ours[0], theirs[0], rtol=1e-4, atol=1e-4)
    for i, name in enumerate(names):
        of_runs = theirs[1 + i * num_runs : 1 + (i + 1) * num_runs]
        expected_gradient = torch.stack([in_our_shape(g, ours[1 + i]) for g in of_runs])
        message = lambda m, name=name: f"{name}: {m}"  # noqa: E731
        assert_close(ours[1 + i], expected_gradient, rtol=1e-4, atol=1e-4, msg=message)


@pytest.mark.parametrize("options", [{}, {"expand": 3, "d_conv": 3, "d_state": 5, "dt_rank": 2}])
@pytest.mark.parametrize("seed", [0, 1])
def test_initial_weights_are_the_official_ones(seed, options):
    torch.manual_seed(seed)
    mixer = Mamba(MambaConfig(**options), 20, 13, 2)
    torch.manual_seed(seed)
    official = OfficialMamba(20, **options)
    assert {n for n, _ in mixer.named_parameters()} == {n for n, _ in official.named_parameters()}
    for name, parameter in mixer.named_parameters():
        assert torch.equal(parameter, official.get_parameter(name).view_as(parameter)), name


def test_init_std_draws_linear_layers_as_zoology_does():
    mixer = Mamba(MambaConfig(init_std=0.02), 128, 13, num_layers=8)
    official = Mamba(MambaConfig(), 128, 13, num_layers=8)
    for name in ("in_proj", "x_proj", "dt_proj"):
        weight = mixer.get_submodule(name).weight
        assert_close(weight.std(), torch.tensor(0.02), rtol=0.05, atol=0)
    assert_close(mixer.out_proj.weight.std(), torch.tensor(0.02 / 4), rtol=0.05, atol=0)
    assert mixer.dt_proj.bias.eq(0).all()
    assert torch.equal(mixer.A_log, official.A_log)
    assert torch.equal(mixer.D, official.D)


def test_steps_start_between_a_thousandth_and_a_tenth():
    torch.manual_seed(0)
    mixer = S6(S6Config(), 4096, 13, 2)
    steps = softplus(mixer.dt_proj.bias).log10()
    assert -3 - 1e-5 < steps.min() < -2.99
    assert -1.01 < steps.max() < -1 + 1e-5
    assert_close(steps.mean(), torch.tensor(-2.0), rtol=0, atol=0.05)


@pytest.mark.parametrize(("cls", "options"), CASES)
def test_later_inputs_do_not_reach_earlier_outputs(cls, options):
    mixer, _ = make(cls, dtype=torch.float64, **options)
    x = torch.randn(3, 2, 13, 12, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(mixer(x)[:, :, :9].sum(), x)
    assert grad[:, :, :9].abs().amin(dim=(0, 1, 3)).gt(0).all()
    assert grad[:, :, 9:].eq(0).all()


class Arithmetic(TorchDispatchMode):
    """Counts the multiplications and additions of element-wise operations and sums."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if name in ("mul", "add"):
            self.count += result.numel()
        elif name == "sum":
            self.count += args[0].numel()
        return result


def test_sequence_flops_count_the_arithmetic_of_the_recurrence():
    tensors = inputs(R=1, B=1, C=24, N=16)
    with Arithmetic() as arithmetic:
        selective_scan_recurrent(*tensors)
    assert make(num_runs=1, gating=False)[0].sequence_flops(13) == arithmetic.count
    assert make(num_runs=1)[0].sequence_flops(13) == arithmetic.count + 13 * 24
    assert make(S6, num_runs=1)[0].sequence_flops(13) == arithmetic.count // 2


def test_matrix_products_are_those_of_the_linear_layers_and_of_reading_the_state():
    mixer, _ = make(num_runs=3, dt_rank=2)  # a product with a vector is padded on a CPU
    with FlopCounterMode(display=False) as counter:
        mixer(torch.randn(3, 2, 13, 12))
    linears = sum(m.weight[0].numel() for m in mixer.modules() if isinstance(m, Linear))
    assert counter.get_total_flops() == 3 * 2 * 13 * (2 * linears + 2 * 24 * 16)
    of_layers = mixer.flops(13) - mixer.sequence_flops(13)
    assert of_layers == 13 * 2 * (linears + mixer.conv1d.weight[0].numel())


@pytest.mark.parametrize(("cls", "options"), CASES)
def test_bf16_input_gives_bf16_output_near_float32_and_finite_gradients(cls, options):
    mixer, _ = make(cls, **options)
    x = torch.randn(3, 2, 13, 12)
    y, expected = mixer(x.bfloat16()), mixer(x)
    assert y.dtype == torch.bfloat16
    assert (y - expected).norm() < 0.02 * expected.norm()
    y.float().square().mean().backward()
    for parameter in mixer.parameters():
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()


def test_a_run_of_nan_leaves_its_neighbours():
    mixer, _ = make(dtype=torch.float64)
    x = torch.randn(3, 2, 13, 12, dtype=torch.float64)
    broken = copy.deepcopy(mixer)
    broken.x_proj.weight.data[1] = torch.nan
    y, expected = broken(x), mixer(x)
    assert y[1].isnan().all()
    assert_close(y[[0, 2]], expected[[0, 2]])
    y[[0, 2]].sum().backward()
    expected[[0, 2]].sum().backward()
    for ours, theirs in zip(broken.parameters(), mixer.parameters(), strict=True):
        assert_close(ours.grad[[0, 2]], theirs.grad[[0, 2]])


@pytest.mark.parametrize("options", [{"dt_rank": 0}, {"dt_rank": "small"}, {"d_conv": 1}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValidationError, match=next(iter(options))):
        MambaConfig(**options)

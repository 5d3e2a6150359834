"""The two recurrences of the paper, written out; initial weights by Zoology's rules."""

import cmath
import math

import pytest
import torch
from conftest import assert_pack_is_its_runs, gradients
from torch.testing import assert_close

from zoorecall.mixers.h3 import H3, DiagonalFilter, H3Config, ShiftFilter

STATE_SIZES = [
    ("h3", {}, 432, 432),
    ("h3", {"head_dim": 1, "d_state": 2}, 36, 36),
    ("h3", {"head_dim": 3, "d_state": 5}, 192, 192),
]


def solo(seq_len=13, d_model=6, **options):
    """A mixer of one run whose parameters are all far from special values."""
    mixer = H3(H3Config(**options), d_model, seq_len, 2).double()
    for parameter in mixer.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    return mixer


def h3_step_by_step(mixer, x):
    """The two SSMs as recurrences for one run and sequence, x [L, D] -> y [L, D] and the number of
    real values carried from one step to the next."""
    weights = {name: parameter[0] for name, parameter in mixer.named_parameters()}
    D, J = x.shape[1], mixer.head_dim
    shift_B, shift_C = weights["shift.B"], weights["shift.C"]  # [N, D]
    shift_state = torch.zeros_like(shift_B)
    A = torch.complex(-weights["diagonal.log_A_real"].exp(), weights["diagonal.A_imag"])  # [H, N]
    B, C = (torch.view_as_complex(weights[f"diagonal.{name}"]) for name in "BC")
    dt = weights["diagonal.log_dt"].exp()[:, None]
    decay = (1 + dt * A / 2) / (1 - dt * A / 2)
    states = torch.zeros(D // J, J, J, A.shape[1], dtype=A.dtype)
    outputs = []
    for x_t in x:
        q, k, v = (weights["in_proj.weight"] @ x_t + weights["in_proj.bias"]).chunk(3)
        kept = shift_state[:-1]
        shift_state = torch.cat([torch.zeros_like(shift_B[:1]), kept]) + shift_B * k
        k = (shift_C * shift_state).sum(0) + weights["shift_D"] * k
        kv = k.view(-1, J, 1) * v.view(-1, 1, J)  # [H, J, J]
        written = (dt * B / (1 - dt * A / 2))[:, None, None] * kv[..., None]
        states = decay[:, None, None] * states + written
        read = 2 * (C[:, None, None] * states).sum(-1).real
        read = read + weights["diagonal_D"][:, None, None] * kv
        y = (q.view(-1, J, 1) * read).sum(1).T.flatten()  # the heads innermost, as officially
        outputs.append(weights["out_proj.weight"] @ y + weights["out_proj.bias"])
    return torch.stack(outputs), kept.numel() + torch.view_as_real(states).numel()


@pytest.mark.parametrize("length", [1, 2, 13, 70])
@pytest.mark.parametrize(
    "options", [{}, {"head_dim": 1}, {"head_dim": 3, "d_state": 4}, {"d_state": 90}]
)
def test_mixer_is_two_recurrences(length, options):
    mixer = solo(seq_len=70, **options)
    x = torch.randn(1, 2, length, 6, dtype=torch.float64, requires_grad=True)
    y, expected = mixer(x), torch.stack([h3_step_by_step(mixer, u)[0] for u in x[0]])[None]
    assert_close(y, expected)
    tensors = [x, *mixer.parameters()]
    assert_close(gradients(y, tensors), gradients(expected, tensors))


def test_pack_is_its_runs():
    x = torch.randn(3, 2, 13, 6, dtype=torch.float64, requires_grad=True)
    assert_pack_is_its_runs(solo(), [solo() for _ in range(3)], x)


def test_filters_start_as_the_official_ones():
    shift, diagonal = ShiftFilter(96, 64), DiagonalFilter(96, 64)
    h = shift(20)  # B is the first unit vector: the filter is C
    assert_close(h, shift.C[:, :20])
    assert_close(shift(70)[:, 64:], torch.zeros(1, 6, 96))
    assert 0.12 < shift.C.abs().max() <= 1 / 8
    dt = diagonal.log_dt.exp()[0]
    assert 0.001 <= dt.min() < 0.002 and 0.05 < dt.max() <= 0.1
    assert_close(diagonal.C.square().sum(-1).mean().item(), 1.0, rtol=0.1, atol=0)
    c = torch.view_as_complex(diagonal.C[0, 7].detach())
    step = dt[7].item()
    A = [complex(-0.5, math.pi * n) for n in range(32)]
    expected = [
        sum(
            2 * (c[n].item() * step / (1 - step * a / 2) * cmath.exp(t * cmath.log(r))).real
            for n, a in enumerate(A)
            if (r := (1 + step * a / 2) / (1 - step * a / 2))
        )
        for t in range(20)
    ]
    assert_close(diagonal(20)[0, :, 7], torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_initial_weights_follow_zoology():
    mixer = H3(H3Config(), 96, 13, 3)
    for linear in (mixer.in_proj, mixer.out_proj):
        assert_close(linear.weight.std().item(), 0.02, rtol=0.05, atol=0)
        assert linear.bias.eq(0).all()
    assert_close(mixer.shift_D.std().item(), 1.0, rtol=0.3, atol=0)
    assert_close(mixer.diagonal_D.std().item(), 1.0, rtol=0.3, atol=0)
    assert mixer.diagonal_D.shape == (1, 48) and mixer.shift.C.shape == (1, 13, 96)


def test_a_step_as_long_as_the_decay_is_finite():
    diagonal = DiagonalFilter(3, 2)
    diagonal.log_dt.data.fill_(math.log(4.0))  # dt A / 2 = -1, and this pole is 0
    h = diagonal(5)
    h.sum().backward()
    assert h.isfinite().all() and all(p.grad.isfinite().all() for p in diagonal.parameters())
    assert_close(h[:, 1:], torch.zeros_like(h[:, 1:]), rtol=0, atol=0.02)


@pytest.mark.parametrize("length", [13, 70])
def test_later_inputs_do_not_reach_earlier_outputs(length):
    mixer = solo(seq_len=70)
    x = torch.randn(1, 2, length, 6, dtype=torch.float64)
    later = x.clone()
    later[:, :, 9:] += 1
    before, after = mixer(x), mixer(later)
    # an FFT mixes all positions and separates them again: equal to rounding, not to the bit
    assert_close(after[:, :, :9], before[:, :, :9], rtol=0, atol=1e-11)
    assert (after - before)[:, :, 9:].abs().amin(dim=-1).gt(1e-6).all()


@pytest.mark.parametrize("options", [{}, {"head_dim": 3, "d_state": 4}])
def test_state_size_counts_what_a_step_carries(options):
    mixer = solo(seq_len=12, **options)
    _, carried = h3_step_by_step(mixer, torch.randn(3, 6, dtype=torch.float64))
    assert mixer.state_size(12) == mixer.state_size(3) == carried


def test_flops_leave_out_the_filters():
    mixer = solo(seq_len=64)
    assert mixer.flops(64) == solo(seq_len=64, d_state=4).flops(64)
    # a sequence: projections 6 -> 18 and 6 -> 6, FFTs of 128 points for 6 keys and 3 heads of 4
    # products, which are made, multiplied by the queries, and summed by two
    linear = 2 * 64 * (6 * 18 + 6 * 6)
    transform = 2.5 * 128 * 7
    assert mixer.flops(64) == linear + 18 * (2 * transform + 6 * 65) + 64 * (12 + 12 + 12)


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


def test_a_head_dim_that_does_not_fit_is_an_error():
    with pytest.raises(ValueError, match="d_model 6 is not a multiple of head_dim 4"):
        H3Config(head_dim=4).check(6)

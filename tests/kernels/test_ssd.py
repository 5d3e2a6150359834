"""Mamba2's SSD: its plain form and its kernel against the recurrence in float64."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from zoorecall.mixers.mamba2 import Mamba2, Mamba2Config
from zoorecall.ops.ssd import ssd_recurrent, ssd_with_skip

from .comparing import (
    DEVICE,
    TOLERANCE,
    Case,
    assert_near,
    assert_same,
    dtypes,
    features_first,
    gpu,
    kernel_results,
    on_device,
    on_sizes,
    results,
    sliced,
)

NAMES = ["y", "xBC", "dt", "A", "D"]

# R, B, L, H, G, P, N: lengths, head dims and states below, at and above powers of two
SIZES = [(3, 2, 13, 2, 1, 16, 32), (2, 1, 33, 3, 1, 10, 24), (2, 1, 33, 3, 3, 10, 24)]
SIZES += [(1, 2, 64, 4, 2, 40, 5), (2, 1, 100, 2, 1, 5, 33)]
LARGE_SIZES = [(17, 9, 64, 2, 1, 64, 128), (2, 11, 64, 2, 2, 128, 128), (4, 9, 128, 2, 1, 64, 64)]
LARGE_SIZES += [(3, 21, 32, 4, 2, 16, 16), (5, 7, 16, 8, 1, 32, 64)]


def recurrent(xBC, dt, A, D, num_groups, d_state):
    """The skip and SSD, a head after the other."""
    H, G, N = D.shape[1], num_groups, d_state
    x, B, C = xBC.split([xBC.shape[-1] - 2 * G * N, G * N, G * N], dim=-1)
    heads = []
    for h, x_h in enumerate(x.chunk(H, dim=-1)):
        B_h, C_h = (t.chunk(G, dim=-1)[h // (H // G)].unsqueeze(-2) for t in (B, C))
        y = ssd_recurrent(x_h.unsqueeze(-2), dt[..., h : h + 1], A[:, h : h + 1], B_h, C_h)
        heads.append(y.squeeze(-2) + D[:, h, None, None, None] * x_h)
    return torch.cat(heads, dim=-1)


def make_inputs(R, B, L, H, G, P, N, dtype=torch.float32, device=DEVICE):
    torch.manual_seed(1)
    xBC = torch.randn(R, B, L, H * P + 2 * G * N).to(device, dtype)
    dt, A, D = torch.rand(R, B, L, H), -4 * torch.rand(R, H), torch.randn(R, H)
    return [xBC, *(x.to(device) for x in (dt, A, D))]


def case(R, B, L, H, G, P, N, dtype=torch.float32):
    from zoorecall.ops.ssd_triton import ssd_triton

    forms = (partial(form, num_groups=G, d_state=N) for form in (ssd_triton, recurrent))
    return Case(*forms, make_inputs(R, B, L, H, G, P, N, dtype))


SMALL = {"ssd": partial(case, B=1, L=17, H=4, G=2, P=5, N=7)}
LARGE = {
    "ssd": partial(case, 17, 31, 64, 2, 1, 64, 128, dtype=torch.bfloat16),
    "long ssd": partial(case, 3, 31, 128, 2, 1, 64, 128, dtype=torch.bfloat16),
}


def test_the_plain_form_and_gradients_equal_the_recurrence():
    inputs = [x.double() for x in make_inputs(3, 2, 13, 6, 2, 7, 5, device="cpu")]
    expected = results(partial(recurrent, num_groups=2, d_state=5), inputs)
    assert_close(results(partial(ssd_with_skip, num_groups=2, d_state=5), inputs), expected)


@pytest.mark.parametrize("heads", [3, 8])
def test_two_products_give_what_one_does(heads):
    config = Mamba2Config(headdim=24 // heads, d_state=5)
    mixer = Mamba2(config, 12, 13, 2).double()
    x = torch.randn(1, 2, 13, 12, dtype=torch.float64)

    def project(x, weight, apart):
        parts = torch.func.functional_call(mixer, {"in_proj.weight": weight}, (x, apart))
        return torch.cat(parts, dim=-1)

    mixer.forward = mixer.project
    inputs = [x, mixer.in_proj.weight.detach()]
    expected = results(partial(project, apart=False), inputs)
    assert_close(results(partial(project, apart=True), inputs), expected)
    parts = mixer.project(x, apart=True)
    assert [t.shape[-1] for t in parts] == [24, 34, heads]
    assert parts[0].stride(2) % 8 == 0  # 16 bytes of bfloat16


@on_device
@dtypes
@on_sizes(SIZES, LARGE_SIZES)
def test_output_and_gradients_equal_the_recurrence(sizes, dtype):
    kernel, definition, inputs = case(*sizes, dtype=dtype)
    actual = kernel_results(kernel, inputs)
    assert [x.dtype for x in actual] == [dtype, *(x.dtype for x in inputs)]
    expected = results(definition, inputs, torch.float64)
    # much cancels in the gradient of A, a sum over all positions
    assert_near(actual, expected, NAMES, max(TOLERANCE[dtype], 1e-4))


@gpu
@pytest.mark.parametrize("P, N", [(64, 128), (128, 128)])
def test_wide_heads_and_states_equal_the_recurrence(P, N):
    """In bfloat16 alone: in float32 these are too large."""
    kernel, definition, inputs = case(2, 7, 128, 2, 1, P, N, dtype=torch.bfloat16)
    expected = results(definition, inputs, torch.float64)
    assert_near(kernel_results(kernel, inputs), expected, NAMES, 1e-2)


@gpu
def test_float32_in_tf32_is_near_the_recurrence():
    kernel, definition, inputs = case(3, 5, 64, 2, 1, 64, 128)
    expected = results(definition, inputs, torch.float64)
    assert_near(kernel_results(partial(kernel, allow_tf32=True), inputs), expected, NAMES, 1e-2)


@on_device
@pytest.mark.parametrize("scale", [0.0, 1e3])
def test_steps_that_do_nothing_or_forget_everything_leave_finite_gradients(scale):
    kernel, definition, (xBC, dt, A, D) = case(2, 1, 33, 2, 1, 5, 7)
    inputs = [xBC, scale * dt, A, D]
    actual = kernel_results(kernel, inputs)
    expected = results(definition, inputs, torch.float64)
    # the sums of steps are so large that little of a decay between neighbours is left
    assert_near(actual[:2], expected[:2], NAMES[:2], 1e-3)
    assert all(x.isfinite().all() for x in actual)


@on_device
@pytest.mark.parametrize("layout", [sliced, features_first])
def test_inputs_of_any_layout_give_the_same(layout):
    kernel, _, inputs = case(3, 1, 17, 4, 2, 5, 7)
    others = [layout(x) for x in inputs]
    assert not any(x.is_contiguous() for x in others)
    assert_same(kernel_results(kernel, others), kernel_results(kernel, inputs))


@on_device
def test_operator_is_registered_as_torch_expects():
    from zoorecall.ops.ssd_triton import _forward

    inputs = [x.requires_grad_() for x in make_inputs(2, 1, 5, 4, 2, 3, 6)]
    torch.library.opcheck(_forward, (*inputs, 2, 6, False))


@gpu
@pytest.mark.parametrize("length", [33, 64, 130])
def test_a_layer_gives_the_same_on_both_devices(length):
    torch.manual_seed(3)
    layer = Mamba2(Mamba2Config(d_state=16, headdim=16), 32, length, 2)
    x = torch.randn(1, 4, length, 32)
    expected = results(layer.forward, [x])
    actual = results(layer.cuda().forward, [x.cuda()])
    for ours, exact in zip(actual, expected, strict=True):
        assert_close(ours.cpu(), exact, rtol=1e-3, atol=1e-4)


@on_device
def test_misfits_are_refused():
    from zoorecall.ops.ssd_triton import ssd_triton

    xBC, *others = make_inputs(2, 1, 5, 4, 2, 3, 6)
    with pytest.raises(ValueError, match="not 3 groups"):
        ssd_triton(xBC, *others, 3, 6)
    with pytest.raises(ValueError, match="of state 9"):
        ssd_triton(xBC, *others, 2, 9)
    with pytest.raises(ValueError, match="not 2 groups"):
        ssd_triton(xBC[:, :, :3], *others, 2, 6)
    with pytest.raises(ValueError, match="must be float32"):
        ssd_triton(xBC, others[0].bfloat16(), *others[1:], 2, 6)
    with pytest.raises(ValueError, match="float16"):
        ssd_triton(xBC.half(), *others, 2, 6)
    with pytest.raises(ValueError, match="length 129"):
        ssd_triton(*make_inputs(1, 1, 129, 1, 1, 5, 6), 1, 6)

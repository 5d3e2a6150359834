"""Mamba2's SSD: its plain form and its kernels against the recurrence in float64."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from zoorecall.mixers.mamba2 import Mamba2, Mamba2Config
from zoorecall.ops.ssd.fast import ssd_with_skip
from zoorecall.ops.ssd.reference import ssd_recurrent

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
# lengths from less than one chunk of 64 to four
CHUNK_SIZES = [(2, 1, 13, 2, 1, 5, 33), (1, 1, 65, 2, 1, 64, 128), (1, 1, 100, 4, 2, 10, 16)]
CHUNK_SIZES += [(2, 1, 129, 1, 1, 32, 5), (1, 1, 200, 2, 2, 16, 16), (1, 1, 256, 2, 1, 7, 24)]
LARGE_CHUNK_SIZES = [(5, 31, 256, 2, 1, 64, 128), (2, 17, 256, 8, 1, 64, 128)]
LARGE_CHUNK_SIZES += [(3, 7, 65, 2, 1, 64, 128), (3, 7, 129, 2, 2, 32, 16)]
LARGE_CHUNK_SIZES += [(2, 9, 500, 4, 2, 64, 128)]
SLOW = 0.02
"""Steps so short that much of a state outlasts a chunk."""


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


def make_inputs(R, B, L, H, G, P, N, dtype=torch.float32, device=DEVICE, step=1.0):
    torch.manual_seed(1)
    xBC = torch.randn(R, B, L, H * P + 2 * G * N).to(device, dtype)
    dt, A, D = step * torch.rand(R, B, L, H), -4 * torch.rand(R, H), torch.randn(R, H)
    return [xBC, *(x.to(device) for x in (dt, A, D))]


def case(R, B, L, H, G, P, N, dtype=torch.float32, step=1.0):
    from zoorecall.ops.ssd.triton import ssd_triton

    forms = (partial(form, num_groups=G, d_state=N) for form in (ssd_triton, recurrent))
    return Case(*forms, make_inputs(R, B, L, H, G, P, N, dtype, step=step))


def chunks_case(R, B, L, H, G, P, N, dtype=torch.float32):
    """The kernels for several chunks, of any length."""
    from zoorecall.ops.ssd.triton import _forward

    _, definition, inputs = case(R, B, L, H, G, P, N, dtype, SLOW)
    options = dict(num_groups=G, d_state=N, allow_tf32=False, one_chunk=False)
    return Case(partial(_forward, **options), definition, inputs)


SMALL = {
    "ssd": partial(case, B=1, L=17, H=4, G=2, P=5, N=7),
    "ssd of chunks": partial(chunks_case, B=1, L=66, H=2, G=1, P=5, N=7),
}
LARGE = {
    "ssd": partial(case, 17, 31, 64, 2, 1, 64, 128, dtype=torch.bfloat16),
    "long ssd": partial(case, 3, 31, 128, 2, 1, 64, 128, dtype=torch.bfloat16),
    "ssd of chunks": partial(chunks_case, 5, 31, 256, 2, 1, 64, 128, dtype=torch.bfloat16),
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


@on_device
@dtypes
@on_sizes(CHUNK_SIZES, LARGE_CHUNK_SIZES)
def test_chunks_and_their_gradients_equal_the_recurrence(sizes, dtype):
    kernel, definition, inputs = chunks_case(*sizes, dtype=dtype)
    *actual, to_A, to_D = kernel_results(kernel, inputs)
    *expected, exact_A, exact_D = results(definition, inputs, torch.float64)
    tolerance = max(TOLERANCE[dtype], 1e-4)
    assert_near([*actual, to_D], [*expected, exact_D], [*NAMES[:3], "D"], tolerance)
    # much cancels in it, and with slow decays all of a state's rounding is in it
    assert_near([to_A], [exact_A], ["A"], 3 * tolerance)


@on_device
@pytest.mark.parametrize("dtype, L", [(torch.float32, 130), (torch.bfloat16, 129)])
def test_lengths_beyond_one_chunk_take_several(dtype, L):
    sizes = dict(R=1, B=1, L=L, H=2, G=1, P=5, N=7, dtype=dtype)
    kernel, _, inputs = case(**sizes, step=SLOW)
    assert_same(kernel_results(kernel, inputs), kernel_results(chunks_case(**sizes).kernel, inputs))


@gpu
@pytest.mark.parametrize("length", [128, 256])
@pytest.mark.parametrize("P, N", [(64, 128), (128, 128)])
def test_wide_heads_and_states_equal_the_recurrence(length, P, N):
    """In bfloat16 alone: in float32 they are too large for one chunk, or for any kernel."""
    kernel, definition, inputs = case(2, 7, length, 2, 1, P, N, dtype=torch.bfloat16)
    expected = results(definition, inputs, torch.float64)
    assert_near(kernel_results(kernel, inputs), expected, NAMES, 1e-2)


@gpu
@pytest.mark.parametrize("length", [64, 200])
def test_float32_in_tf32_is_near_the_recurrence(length):
    kernel, definition, inputs = case(3, 5, length, 2, 1, 64, 128)
    expected = results(definition, inputs, torch.float64)
    assert_near(kernel_results(partial(kernel, allow_tf32=True), inputs), expected, NAMES, 1e-2)


@on_device
@pytest.mark.parametrize("length", [33, 130])
@pytest.mark.parametrize("scale", [0.0, 1e3])
def test_steps_that_do_nothing_or_forget_everything_leave_finite_gradients(scale, length):
    kernel, definition, (xBC, dt, A, D) = case(2, 1, length, 2, 1, 5, 7)
    inputs = [xBC, scale * dt, A, D]
    actual = kernel_results(kernel, inputs)
    expected = results(definition, inputs, torch.float64)
    # the sums of steps are so large that little of a decay between neighbours is left
    assert_near(actual[:2], expected[:2], NAMES[:2], 1e-3)
    assert all(x.isfinite().all() for x in actual)


@on_device
@pytest.mark.parametrize("layout", [sliced, features_first])
@pytest.mark.parametrize("L, H, G", [(17, 4, 2), (130, 2, 1)])
def test_inputs_of_any_layout_give_the_same(L, H, G, layout):
    kernel, _, inputs = case(2, 1, L, H, G, 5, 7)
    others = [layout(x) for x in inputs]
    assert not any(x.is_contiguous() for x in others)
    assert_same(kernel_results(kernel, others), kernel_results(kernel, inputs))


@on_device
def test_operator_is_registered_as_torch_expects():
    from zoorecall.ops.ssd.triton import _forward

    inputs = [x.requires_grad_() for x in make_inputs(2, 1, 5, 4, 2, 3, 6)]
    for one_chunk in (True, False):
        torch.library.opcheck(_forward, (*inputs, 2, 6, False, one_chunk))


@gpu
@pytest.mark.parametrize("length", [33, 64, 130, 256])
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
    from zoorecall.ops.ssd.triton import ssd_triton

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
    with pytest.raises(ValueError, match="head dim 129"):
        ssd_triton(*make_inputs(1, 1, 5, 1, 1, 129, 6), 1, 6)
    with pytest.raises(ValueError, match="head dim 65"):
        ssd_triton(*make_inputs(1, 1, 65, 1, 1, 65, 6), 1, 6)

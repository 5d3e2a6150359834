"""Mamba2's gated norm: its plain form and its kernel against the definition in float64."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from zoorecall.ops.gated_norm.reference import gated_rms_norm

from .comparing import (
    DEVICE,
    TOLERANCE,
    Case,
    assert_near,
    assert_same,
    dtypes,
    features_first,
    kernel_results,
    on_device,
    on_sizes,
    results,
    sliced,
)

NAMES = ["out", "y", "z", "weight"]

# R, B, L, E, G: rows of one program and of several, with and without a rest
SIZES = [(3, 2, 1, 16, 1), (2, 3, 13, 30, 3), (2, 1, 33, 48, 2), (1, 2, 5, 200, 1)]
LARGE_SIZES = [(17, 64, 64, 128, 1), (3, 7, 100, 1000, 2), (2, 3, 5, 4096, 1)]


def norm_by_group(y, z, weight, num_groups):
    """The gated norm, a group after the other."""
    outputs = []
    for y_g, z_g, w in zip(*(t.chunk(num_groups, dim=-1) for t in (y, z, weight)), strict=True):
        gated = y_g * z_g / (1 + torch.exp(-z_g))
        scale = (gated.square().mean(-1, keepdim=True) + 1e-5) ** -0.5
        outputs.append(gated * scale * w[:, None, None])
    return torch.cat(outputs, dim=-1)


def make_inputs(R, B, L, E, dtype=torch.float32, device=DEVICE):
    torch.manual_seed(2)
    y, z = (torch.randn(R, B, L, E).to(device, dtype) for _ in range(2))
    return [y, z, torch.randn(R, E).to(device)]


def case(R, B, L, E, G, dtype=torch.float32):
    from zoorecall.ops.gated_norm.triton import gated_rms_norm_triton

    forms = (partial(form, num_groups=G) for form in (gated_rms_norm_triton, norm_by_group))
    return Case(*forms, make_inputs(R, B, L, E, dtype))


SMALL = {"gated norm": partial(case, B=1, L=17, E=10, G=2)}
LARGE = {"gated norm": partial(case, 17, 31, 64, 128, 1, dtype=torch.bfloat16)}


def test_the_plain_form_and_gradients_equal_the_definition():
    inputs = [x.double() for x in make_inputs(3, 2, 13, 30, device="cpu")]
    expected = results(partial(norm_by_group, num_groups=3), inputs)
    assert_close(results(partial(gated_rms_norm, num_groups=3), inputs), expected)


@on_device
@dtypes
@on_sizes(SIZES, LARGE_SIZES)
def test_output_and_gradients_equal_the_definition(sizes, dtype):
    kernel, definition, inputs = case(*sizes, dtype=dtype)
    actual = kernel_results(kernel, inputs)
    assert [x.dtype for x in actual] == [dtype, *(x.dtype for x in inputs)]
    expected = results(definition, inputs, torch.float64)
    assert_near(actual, expected, NAMES, TOLERANCE[dtype])


@on_device
@pytest.mark.filterwarnings("ignore:overflow")  # the interpreter's, of numpy
def test_large_gates_saturate_as_silu_does():
    kernel, _, (y, z, weight) = case(2, 1, 5, 6, 1)
    inputs = [y, 1e3 * z, weight]
    expected = results(partial(gated_rms_norm, num_groups=1), inputs, torch.float64)
    assert_near(kernel_results(kernel, inputs), expected, NAMES, 2e-5)


@on_device
@pytest.mark.parametrize("layout", [sliced, features_first])
def test_inputs_of_any_layout_give_the_same(layout):
    kernel, _, inputs = case(3, 1, 17, 10, 2)
    others = [layout(x) for x in inputs]
    assert not any(x.is_contiguous() for x in others)
    assert_same(kernel_results(kernel, others), kernel_results(kernel, inputs))


@on_device
def test_operator_is_registered_as_torch_expects():
    from zoorecall.ops.gated_norm.triton import _forward

    inputs = [x.requires_grad_() for x in make_inputs(2, 1, 5, 6)]
    torch.library.opcheck(_forward, (*inputs, 2, 1e-5))


@on_device
def test_misfits_are_refused():
    from zoorecall.ops.gated_norm.triton import gated_rms_norm_triton

    y, z, weight = make_inputs(2, 1, 5, 6)
    with pytest.raises(ValueError, match="4 groups do not fit"):
        gated_rms_norm_triton(y, z, weight, 4)
    with pytest.raises(ValueError, match="do not fit"):
        gated_rms_norm_triton(y, z[..., 1:], weight, 1)
    with pytest.raises(ValueError, match="bfloat16"):
        gated_rms_norm_triton(y, z.bfloat16(), weight, 1)
    with pytest.raises(ValueError, match="4097 channels"):
        gated_rms_norm_triton(*make_inputs(1, 1, 1, 4097), 1)

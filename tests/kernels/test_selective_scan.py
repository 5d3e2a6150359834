"""The selective scan's kernel against the recurrence in float64."""

from functools import partial

import pytest
import torch

from zoorecall.ops.selective_scan.reference import selective_scan_recurrent

from .comparing import (
    DEVICE,
    Case,
    assert_near,
    assert_same,
    kernel_results,
    on_device,
    on_sizes,
    results,
    strided,
)

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
NAMES = ["y", "u", "delta", "A", "B", "C", "D"]

# R, B, L, C, N: channels in one and in several programs, lengths with and without a rest, N below,
# at and above a power of two
SIZES = [(2, 1, 6, 35, 16), (3, 2, 4, 5, 3), (1, 2, 5, 11, 40)]
LARGE_SIZES = [(4, 17, 64, 128, 16), (2, 5, 511, 200, 16), (2, 7, 129, 512, 64)]


def case(R, B, L, C, N, dtype=torch.float32, delta_dtype=None):
    from zoorecall.ops.selective_scan.triton import selective_scan_triton

    torch.manual_seed(1)
    shapes = {"u": (R, B, L, C), "delta": (R, B, L, C), "A": (R, C, N)}
    shapes |= {"B": (R, B, L, N), "C": (R, B, L, N), "D": (R, C)}
    inputs = {name: torch.randn(shape) for name, shape in shapes.items()}
    inputs["delta"] = inputs["delta"].abs()
    inputs["A"] = -2 * inputs["A"].abs()
    halves = {"u": dtype, "delta": delta_dtype or dtype, "B": dtype, "C": dtype}
    tensors = [x.to(DEVICE, halves.get(name)) for name, x in inputs.items()]
    return Case(selective_scan_triton, selective_scan_recurrent, tensors)


SMALL = {"selective scan": partial(case, B=1, L=6, C=7, N=4)}
LARGE = {
    "selective scan": partial(case, 2, 4, 33, 48, 16, dtype=torch.bfloat16),
    "wide selective scan": partial(case, 2, 31, 129, 512, 64, dtype=torch.bfloat16),
}


@on_device
@pytest.mark.parametrize(  # of u, B and C, and of delta, which Mamba makes in float32
    "dtype, delta_dtype",
    [
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.bfloat16, torch.bfloat16),
    ],
    ids=["float32", "bfloat16", "all bfloat16"],
)
@on_sizes(SIZES, LARGE_SIZES)
def test_output_and_gradients_equal_the_recurrence(sizes, dtype, delta_dtype):
    kernel, definition, inputs = case(*sizes, dtype=dtype, delta_dtype=delta_dtype)
    actual = kernel_results(kernel, inputs)
    assert [x.dtype for x in actual] == [dtype, *(x.dtype for x in inputs)]
    expected = results(definition, inputs, torch.float64)
    # single elements may be further off: where the states nearly cancel in the gradient of delta,
    # the rounding of the stored ones to bfloat16 does not
    assert_near(actual, expected, NAMES, TOLERANCE[dtype], spread=5)


@on_device
def test_inputs_of_any_layout_give_the_same():
    kernel, _, inputs = case(2, 1, 3, 5, 4)
    others = [strided(x) for x in inputs]
    assert_same(kernel_results(kernel, others), kernel_results(kernel, inputs))


@on_device
def test_without_gradients_the_output_is_the_same():
    kernel, _, inputs = case(2, 1, 5, 6, 4)
    assert torch.equal(kernel(*inputs), kernel_results(kernel, inputs)[0])


@on_device
def test_operator_is_registered_as_torch_expects():
    from zoorecall.ops.selective_scan.triton import _forward

    inputs = [x.requires_grad_() for x in case(2, 1, 3, 5, 3).inputs]
    torch.library.opcheck(_forward, (*inputs, True))


@on_device
def test_misfits_are_refused():
    kernel, _, inputs = case(2, 1, 3, 5, 3)
    with pytest.raises(ValueError, match="shapes"):
        kernel(*inputs[:2], inputs[2].mT, *inputs[3:])
    with pytest.raises(ValueError, match="float32"):
        kernel(*inputs[:5], inputs[5].bfloat16())
    with pytest.raises(ValueError, match="65 is more than 64"):
        kernel(*case(1, 1, 2, 3, 65).inputs)

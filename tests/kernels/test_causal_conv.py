"""The short convolution: its plain forms against torch's, its kernel against the definition."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from zoorecall.layers import ShortConv
from zoorecall.ops.causal_conv.fast import causal_conv_in_place
from zoorecall.ops.causal_conv.reference import causal_conv_reference

from .comparing import (
    DEVICE,
    TOLERANCE,
    Case,
    assert_near,
    dtypes,
    gpu,
    kernel_results,
    on_device,
    on_sizes,
    results,
)

# R, B, L, C, T, bias, SiLU: lengths of one tile, of several with a rest, and shorter than the taps;
# channels of one program and of several; tiles of both sequences in one program
SIZES = [
    (3, 2, 1, 19, 3, True, True),
    (3, 2, 5, 19, 2, False, False),
    (3, 2, 5, 19, 3, True, False),
    (3, 2, 5, 19, 4, False, True),
    (3, 2, 13, 19, 2, True, True),
    (2, 1, 3, 35, 8, True, True),
]
LARGE_SIZES = [
    (4, 128, 64, 384, 4, True, True),
    (3, 128, 64, 64, 4, False, True),
    (2, 33, 511, 200, 3, True, False),
    (3, 5, 130, 192, 8, True, True),
]


def of_inputs(function, silu):
    """`function` of x, weight and perhaps bias."""
    return lambda x, weight, bias=None: function(x, weight, bias, silu)


def case(R, B, L, C, T, bias=True, silu=True, dtype=torch.float32):
    from zoorecall.ops.causal_conv.triton import causal_conv_triton

    torch.manual_seed(1)
    inputs = [torch.randn(R, B, L, C).to(DEVICE, dtype), torch.randn(R, C, T).to(DEVICE)]
    inputs += [torch.randn(R, C).to(DEVICE)] * bias
    forms = (of_inputs(form, silu) for form in (causal_conv_triton, causal_conv_reference))
    return Case(*forms, inputs)


def assert_each_near(actual, expected):
    """Each in the precision of its own dtype."""
    names = ["y", "x", "weight", "bias"][: len(actual)]
    for name, x, exact in zip(names, actual, expected, strict=True):
        assert_near([x], [exact], [name], TOLERANCE[x.dtype], spread=1)


SMALL = {
    "causal conv": partial(case, B=1, L=7, C=5, T=3),
    "causal conv without bias": partial(case, B=1, L=7, C=5, T=3, bias=False),
}
LARGE = {
    "causal conv": partial(case, 2, 4, 33, 48, 4, dtype=torch.bfloat16),
    "wide causal conv": partial(case, 4, 512, 64, 384, 4, dtype=torch.bfloat16),
}


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("function", [causal_conv_in_place, causal_conv_reference])
def test_plain_forms_equal_torchs_convolution_of_each_run(function, bias, silu):
    torch.manual_seed(3)
    R, B, L, C, T = 3, 2, 7, 5, 4
    x, weight = torch.randn(R, B, L, C).double(), torch.randn(R, C, T).double()
    inputs = [x, weight, *([torch.randn(R, C).double()] if bias else [])]

    def by_torch(x, weight, bias, silu):
        runs = []
        for r in range(R):
            shift = None if bias is None else bias[r]
            y = F.conv1d(x[r].mT, weight[r].unsqueeze(1), shift, padding=T - 1, groups=C)
            runs.append(y[..., :L].mT)
        y = torch.stack(runs)
        return F.silu(y) if silu else y

    actual, expected = (results(of_inputs(form, silu), inputs) for form in (function, by_torch))
    for y, exact in zip(actual, expected, strict=True):
        assert_close(y, exact)


@pytest.mark.parametrize("function", [causal_conv_in_place, causal_conv_reference])
def test_plain_forms_round_half_precision_once(function):
    torch.manual_seed(4)
    x = torch.randn(3, 2, 7, 5).bfloat16()
    weight, bias = torch.randn(3, 5, 4), torch.randn(3, 5)
    half, exact = function(x, weight, bias, True), function(x.float(), weight, bias, True)
    assert torch.equal(half, exact.bfloat16())


@on_device
@dtypes
@on_sizes(SIZES, LARGE_SIZES)
def test_output_and_gradients_equal_the_definition(sizes, dtype):
    kernel, definition, inputs = case(*sizes, dtype=dtype)
    actual = kernel_results(kernel, inputs)
    assert [t.dtype for t in actual] == [dtype, *(t.dtype for t in inputs)]
    assert [t.shape for t in actual[1:]] == [t.shape for t in inputs]
    assert_each_near(actual, results(definition, inputs, torch.float64))


@on_device
@pytest.mark.filterwarnings("ignore:overflow")  # the interpreter's, of numpy
def test_large_inputs_saturate_as_silu_does():
    kernel, definition, inputs = case(2, 1, 5, 6, 2)
    inputs[0] *= 1e4
    expected = results(definition, inputs, torch.float64)
    assert_each_near(kernel_results(kernel, inputs), expected)


@on_device
def test_inputs_of_any_layout_give_the_same():
    R, B, L, C, T = 2, 3, 5, 6, 4
    kernel, _, (x, weight, bias) = case(R, B, L, C, T)
    expected = kernel_results(kernel, [x, weight, bias])
    flat = torch.cat([weight.flatten(1), bias], dim=1)  # as the parameters of a pack are
    parameters = [flat[:, : C * T].view(R, C, T), flat[:, C * T :]]
    sliced = torch.full((R, B, L, C + 9), torch.nan, device=DEVICE)[..., 4 : 4 + C].copy_(x)
    swapped = x.transpose(0, 2).contiguous().transpose(0, 2)
    for other in (sliced, swapped, x.mT.contiguous().mT):
        assert not other.is_contiguous()
        for y, same in zip(kernel_results(kernel, [other, *parameters]), expected, strict=True):
            assert_close(y, same)


@on_device
def test_operator_is_registered_as_torch_expects():
    from zoorecall.ops.causal_conv.triton import _forward

    x, weight, bias = (t.requires_grad_() for t in case(2, 1, 3, 5, 3).inputs)
    torch.library.opcheck(_forward, (x, weight, bias, True))
    sliced = x.detach()[..., :4].requires_grad_()
    torch.library.opcheck(_forward, (sliced, weight.detach()[:, 1:], None, False))


@on_device
def test_misfits_are_refused():
    kernel, _, (x, weight, bias) = case(2, 1, 3, 5, 3)
    with pytest.raises(ValueError, match="do not fit"):
        kernel(x, weight.mT)
    with pytest.raises(ValueError, match="do not fit"):
        kernel(x, weight, bias[:1])
    with pytest.raises(ValueError, match="float64"):
        kernel(x.double(), weight)
    with pytest.raises(ValueError, match="must be float32"):
        kernel(x, weight, bias.bfloat16())
    with pytest.raises(ValueError, match="9 taps"):
        kernel(x, weight.repeat(1, 1, 3))


@gpu
def test_a_layer_gives_the_same_on_both_devices():
    torch.manual_seed(5)
    layer, x = ShortConv(48, taps=3, silu=True), torch.randn(1, 4, 33, 48)
    expected = layer(x)
    assert_close(layer.cuda()(x.cuda()).cpu(), expected)


@gpu
def test_a_run_gives_the_same_alone():
    kernel, _, inputs = case(3, 64, 65, 48, 4, dtype=torch.bfloat16)
    x, weight, bias = (t.requires_grad_() for t in inputs)
    y = kernel(x, weight, bias)
    packed = [y, *torch.autograd.grad(y, inputs, x.detach())]
    y = kernel(x[1:2], weight[1:2], bias[1:2])
    alone = [y, *torch.autograd.grad(y, inputs, x.detach()[1:2])]
    assert torch.equal(packed[0][1], alone[0][0]) and torch.equal(packed[1][1], alone[1][1])
    for of_pack, of_run in zip(packed[2:], alone[2:], strict=True):
        assert_close(of_pack[1], of_run[1])


@gpu
def test_tensors_of_more_than_two_to_the_31_numbers():
    R, B, L, C, T = 2, 60_000, 64, 384, 4
    kernel, definition, (_, weight, bias) = case(R, 1, L, C, T)
    x = torch.zeros(R, B, L, C, device=DEVICE, dtype=torch.bfloat16)
    x[-1, -3:].normal_()
    y = kernel(x.requires_grad_(), weight, bias)
    (dx,) = torch.autograd.grad(y, x, x.detach())
    last = x.detach()[-1:, -3:].double().requires_grad_()
    exact = definition(last, weight[-1:].double(), bias[-1:].double())
    (exact_dx,) = torch.autograd.grad(exact, last, last.detach())
    assert_each_near([y[-1:, -3:], dx[-1:, -3:]], [exact.detach(), exact_dx])

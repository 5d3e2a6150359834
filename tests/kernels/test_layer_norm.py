"""Layer normalization: its plain form against torch's own, its kernel against that in float64."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from zoorecall.layers import LayerNorm
from zoorecall.ops.layer_norm.reference import layer_norm_reference

from .comparing import (
    DEVICE,
    TOLERANCE,
    assert_near,
    dtypes,
    features_first,
    gpu,
    on_device,
    on_sizes,
    sliced,
    strided,
)

EPS = 1e-3

# the shape of x: rows of one program and of several, with and without a rest
SIZES = [(3, 2, 1, 16), (2, 3, 13, 30), (2, 70, 64), (1, 5, 200)]
LARGE_SIZES = [(17, 64, 64, 64), (1, 3000, 64, 64), (3, 7, 100, 1000), (2, 5, 4096)]

definition = partial(layer_norm_reference, eps=EPS)


def make_inputs(*shape, dtype=torch.float32, device=DEVICE):
    """x with a mean and a scale of its own in every row, and parameters of which none is zero."""
    torch.manual_seed(1)
    of_row = (*shape[:-1], 1)
    x = torch.randn(shape) * (0.1 + torch.rand(of_row)) + torch.randn(of_row)
    weight, bias = 1 + 0.3 * torch.randn(shape[0], shape[-1]), torch.randn(shape[0], shape[-1])
    return [x.to(device, dtype), weight.to(device), bias.to(device)]


def kernel(*inputs):
    from zoorecall.ops.layer_norm.triton import layer_norm_triton

    return layer_norm_triton(*inputs, EPS)


def test_the_plain_form_is_torchs_of_each_run():
    x, weight, bias = (t.double() for t in make_inputs(3, 2, 13, 30, device="cpu"))
    expected = [F.layer_norm(x[r], (30,), weight[r], bias[r], EPS) for r in range(3)]
    assert_close(definition(x, weight, bias), torch.stack(expected))


@on_device
@dtypes
@on_sizes(SIZES, LARGE_SIZES)
def test_output_equals_the_definition(sizes, dtype):
    inputs = make_inputs(*sizes, dtype=dtype)
    y = kernel(*inputs)
    assert y.dtype == dtype
    assert_near([y], [definition(*(t.double() for t in inputs))], ["y"], TOLERANCE[dtype])


@on_device
def test_a_run_of_nan_leaves_its_neighbours_untouched():
    inputs = make_inputs(5, 9, 30)
    clean = kernel(*inputs)
    for run, t in enumerate(inputs, start=1):
        t[run] = torch.nan
    assert torch.equal(kernel(*inputs)[[0, 4]], clean[[0, 4]])
    assert kernel(*inputs)[1:4].isnan().all()


@on_device
@pytest.mark.parametrize("layout", [sliced, features_first, strided])
def test_inputs_of_any_layout_give_the_same(layout):
    inputs = make_inputs(3, 17, 10)
    assert torch.equal(kernel(*map(layout, inputs)), kernel(*inputs))


@on_device
def test_misfits_are_refused():
    x, weight, bias = make_inputs(2, 5, 6)
    with pytest.raises(ValueError, match="do not fit"):
        kernel(x, weight[:, 1:], bias)
    with pytest.raises(ValueError, match="float16"):
        kernel(x.half(), weight, bias)
    with pytest.raises(ValueError, match="width 4097"):
        kernel(*make_inputs(1, 1, 4097))


@gpu
def test_evaluations_take_the_kernel_and_training_the_plain_form(monkeypatch):
    from zoorecall.ops import layer_norm as room

    called = []
    monkeypatch.setattr(room, "layer_norm_triton", lambda x, *_: called.append(x) or x)
    norm = LayerNorm(64).cuda()
    norm(torch.randn(1, 2, 3, 64, device="cuda"))
    assert not called
    with torch.no_grad():
        norm(torch.randn(1, 2, 3, 64, device="cuda"))
    assert len(called) == 1

"""WKV's kernel against the recurrence in float64, and against flash-linear-attention's kernel."""

import warnings
from functools import partial

import pytest
import torch

from zoorecall.ops.wkv.reference import wkv_recurrent

from .comparing import (
    DEVICE,
    INTERPRETED,
    Case,
    assert_near,
    assert_same,
    dtypes,
    kernel_results,
    on_device,
    on_sizes,
    results,
    strided,
)

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1e-2}
NAMES = ["y", "k", "v", "w", "u"]

# R, B, L, C: channels in one and in several programs, lengths of one chunk and of several, with and
# without a rest
SIZES = [(2, 2, 5, 35), (2, 1, 16, 5), (1, 2, 19, 7)]
LARGE_SIZES = [(4, 33, 64, 64), (2, 5, 511, 200), (3, 7, 256, 128)]


def case(R, B, L, C, dtype=torch.float32):
    from zoorecall.ops.wkv.triton import wkv_triton

    torch.manual_seed(1)
    k, v = (torch.randn(R, B, L, C).to(DEVICE, dtype) for _ in range(2))
    w = torch.exp(2 * torch.randn(R, C) - 1).to(DEVICE)
    u = torch.randn(R, C).to(DEVICE)
    return Case(wkv_triton, wkv_recurrent, [2 * k, v, w, u])


SMALL = {"wkv": partial(case, B=1, L=10, C=5)}
LARGE = {"wkv": partial(case, 4, 33, 129, 96, dtype=torch.bfloat16)}


@on_device
@dtypes
@on_sizes(SIZES, LARGE_SIZES)
def test_output_and_gradients_equal_the_recurrence(sizes, dtype):
    kernel, definition, inputs = case(*sizes, dtype=dtype)
    actual = kernel_results(kernel, inputs)
    assert [x.dtype for x in actual] == [dtype, *(x.dtype for x in inputs)]
    expected = results(definition, inputs, torch.float64)
    assert_near(actual, expected, NAMES, TOLERANCE[dtype])


@on_device
def test_large_keys_and_any_decay_keep_the_accuracy():
    kernel, definition, (k, v, _, u) = case(2, 1, 11, 24)
    k = 100 * k.sign() * (k.abs() > 1) + k
    w = torch.logspace(-3, 1.3, 24, device=DEVICE).expand(2, 24)
    inputs = [k, v, w, u]
    expected = results(definition, inputs, torch.float64)
    assert_near(kernel_results(kernel, inputs), expected, NAMES, 1e-4)


@on_device
def test_the_first_output_is_the_first_value():
    kernel, _, inputs = case(2, 1, 1, 3)
    y, dk, dv, dw, du = kernel_results(kernel, inputs)
    assert torch.equal(y, inputs[1])
    assert dv.ne(0).all()
    assert not any(x.any() for x in (dk, dw, du))


@on_device
def test_output_and_gradients_equal_flash_linear_attentions_kernel(monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # triton has no driver here
        from fla.ops.rwkv4 import fused_recurrent as fla
    if INTERPRETED:  # numpy 2.4 no longer takes the array of one number that Triton 3.6 counts to
        monkeypatch.setattr(fla, "range", lambda n: range(n.handle.data.item()), raising=False)
    kernel, _, inputs = case(1, 2, 11, 40)

    def theirs(k, v, w, u):
        state = torch.zeros(2, 3, 1, 40, device=DEVICE)  # numerator, denominator, exponent
        state[:, 2] = -1e38
        return fla.fused_recurrent_rwkv4(w[0].log(), u[0], k[0], v[0], state)[0][None]

    assert_near(kernel_results(kernel, inputs), results(theirs, inputs), NAMES, 2e-5)


@on_device
def test_gradient_of_a_fast_decay_keeps_relative_accuracy():
    # e^-w is 2e-9: a difference of numbers near one would leave nothing of it
    kernel, definition, (k, v, w, u) = case(2, 1, 5, 3)
    inputs = [k, v, torch.full_like(w, 20), u]
    expected = results(definition, inputs, torch.float64)
    assert_near(kernel_results(kernel, inputs), expected, NAMES, 1e-4)


@on_device
def test_inputs_of_any_layout_give_the_same():
    kernel, _, inputs = case(2, 1, 3, 5)
    others = [strided(x) for x in inputs]
    assert_same(kernel_results(kernel, others), kernel_results(kernel, inputs))


@on_device
def test_without_gradients_the_output_is_the_same():
    kernel, _, inputs = case(2, 1, 9, 6)
    assert torch.equal(kernel(*inputs), kernel_results(kernel, inputs)[0])


@on_device
def test_operator_is_registered_as_torch_expects():
    from zoorecall.ops.wkv.triton import _forward

    inputs = [x.requires_grad_() for x in case(2, 1, 3, 5).inputs]
    torch.library.opcheck(_forward, (*inputs, True))


@on_device
def test_misfits_are_refused():
    kernel, _, (k, v, w, u) = case(2, 1, 3, 5)
    with pytest.raises(ValueError, match="do not fit"):
        kernel(k, v, w.mT, u)
    with pytest.raises(ValueError, match="must be float32, bfloat16"):
        kernel(k.double(), v, w, u)
    with pytest.raises(ValueError, match=r"must be float32, not torch.bfloat16"):
        kernel(k, v, w.bfloat16(), u)

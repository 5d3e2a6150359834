"""The delta rule's kernel against the recurrence in float64."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from zoorecall.ops.delta_rule.reference import delta_rule_recurrent

from .comparing import (
    DEVICE,
    TOLERANCE,
    Case,
    assert_near,
    assert_same,
    dtypes,
    gpu,
    kernel_results,
    on_device,
    on_sizes,
    results,
    strided,
)

NAMES = ["y", "q", "k", "v", "beta"]

# R, B, L, H, K, V: lengths and head dims below, at and above powers of two
SIZES = [(3, 2, 13, 2, 16, 32), (2, 1, 33, 3, 24, 20), (1, 2, 64, 1, 5, 40), (2, 1, 100, 1, 33, 16)]
SIZES += [(1, 1, 18, 1, 150, 130)]  # slices of a head
LARGE_SIZES = [(17, 12, 64, 1, 64, 64), (4, 9, 128, 2, 64, 64), (2, 11, 64, 1, 128, 128)]
LARGE_SIZES += [(3, 21, 32, 4, 16, 16), (5, 7, 16, 1, 128, 64), (2, 40, 64, 1, 256, 256)]
LARGE_SIZES += [(1, 9, 50, 2, 256, 200)]
# lengths from less than one chunk of 64 to four
CHUNK_SIZES = [(2, 1, 13, 2, 5, 33), (1, 1, 65, 1, 64, 64), (1, 2, 100, 2, 16, 5)]
CHUNK_SIZES += [(2, 1, 129, 1, 33, 16), (1, 1, 150, 2, 7, 24), (1, 1, 256, 1, 64, 64)]
LARGE_CHUNK_SIZES = [(10, 31, 256, 1, 64, 64), (3, 21, 512, 1, 64, 64), (5, 7, 256, 2, 32, 16)]
LARGE_CHUNK_SIZES += [(3, 7, 65, 1, 64, 64), (3, 7, 129, 2, 33, 64), (2, 9, 500, 4, 64, 31)]


def case(R, B, L, H, K, V, dtype=torch.float32):
    """Queries and keys of norm one, as DeltaNet makes them."""
    from zoorecall.ops.delta_rule.triton import delta_rule_triton

    torch.manual_seed(2)
    q, k = (F.normalize(torch.randn(R, B, L, H, K), dim=-1) for _ in range(2))
    inputs = (q, k, torch.randn(R, B, L, H, V), torch.rand(R, B, L, H))
    return Case(delta_rule_triton, delta_rule_recurrent, [x.to(DEVICE, dtype) for x in inputs])


def in_chunks(*inputs):
    """The kernel of several chunks, which takes shorter sequences too."""
    from zoorecall.ops.delta_rule.triton_chunks import delta_rule_chunks

    save = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    return delta_rule_chunks(*inputs, save)[0]


def chunks_case(*sizes, **options):
    return case(*sizes, **options)._replace(kernel=in_chunks)


def repeated(q, k, v, beta, noise):
    """The same, but two of three positions share a key, up to noise, and beta is one."""
    filler = torch.arange(k.shape[2], device=k.device) % 3 > 0
    near = F.normalize(k[:, :, :1].float() + noise * torch.randn_like(k.float()), dim=-1)
    k = torch.where(filler[:, None, None], near.to(k.dtype), k)
    return [q, k, v, torch.ones_like(beta)]


SMALL = {
    "delta rule": partial(case, B=1, L=17, H=2, K=8, V=5),
    "delta rule of chunks": partial(chunks_case, B=1, L=66, H=2, K=8, V=5),
}
LARGE = {
    "delta rule": partial(case, 17, 31, 64, 1, 64, 64, dtype=torch.bfloat16),
    "long delta rule": partial(case, 3, 31, 128, 1, 64, 64, dtype=torch.bfloat16),
    "delta rule of chunks": partial(chunks_case, 10, 31, 256, 1, 64, 64, dtype=torch.bfloat16),
}


@on_device
@dtypes
@on_sizes(SIZES, LARGE_SIZES)
def test_output_and_gradients_equal_the_recurrence(sizes, dtype):
    kernel, definition, inputs = case(*sizes, dtype=dtype)
    actual = kernel_results(kernel, inputs)
    assert [x.dtype for x in actual] == [dtype] * 5
    expected = results(definition, inputs, torch.float64)
    assert_near(actual, expected, NAMES, TOLERANCE[dtype])


@gpu
def test_bfloat16_takes_long_sequences_of_wide_heads():
    sizes = (1, 9, 128, 2, 256, 200)
    test_output_and_gradients_equal_the_recurrence(sizes, torch.bfloat16)


@on_device
@dtypes
@pytest.mark.parametrize("noise", [0.0, 0.05])
@on_sizes(SIZES, LARGE_SIZES)
def test_results_are_exact_where_keys_repeat(sizes, noise, dtype):
    kernel, definition, inputs = case(*sizes, dtype=dtype)
    inputs = repeated(*inputs, noise)
    actual = kernel_results(kernel, inputs)
    expected = results(definition, inputs, torch.float64)
    # what neighbours write nearly cancels in the sums of dq and dbeta, but not its rounding errors
    assert_near(actual, expected, NAMES, {torch.bfloat16: 2e-2}.get(dtype, TOLERANCE[dtype]))


@on_device
@dtypes
@on_sizes(CHUNK_SIZES, LARGE_CHUNK_SIZES)
def test_chunks_and_their_gradients_equal_the_recurrence(sizes, dtype):
    kernel, definition, inputs = chunks_case(*sizes, dtype=dtype)
    actual = kernel_results(kernel, inputs)
    assert [x.dtype for x in actual] == [dtype] * 5
    assert_near(actual, results(definition, inputs, torch.float64), NAMES, TOLERANCE[dtype])


@on_device
@dtypes
@pytest.mark.parametrize("noise", [0.0, 0.05])
@on_sizes(CHUNK_SIZES[4:], LARGE_CHUNK_SIZES)
def test_chunks_are_exact_where_keys_repeat(sizes, noise, dtype):
    kernel, definition, inputs = chunks_case(*sizes, dtype=dtype)
    inputs = repeated(*inputs, noise)
    y, to_q, *others = kernel_results(kernel, inputs)
    exact_y, exact_q, *exact_others = results(definition, inputs, torch.float64)
    assert_near([y, *others], [exact_y, *exact_others], ["y", *NAMES[2:]], TOLERANCE[dtype])
    # as above; the gradient of beta is made without such a sum
    assert_near([to_q], [exact_q], ["q"], {torch.bfloat16: 2e-2}.get(dtype, TOLERANCE[dtype]))


@on_device
@dtypes
def test_chunks_take_extreme_betas(dtype):
    """Where beta is zero a position writes nothing, and yet beta has a gradient."""
    kernel, definition, inputs = chunks_case(1, 1, 140, 1, 16, 24, dtype=dtype)
    for i, value in enumerate([0.0, 1e-6, 2.0]):
        inputs[3][:, :, i::4] = value
    expected = results(definition, inputs, torch.float64)
    assert_near(kernel_results(kernel, inputs), expected, NAMES, TOLERANCE[dtype])


@on_device
@pytest.mark.parametrize("L, H", [(64, 2), (130, 1)])
def test_nothing_is_read_that_was_overwritten(L, H):
    """One key all along and beta = 1: the state is the last value alone, exactly."""
    kernel, _, (q, k, v, beta) = case(2, 1, L, H, 16, 24)
    q[:], k[:], beta[:] = k[:, :, :1], k[:, :, :1].clone(), 1
    assert_close(kernel(q, k, v, beta), v / 4, rtol=1e-4, atol=1e-4)


@on_device
@pytest.mark.parametrize("L, H", [(19, 2), (130, 1)])
def test_inputs_of_any_layout_give_the_same(L, H):
    kernel, _, inputs = case(2, 1, L, H, 8, 5)
    others = [strided(x) for x in inputs]
    assert_same(kernel_results(kernel, others), kernel_results(kernel, inputs))


@on_device
@pytest.mark.parametrize("L, H", [(19, 2), (130, 1)])
def test_without_gradients_the_output_is_the_same(L, H):
    kernel, _, inputs = case(2, 1, L, H, 8, 5)
    assert torch.equal(kernel(*inputs), kernel_results(kernel, inputs)[0])


@on_device
def test_operators_are_registered_as_torch_expects():
    from zoorecall.ops.delta_rule.triton import _forward
    from zoorecall.ops.delta_rule.triton_chunks import delta_rule_chunks

    inputs = [x.requires_grad_() for x in case(2, 1, 5, 2, 8, 3).inputs]
    for operator in (_forward, delta_rule_chunks):
        torch.library.opcheck(operator, (*inputs, True))


@on_device
def test_misfits_are_refused():
    kernel, _, (q, k, v, beta) = case(2, 1, 5, 2, 8, 3)
    with pytest.raises(ValueError, match="do not fit"):
        kernel(q, k, v, beta[..., :1])
    with pytest.raises(ValueError, match="bfloat16"):
        kernel(q, k, v, beta.bfloat16())
    with pytest.raises(ValueError, match="length 129"):
        kernel(*case(1, 1, 129, 1, 16, 65).inputs)

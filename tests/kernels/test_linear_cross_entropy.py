"""The kernel of the head's cross-entropy against its definition in float64."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from zoorecall.ops.linear_cross_entropy.reference import linear_cross_entropy_reference

from .comparing import (
    DEVICE,
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

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
NAMES = ["loss", "correct", "hidden", "weight"]

# R, M, V, D
SIZES = [(2, 37, 150, 24), (3, 130, 65, 16)]
LARGE_SIZES = [(4, 2048, 8192, 64), (3, 1000, 8191, 96), (2, 500, 1000, 256)]


def cross_entropy(hidden, weight, targets):
    log_p = (hidden @ weight.mT).log_softmax(-1)
    loss = -log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return loss, (log_p.argmax(-1) == targets) & ~loss.isnan()


def case(R, M, V, D, dtype=torch.float32):
    from zoorecall.ops.linear_cross_entropy.triton import linear_cross_entropy_triton

    torch.manual_seed(2)
    hidden, weight = torch.randn(R, M, D), torch.randn(R, V, D)
    targets = torch.randint(V, (R, M), device=DEVICE)
    targets[:, ::2] = (hidden[:, ::2] @ weight.mT).argmax(-1).to(DEVICE)  # half of them right
    inputs = [hidden.to(DEVICE, dtype), weight.to(DEVICE, dtype), targets]
    return Case(linear_cross_entropy_triton, cross_entropy, inputs)


SMALL = {"linear cross entropy": partial(case, M=5, V=70, D=16)}
LARGE = {
    "linear cross entropy": partial(case, 2, 300, 500, 64, dtype=torch.bfloat16),
    "wide linear cross entropy": partial(case, 2, 500, 1000, 256, dtype=torch.bfloat16),
}


def test_plain_form_equals_its_definition_and_is_right_nowhere_in_a_nan_run():
    torch.manual_seed(4)
    hidden, weight = torch.randn(2, 3, 4).double(), torch.randn(2, 5, 4).double()
    targets = (hidden @ weight.mT).argmax(-1)
    targets[:, 1] = (targets[:, 1] + 1) % 5
    loss, correct = linear_cross_entropy_reference(hidden, weight, targets)
    assert_close(loss, cross_entropy(hidden, weight, targets)[0])
    assert correct.tolist() == [[True, False, True]] * 2
    hidden[1] = torch.nan
    _, correct = linear_cross_entropy_reference(hidden, weight, torch.zeros_like(targets))
    assert not correct[1].any()


@on_device
@dtypes
@on_sizes(SIZES, LARGE_SIZES)
def test_outputs_and_gradients_equal_cross_entropy(sizes, dtype):
    kernel, definition, inputs = case(*sizes, dtype=dtype)
    actual = kernel_results(kernel, inputs)
    assert [x.dtype for x in actual] == [torch.float32, torch.bool, dtype, dtype]
    expected = results(definition, inputs, torch.float64)
    assert_near(actual, expected, NAMES, TOLERANCE[dtype], spread=5)


@on_device
def test_inputs_of_any_layout_give_the_same():
    kernel, _, inputs = case(2, 5, 37, 16)
    others = [strided(x) for x in inputs]
    assert_same(kernel_results(kernel, others), kernel_results(kernel, inputs))


@on_device
def test_the_first_of_equal_logits_counts_as_the_choice():
    hidden, weight = (torch.ones(1, size, 16, device=DEVICE) for size in (3, 130))
    kernel = case(1, 1, 1, 16).kernel
    correct = kernel(hidden, weight, torch.tensor([[0, 1, 129]], device=DEVICE))[1]
    assert correct.tolist() == [[True, False, False]]


@on_device
@dtypes
def test_results_are_exact_where_all_logits_are_far_below_zero(dtype):
    # the last tile is nearly empty
    kernel, definition, (hidden, weight, targets) = case(1, 5, 65, 17, dtype)
    hidden[..., 0], weight[..., 0] = 1, -256
    actual = kernel_results(kernel, [hidden, weight, targets])
    expected = results(definition, [hidden, weight, targets], torch.float64)
    for x in (actual, expected):
        x[2] = x[2][..., 1:]  # less the difference of 256s
    assert_near(actual, expected, NAMES, 2e-2, spread=5)


@on_device
def test_the_small_gradients_of_a_solved_task_are_kept():
    torch.manual_seed(5)
    weight = torch.eye(32).unsqueeze(0) + torch.randn(1, 32, 32) / 16
    inputs = [x.to(DEVICE, torch.bfloat16) for x in (11 * torch.eye(32).unsqueeze(0), weight)]
    inputs.append(torch.arange(32, device=DEVICE).unsqueeze(0))
    kernel, definition, _ = case(1, 1, 1, 16)
    loss, _, dhidden, dweight = kernel_results(kernel, inputs)
    assert loss.max() < 0.01
    exact = results(definition, inputs, torch.float64)
    for x, expected in zip((dhidden, dweight), exact[2:], strict=True):
        assert (x - expected).norm() < 0.01 * expected.norm()


@on_device
def test_operator_is_registered_as_torch_expects():
    from zoorecall.ops.linear_cross_entropy.triton import _forward

    hidden, weight, targets = case(2, 3, 17, 16).inputs
    torch.library.opcheck(_forward, (hidden.requires_grad_(), weight.requires_grad_(), targets))


@on_device
def test_misfits_are_refused():
    kernel, _, (hidden, weight, targets) = case(2, 3, 17, 16)
    with pytest.raises(ValueError, match="do not fit"):
        kernel(hidden, weight[:1], targets)
    with pytest.raises(ValueError, match="bfloat16"):
        kernel(hidden, weight.bfloat16(), targets)
    with pytest.raises(ValueError, match="257 is more than 256"):
        kernel(*case(1, 2, 3, 257).inputs)

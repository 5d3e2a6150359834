"""Attention: its plain forms against a loop, its kernel against the definition in float64."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from zoorecall.ops.attention.fast import attention
from zoorecall.ops.attention.reference import attention_reference
from zoorecall.ops.dropout import WORDS, Dropped

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
)

NAMES = ["y", "qkv", "bias"]

# R, B, L, H, K: lengths and head dims below, at and above powers of two
SIZES = [(3, 2, 13, 2, 16), (2, 1, 33, 3, 24), (1, 2, 64, 1, 40), (2, 1, 100, 1, 5)]
SIZES += [(1, 2, 18, 1, 150)]  # slices of a head
LARGE_SIZES = [(17, 21, 64, 1, 64), (4, 11, 128, 2, 64), (2, 33, 64, 1, 128)]
LARGE_SIZES += [(3, 65, 32, 4, 16), (5, 7, 16, 1, 128), (2, 40, 64, 1, 256), (1, 9, 50, 2, 200)]


def attend(*inputs, num_heads, function, rate=0.0):
    """Attention of q, k and v in one tensor or three, with or without as many biases behind, and
    behind these, where weights are dropped at a `rate`, the keys that decide which."""
    others = {}
    if rate:
        *inputs, keys = inputs
        others["dropped"] = Dropped(rate, keys)
    one = len(inputs) < 3
    qkv, bias = (inputs[0], inputs[1:]) if one else (inputs[:3], inputs[3:])
    return function(qkv, num_heads, (bias[0] if one else bias) if bias else None, **others)


def case(R, B, L, H, K, dtype=torch.float32, bias=False, apart=False, rate=0.0):
    from zoorecall.ops.attention.triton import attention_triton

    torch.manual_seed(1)
    inputs = [(1.5 * torch.randn(R, B, L, 3 * H * K)).to(DEVICE, dtype)]
    inputs += [torch.randn(R, 3 * H * K).to(DEVICE)] * bias
    if apart:
        inputs = [part.contiguous() for x in inputs for part in x.chunk(3, dim=-1)]
    if rate:
        inputs.append(torch.randint(WORDS, (R,), device=DEVICE))
    forms = (attention_triton, attention_reference)
    return Case(*(partial(attend, num_heads=H, function=f, rate=rate) for f in forms), inputs)


SMALL = {
    "attention": partial(case, B=1, L=17, H=2, K=8),
    "attention with bias": partial(case, B=1, L=17, H=2, K=8, bias=True),
    "attention of three tensors": partial(case, B=1, L=17, H=2, K=8, bias=True, apart=True),
    "attention that drops weights": partial(case, B=2, L=17, H=2, K=8, bias=True, rate=0.3),
}
LARGE = {
    "attention": partial(case, 17, 31, 64, 2, 32, dtype=torch.bfloat16, bias=True),
    "attention that drops weights": partial(case, 9, 31, 64, 2, 32, torch.bfloat16, rate=0.1),
}


def in_parts(qkv, function):
    """`function` of three tensors, made from a packed one."""
    return function(*(x.contiguous() for x in qkv.chunk(3, dim=-1)))


def head_by_head(qkv, num_heads):
    """Attention with a loop over the positions, no mask and no layout to get wrong."""
    heads = []
    q, k, v = (x.chunk(num_heads, dim=-1) for x in qkv.chunk(3, dim=-1))
    for q_h, k_h, v_h in zip(q, k, v, strict=True):
        y = []
        for t in range(qkv.shape[2]):
            scores = torch.einsum("rbk,rbsk->rbs", q_h[:, :, t], k_h[:, :, : t + 1])
            weights = (scores / q_h.shape[-1] ** 0.5).softmax(-1)
            y.append(torch.einsum("rbs,rbsk->rbk", weights, v_h[:, :, : t + 1]))
        heads.append(torch.stack(y, 2))
    return torch.cat(heads, -1)


@pytest.mark.parametrize("function", [attention, attention_reference])
def test_plain_forms_add_a_bias_to_one_tensor_or_three(function):
    qkv, bias = torch.randn(3, 2, 13, 30), torch.randn(3, 30)
    expected = function(qkv + bias[:, None, None], 2)
    assert_close(attend(qkv, bias, num_heads=2, function=function), expected)
    apart = (*qkv.chunk(3, dim=-1), *bias.chunk(3, dim=-1))
    assert_close(attend(*apart, num_heads=2, function=function), expected)


@pytest.mark.parametrize("function", [attention, attention_reference])
def test_plain_forms_and_gradients_equal_the_loop(function):
    qkv = torch.randn(3, 2, 13, 3 * 2 * 5, dtype=torch.float64)
    expected = results(partial(head_by_head, num_heads=2), [qkv])
    form = partial(attend, num_heads=2, function=function)
    assert_close(results(form, [qkv]), expected)
    assert_close(results(partial(in_parts, function=form), [qkv]), expected)


@on_device
@dtypes
@on_sizes(SIZES, LARGE_SIZES)
@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
def test_output_and_gradients_equal_the_definition(sizes, dtype, bias, rate=0.0):
    kernel, definition, inputs = case(*sizes, dtype=dtype, bias=bias, rate=rate)
    actual = kernel_results(kernel, inputs)
    assert [x.dtype for x in actual] == [dtype, dtype] + [torch.float32] * bias
    expected = results(definition, inputs, torch.float64)
    assert_near(actual, expected, NAMES[: len(actual)], TOLERANCE[dtype])


@on_device
@on_sizes([(3, 2, 13, 2, 16), (1, 2, 18, 1, 150)], LARGE_SIZES)
@pytest.mark.parametrize("rate", [0.1, 0.7])
def test_the_weights_that_the_definition_drops_are_dropped(sizes, rate):
    test_output_and_gradients_equal_the_definition(sizes, torch.bfloat16, bias=True, rate=rate)


@gpu
def test_bfloat16_takes_long_sequences_of_wide_heads():
    sizes = (1, 9, 128, 2, 200)
    test_output_and_gradients_equal_the_definition(sizes, torch.bfloat16, bias=True)


@gpu
def test_float32_in_tf32_is_near_the_definition():
    from zoorecall.ops.attention.triton import attention_triton

    _, definition, inputs = case(3, 5, 64, 2, 64)
    function = partial(attention_triton, num_heads=2, allow_tf32=True)
    expected = results(definition, inputs, torch.float64)
    assert_near(kernel_results(function, inputs), expected, NAMES[:2], 1e-2)


@on_device
def test_the_bias_of_three_projections_counts():
    kernel, _, inputs = case(2, 3, 19, 2, 8, bias=True)
    apart = case(2, 3, 19, 2, 8, bias=True, apart=True).inputs
    expected, actual = kernel_results(kernel, inputs), kernel_results(kernel, apart)
    assert_close(actual[0], expected[0])
    assert_close(torch.cat(actual[1:4], -1), expected[1])
    assert_close(torch.cat(actual[4:], -1), expected[2])


@on_device
def test_q_k_and_v_may_be_packed_or_apart_in_any_layout():
    function, _, inputs = case(2, 3, 19, 2, 8)
    expected = kernel_results(function, inputs)

    def rotated(qkv):  # as behind rotary positions, which make q and k anew
        q, k, v = qkv.chunk(3, dim=-1)
        return function(q.contiguous(), k.contiguous(), v)

    def mixed(qkv):
        q, k, v = qkv.chunk(3, dim=-1)
        return function(q, k.contiguous(), v)

    def strided(qkv):
        return function(*(x.mT.contiguous().mT for x in qkv.chunk(3, dim=-1)))

    for form in (partial(in_parts, function=function), rotated, mixed, strided):
        assert_same(kernel_results(form, inputs), expected)
    assert_same(kernel_results(function, [features_first(x) for x in inputs]), expected)


@on_device
def test_packed_heads_are_read_where_they_lie():
    from zoorecall.ops.tiles import flat_rows

    for part in case(2, 3, 19, 2, 8).inputs[0].chunk(3, dim=-1):
        assert flat_rows(part).data_ptr() == part.data_ptr()


@on_device
def test_operator_is_registered_as_torch_expects():
    from zoorecall.ops.attention.triton import _forward

    qkv = case(2, 1, 5, 2, 8).inputs[0].requires_grad_()
    torch.library.opcheck(_forward, ([qkv], [], None, 0, 2, False))
    parts = [x.detach().contiguous().requires_grad_() for x in qkv.chunk(3, dim=-1)]
    bias = [torch.randn(2, 16, device=DEVICE, requires_grad=True) for _ in range(3)]
    torch.library.opcheck(_forward, (parts, bias, torch.arange(2, device=DEVICE), 2**30, 2, False))


@on_device
def test_misfits_are_refused():
    from zoorecall.ops.attention.triton import attention_triton

    (qkv,) = case(2, 1, 5, 2, 8).inputs
    with pytest.raises(ValueError, match="of 5 heads"):
        attention_triton(qkv, 5)
    with pytest.raises(ValueError, match="of 2 heads"):
        attention_triton((qkv, qkv[:1], qkv), 2)
    with pytest.raises(ValueError, match="not a float32 bias"):
        attention_triton(qkv, 2, qkv[:, 0, 0].bfloat16())
    with pytest.raises(ValueError, match="not a float32 bias"):
        attention_triton(qkv, 2, qkv[:, 0, 0, 1:])
    with pytest.raises(ValueError, match="float16"):
        attention_triton(qkv.half(), 2)
    for sizes, message in [
        ((1, 1, 129, 1, 16), "length 129"),
        ((1, 1, 5, 1, 257), "head dim 257"),
        ((1, 1, 65, 1, 72), "length 65, head dim 72"),
    ]:
        kernel, _, inputs = case(*sizes)
        with pytest.raises(ValueError, match=message):
            kernel(*inputs)

"""Attention and the delta rule: Triton kernels against the definitions in float64.

Triton decides at import whether it interprets. So the file runs a second time, in a process of its
own with TRITON_INTERPRET=1 and small sizes; in this one every test of a kernel needs a GPU.
"""

import os
import subprocess
import sys
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from zoorecall.ops.attention import attention, attention_reference
from zoorecall.ops.delta_rule import delta_rule_recurrent

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
# norm of the error by norm of the float64 result of the same inputs
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 1e-2}

# R, B, L, H, K: lengths and head dims below, at and above powers of two
ATTENTION_SIZES = [(3, 2, 13, 2, 16), (2, 1, 33, 3, 24), (1, 2, 64, 1, 40), (2, 1, 100, 1, 5)]
# R, B, L, H, K, V
DELTA_SIZES = [(3, 2, 13, 2, 16, 32), (2, 1, 33, 3, 24, 20), (1, 2, 64, 1, 5, 40)]
DELTA_SIZES += [(2, 1, 100, 1, 33, 16)]
if not INTERPRETED:
    ATTENTION_SIZES += [(17, 64, 64, 1, 64), (4, 31, 128, 2, 64), (2, 33, 64, 1, 128)]
    ATTENTION_SIZES += [(3, 65, 32, 4, 16), (5, 7, 16, 1, 128)]
    DELTA_SIZES += [(17, 64, 64, 1, 64, 64), (4, 31, 128, 2, 64, 64), (2, 33, 64, 1, 128, 128)]
    DELTA_SIZES += [(3, 65, 32, 4, 16, 16), (5, 7, 16, 1, 128, 64)]


def on_device(test):
    return test if INTERPRETED else pytest.mark.gpu(test)


if INTERPRETED:
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    @pytest.fixture(autouse=True)
    def bfloat16_as_on_a_gpu(monkeypatch):
        """Triton 3.6 interprets a dot of bfloat16 as one of their bit patterns, and truncates."""
        dot, cast = InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl

        def widened_dot(self, *args):
            is_half = [getattr(x, "dtype", None) == tl.bfloat16 for x in args]
            pairs = zip(args, is_half, strict=True)
            return dot(self, *(self.create_fp_ext(x, tl.float32) if h else x for x, h in pairs))

        def rounded_cast(self, x, dtype):
            if (x.dtype.scalar, dtype.scalar) != (tl.float32, tl.bfloat16):
                return cast(self, x, dtype)
            bits = torch.tensor(x.data).bfloat16().view(torch.uint16).numpy()
            return TensorHandle(bits, tl.bfloat16)

        monkeypatch.setattr(InterpreterBuilder, "create_dot", widened_dot)
        monkeypatch.setattr(InterpreterBuilder, "cast_impl", rounded_cast)

else:

    def test_the_kernels_hold_in_the_interpreter():
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
        environment = {**os.environ, "TRITON_INTERPRET": "1"}
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr


def attend(*inputs, num_heads, function=None):
    """Attention of q, k and v in one tensor or three, with or without as many biases behind."""
    if function is None:
        from zoorecall.ops.attention_triton import attention_triton as function

    one = len(inputs) < 3
    qkv, bias = (inputs[0], inputs[1:]) if one else (inputs[:3], inputs[3:])
    return function(qkv, num_heads, (bias[0] if one else bias) if bias else None)


def attention_input(R, B, L, H, K, dtype=torch.float32, bias=False):
    torch.manual_seed(1)
    inputs = [(1.5 * torch.randn(R, B, L, 3 * H * K)).to(DEVICE, dtype)]
    return inputs + [torch.randn(R, 3 * H * K).to(DEVICE)] * bias


def write(*inputs):
    from zoorecall.ops.delta_rule_triton import delta_rule_triton

    return delta_rule_triton(*inputs)


def delta_inputs(R, B, L, H, K, V, dtype=torch.float32):
    """Queries and keys of norm one, as DeltaNet makes them."""
    torch.manual_seed(2)
    q, k = (F.normalize(torch.randn(R, B, L, H, K), dim=-1) for _ in range(2))
    inputs = (q, k, torch.randn(R, B, L, H, V), torch.rand(R, B, L, H))
    return [x.to(DEVICE, dtype) for x in inputs]


def repeated(q, k, v, beta, noise):
    """The same, but two of three positions share a key, up to noise, and beta is one."""
    filler = torch.arange(k.shape[2], device=k.device) % 3 > 0
    near = F.normalize(k[:, :, :1].float() + noise * torch.randn_like(k.float()), dim=-1)
    k = torch.where(filler[:, None, None], near.to(k.dtype), k)
    return [q, k, v, torch.ones_like(beta)]


def results(function, inputs, dtype=None):
    """A function's output and the gradients of its inputs, under the same cotangent always."""
    inputs = [x.detach().to(dtype or x.dtype).requires_grad_() for x in inputs]
    y = function(*inputs)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(3)).bfloat16()
    return [y.detach(), *torch.autograd.grad(y, inputs, dy.to(y))]


def kernel_results(function, inputs):
    """`results` while fresh memory holds NaN, which shows what a kernel forgot to write."""
    torch.use_deterministic_algorithms(True)
    try:
        return results(function, inputs)
    finally:
        torch.use_deterministic_algorithms(False)


def assert_near(actual, expected, names, tolerance):
    for name, x, exact in zip(names, actual, expected, strict=True):
        for run, (a, b) in enumerate(zip(x, exact, strict=True)):
            assert (a - b).norm() <= tolerance * b.norm(), f"{name} of run {run}"


ATTENTION_NAMES = ["y", "qkv", "bias"]
DELTA_NAMES = ["y", "q", "k", "v", "beta"]
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


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
def test_plain_attention_adds_a_bias_to_one_tensor_or_three(function):
    qkv, bias = torch.randn(3, 2, 13, 30), torch.randn(3, 30)
    expected = function(qkv + bias[:, None, None], 2)
    assert_close(attend(qkv, bias, num_heads=2, function=function), expected)
    apart = (*qkv.chunk(3, dim=-1), *bias.chunk(3, dim=-1))
    assert_close(attend(*apart, num_heads=2, function=function), expected)


@pytest.mark.parametrize("function", [attention, attention_reference])
def test_plain_attention_and_gradients_equal_the_loop(function):
    qkv = torch.randn(3, 2, 13, 3 * 2 * 5, dtype=torch.float64)
    expected = results(partial(head_by_head, num_heads=2), [qkv])
    for form in (
        partial(function, num_heads=2),
        partial(in_parts, function=lambda *parts: function(parts, 2)),
    ):
        assert_close(results(form, [qkv]), expected)


@on_device
@dtypes
@pytest.mark.parametrize("sizes", ATTENTION_SIZES)
@pytest.mark.parametrize("bias", [False, True])
def test_attention_and_gradients_equal_the_definition(sizes, dtype, bias):
    inputs = attention_input(*sizes, dtype=dtype, bias=bias)
    actual = kernel_results(partial(attend, num_heads=sizes[3]), inputs)
    assert [x.dtype for x in actual] == [dtype, dtype] + [torch.float32] * bias
    reference = partial(attend, num_heads=sizes[3], function=attention_reference)
    expected = results(reference, inputs, torch.float64)
    assert_near(actual, expected, ATTENTION_NAMES[: len(actual)], TOLERANCE[dtype])


@on_device
def test_attention_takes_the_bias_of_three_projections():
    qkv, bias = attention_input(2, 3, 19, 2, 8, bias=True)
    function = partial(attend, num_heads=2)
    apart = [x.contiguous() for x in (*qkv.chunk(3, dim=-1), *bias.chunk(3, dim=-1))]
    expected, actual = kernel_results(function, [qkv, bias]), kernel_results(function, apart)
    assert_close(actual[0], expected[0])
    assert_close(torch.cat(actual[1:4], -1), expected[1])
    assert_close(torch.cat(actual[4:], -1), expected[2])


@on_device
@dtypes
@pytest.mark.parametrize("sizes", DELTA_SIZES)
def test_delta_rule_and_gradients_equal_the_recurrence(sizes, dtype):
    inputs = delta_inputs(*sizes, dtype=dtype)
    actual = kernel_results(write, inputs)
    assert [x.dtype for x in actual] == [dtype] * 5
    expected = results(delta_rule_recurrent, inputs, torch.float64)
    assert_near(actual, expected, DELTA_NAMES, TOLERANCE[dtype])


@on_device
@dtypes
@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("sizes", DELTA_SIZES)
def test_delta_rule_is_exact_where_keys_repeat(sizes, noise, dtype):
    inputs = repeated(*delta_inputs(*sizes, dtype=dtype), noise)
    actual = kernel_results(write, inputs)
    expected = results(delta_rule_recurrent, inputs, torch.float64)
    # what neighbours write nearly cancels in the sums of dq and dbeta, but not its rounding errors
    assert_near(actual, expected, DELTA_NAMES, {torch.bfloat16: 2e-2}.get(dtype, TOLERANCE[dtype]))


@on_device
def test_delta_rule_reads_nothing_it_has_overwritten():
    """One key all along and beta = 1: the state is the last value alone, exactly."""
    q, k, v, beta = delta_inputs(2, 1, 64, 2, 16, 24)
    q[:], k[:], beta[:] = k[:, :, :1], k[:, :, :1].clone(), 1
    assert_close(write(q, k, v, beta), v / 4, rtol=1e-4, atol=1e-4)


@on_device
@pytest.mark.filterwarnings("ignore:All-NaN slice", "ignore:invalid value")  # numpy's
@pytest.mark.parametrize("name", ["attention", "delta rule"])
def test_a_run_of_nan_leaves_its_neighbours_untouched(name):
    if name == "attention":
        function, inputs = partial(attend, num_heads=2), attention_input(3, 1, 17, 2, 8)
    else:
        function, inputs = write, delta_inputs(3, 1, 17, 2, 8, 5)
    clean = kernel_results(function, inputs)
    for x in inputs:
        x[1] = torch.nan
    diverged = kernel_results(function, inputs)
    for x, other in zip(clean, diverged, strict=True):
        assert torch.equal(x[::2], other[::2])
        assert other[1].isnan().all()


@on_device
def test_later_positions_do_not_reach_earlier_outputs():
    (qkv,) = attention_input(1, 1, 21, 1, 16)
    inputs = delta_inputs(1, 1, 21, 1, 16, 16)
    for function, arguments in ((partial(attend, num_heads=1), [qkv]), (write, inputs)):
        changed = [torch.cat([x[:, :, :9], x[:, :, 9:].flip(2)], 2) for x in arguments]
        y, other = function(*arguments), function(*changed)
        assert torch.equal(y[:, :, :9], other[:, :, :9])
        assert not torch.equal(y[:, :, 9:], other[:, :, 9:])


@on_device
def test_attention_takes_q_k_and_v_packed_or_apart_in_any_layout():
    (qkv,) = attention_input(2, 3, 19, 2, 8)
    function = partial(attend, num_heads=2)
    expected = kernel_results(function, [qkv])

    def rotated(qkv):  # as behind rotary positions, which make q and k anew
        q, k, v = qkv.chunk(3, dim=-1)
        return function(q.contiguous(), k.contiguous(), v)

    def mixed(qkv):
        q, k, v = qkv.chunk(3, dim=-1)
        return function(q, k.contiguous(), v)

    def strided(qkv):
        return function(*(x.mT.contiguous().mT for x in qkv.chunk(3, dim=-1)))

    def features_first(qkv):
        return function(qkv.movedim(-1, 0).contiguous().movedim(0, -1))

    for form in (partial(in_parts, function=function), rotated, mixed, strided, features_first):
        for x, other in zip(expected, kernel_results(form, [qkv]), strict=True):
            assert torch.equal(x, other)


@on_device
def test_attention_reads_packed_heads_where_they_lie():
    from zoorecall.ops.attention_triton import _rows

    for part in attention_input(2, 3, 19, 2, 8)[0].chunk(3, dim=-1):
        assert _rows(part).data_ptr() == part.data_ptr()


@on_device
def test_delta_rule_takes_any_layout():
    inputs = delta_inputs(2, 1, 19, 2, 8, 5)
    strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    for x, other in zip(kernel_results(write, inputs), kernel_results(write, strided), strict=True):
        assert torch.equal(x, other)


@on_device
def test_delta_rule_without_gradients_gives_the_same():
    inputs = delta_inputs(2, 1, 19, 2, 8, 5)
    assert torch.equal(write(*inputs), kernel_results(write, inputs)[0])


@on_device
def test_kernels_compile_without_a_graph_break():
    backend = "aot_eager" if INTERPRETED else "inductor"
    packed = attention_input(2, 1, 17, 2, 8)

    def of_double(qkv):
        return attend(2 * qkv, num_heads=2)

    def with_bias(qkv, bias):
        return attend(qkv, 2 * bias, num_heads=2)

    def of_parts(qkv):
        return attend(*(2 * x for x in qkv.chunk(3, dim=-1)), num_heads=2)

    def write_double(q, k, v, beta):
        return write(q, k, 2 * v, beta)

    for function, arguments in [
        (of_double, packed),
        (with_bias, attention_input(2, 1, 17, 2, 8, bias=True)),
        (of_parts, packed),
        (write_double, delta_inputs(2, 1, 17, 2, 8, 5)),
    ]:
        compiled = torch.compile(function, backend=backend, fullgraph=True)
        expected = kernel_results(function, arguments)
        for x, other in zip(expected, kernel_results(compiled, arguments), strict=True):
            assert_close(x, other)


@on_device
def test_operators_are_registered_as_torch_expects():
    from zoorecall.ops import attention_triton, delta_rule_triton

    qkv = attention_input(2, 1, 5, 2, 8)[0].requires_grad_()
    torch.library.opcheck(attention_triton._forward, ([qkv], [], 2, False))
    parts = [x.detach().contiguous().requires_grad_() for x in qkv.chunk(3, dim=-1)]
    bias = [torch.randn(2, 16, device=DEVICE, requires_grad=True) for _ in range(3)]
    torch.library.opcheck(attention_triton._forward, (parts, bias, 2, False))
    inputs = [x.requires_grad_() for x in delta_inputs(2, 1, 5, 2, 8, 3)]
    torch.library.opcheck(delta_rule_triton._forward, (*inputs, True))


if not INTERPRETED:

    @pytest.mark.gpu
    def test_attention_in_tf32_is_near_the_definition():
        from zoorecall.ops.attention_triton import attention_triton

        inputs = attention_input(3, 5, 64, 2, 64)
        reference = partial(attention_reference, num_heads=2)
        function = partial(attention_triton, num_heads=2, allow_tf32=True)
        expected = results(reference, inputs, torch.float64)
        assert_near(kernel_results(function, inputs), expected, ATTENTION_NAMES, 1e-2)

    def gpu_cases():
        bf16 = torch.bfloat16
        return [
            (partial(attend, num_heads=2), attention_input(17, 31, 64, 2, 32, bf16, True)),
            (write, delta_inputs(17, 31, 64, 1, 64, 64, dtype=bf16)),
            (write, delta_inputs(3, 31, 128, 1, 64, 64, dtype=bf16)),
        ]

    @pytest.mark.gpu
    @pytest.mark.parametrize("sizes", [(3, 2, 256, 1, 64, 64), (2, 3, 150, 2, 256, 256)])
    def test_long_delta_rules_and_wide_ones_by_fla_equal_the_recurrence(sizes):
        from zoorecall.ops.delta_rule_fla import delta_rule_fla

        inputs = delta_inputs(*sizes, dtype=torch.bfloat16)
        expected = results(delta_rule_recurrent, inputs, torch.float64)
        assert_near(results(delta_rule_fla, inputs), expected, DELTA_NAMES, 2e-2)
        inputs = repeated(*inputs, noise=0.05)
        expected = results(delta_rule_recurrent, inputs, torch.float64)
        assert_near(results(delta_rule_fla, inputs), expected, DELTA_NAMES, 5e-2)

    @pytest.mark.gpu
    def test_the_same_inputs_give_the_same_bits():
        for function, arguments in gpu_cases():
            first, second = kernel_results(function, arguments), kernel_results(function, arguments)
            assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))

    @pytest.mark.gpu
    def test_kernels_replay_from_a_cuda_graph():
        for function, arguments in gpu_cases():
            arguments = [x.requires_grad_() for x in arguments]

            def step(function=function, arguments=arguments):
                y = function(*arguments)
                return [y.detach(), *torch.autograd.grad(y, arguments, torch.ones_like(y))]

            expected = step()  # compiles outside of the capture
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                captured = step()
            for x in captured:
                x.zero_()
            graph.replay()
            assert all(torch.equal(x, y) for x, y in zip(expected, captured, strict=True))


@on_device
def test_misfits_are_refused():
    (qkv,) = attention_input(2, 1, 5, 2, 8)
    with pytest.raises(ValueError, match="of 5 heads"):
        attend(qkv, num_heads=5)
    with pytest.raises(ValueError, match="of 2 heads"):
        attend(qkv, qkv[:1], qkv, num_heads=2)
    with pytest.raises(ValueError, match="not a float32 bias"):
        attend(qkv, qkv[:, 0, 0].bfloat16(), num_heads=2)
    with pytest.raises(ValueError, match="not a float32 bias"):
        attend(qkv, qkv[:, 0, 0, 1:], num_heads=2)
    with pytest.raises(ValueError, match="float16"):
        attend(qkv.half(), num_heads=2)
    with pytest.raises(ValueError, match="length 129"):
        attend(*attention_input(1, 1, 129, 1, 16), num_heads=1)
    with pytest.raises(ValueError, match="head dim 136"):
        attend(*attention_input(1, 1, 5, 1, 136), num_heads=1)
    with pytest.raises(ValueError, match="length 65, head dim 72"):
        attend(*attention_input(1, 1, 65, 1, 72), num_heads=1)
    q, k, v, beta = delta_inputs(2, 1, 5, 2, 8, 3)
    with pytest.raises(ValueError, match="do not fit"):
        write(q, k, v, beta[..., :1])
    with pytest.raises(ValueError, match="bfloat16"):
        write(q, k, v, beta.bfloat16())
    with pytest.raises(ValueError, match="length 129"):
        write(*delta_inputs(1, 1, 129, 1, 16, 16))

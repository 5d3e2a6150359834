"""The Triton kernels against the definitions in float64, on CUDA and in Triton's interpreter.

Triton decides at import whether it interprets. So the file runs a second time, in a process of its
own with TRITON_INTERPRET=1 and small sizes; in this one every comparison needs a GPU.
"""

import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from zoorecall.ops.linear_cross_entropy import linear_cross_entropy_reference
from zoorecall.ops.selective_scan import selective_scan_recurrent

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
# against the float64 result of the same inputs; bfloat16 leaves room for the interpreter, which
# truncates where a GPU rounds
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}

# R, B, L, C, N: channels in one and in several programs, lengths with and without a rest, N below,
# at and above a power of two
SCAN_SIZES = [(2, 1, 6, 35, 16), (3, 2, 4, 5, 3), (1, 2, 5, 11, 40)]
# of u, B and C, and of delta, which Mamba makes in float32
DTYPES_OF_SCAN = [
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.float32),
    (torch.bfloat16, torch.bfloat16),
]
# R, M, V, D
HEAD_SIZES = [(2, 37, 150, 24), (3, 130, 65, 16)]
if not INTERPRETED:
    SCAN_SIZES += [(4, 64, 64, 128, 16), (2, 33, 511, 200, 16), (2, 31, 129, 512, 64)]
    HEAD_SIZES += [(4, 2048, 8192, 64), (3, 1000, 8191, 96), (2, 500, 1000, 256)]


def on_device(test):
    return test if INTERPRETED else pytest.mark.gpu(test)


if INTERPRETED:
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder

    @pytest.fixture(autouse=True)
    def multiply_bfloat16(monkeypatch):
        """Triton 3.6 interprets a dot of bfloat16 as one of their bit patterns."""
        dot = InterpreterBuilder.create_dot

        def widened_dot(self, *args):
            is_half = [getattr(x, "dtype", None) == tl.bfloat16 for x in args]
            pairs = zip(args, is_half, strict=True)
            return dot(self, *(self.create_fp_ext(x, tl.float32) if h else x for x, h in pairs))

        monkeypatch.setattr(InterpreterBuilder, "create_dot", widened_dot)

else:

    def test_the_kernels_hold_in_the_interpreter():
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
        environment = {**os.environ, "TRITON_INTERPRET": "1"}
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr


def scan(*inputs):
    from zoorecall.ops.selective_scan_triton import selective_scan_triton

    return selective_scan_triton(*inputs)


def scan_inputs(R, B, L, C, N, dtype=torch.float32, delta_dtype=None):
    torch.manual_seed(1)
    shapes = {"u": (R, B, L, C), "delta": (R, B, L, C), "A": (R, C, N)}
    shapes |= {"B": (R, B, L, N), "C": (R, B, L, N), "D": (R, C)}
    inputs = {name: torch.randn(shape) for name, shape in shapes.items()}
    inputs["delta"] = inputs["delta"].abs()
    inputs["A"] = -2 * inputs["A"].abs()
    halves = {"u": dtype, "delta": delta_dtype or dtype, "B": dtype, "C": dtype}
    return [x.to(DEVICE, halves.get(name)) for name, x in inputs.items()]


def head(hidden, weight, targets):
    from zoorecall.ops.linear_cross_entropy_triton import linear_cross_entropy_triton

    return linear_cross_entropy_triton(hidden, weight, targets)


def cross_entropy(hidden, weight, targets):
    log_p = (hidden @ weight.mT).log_softmax(-1)
    return -log_p.gather(-1, targets.unsqueeze(-1)).squeeze(-1), log_p.argmax(-1) == targets


def head_inputs(R, M, V, D, dtype=torch.float32):
    torch.manual_seed(2)
    hidden, weight = torch.randn(R, M, D), torch.randn(R, V, D)
    targets = torch.randint(V, (R, M), device=DEVICE)
    targets[:, ::2] = (hidden[:, ::2] @ weight.mT).argmax(-1).to(DEVICE)  # half of them right
    return [hidden.to(DEVICE, dtype), weight.to(DEVICE, dtype)], targets


def results(function, inputs, dtype=None):
    """A function's outputs and the gradients of its first, under the same cotangent always."""
    inputs = [x.detach().to(dtype or x.dtype).requires_grad_() for x in inputs]
    y = function(*inputs)
    y, *others = y if isinstance(y, tuple) else (y,)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(3)).bfloat16()
    return [y.detach(), *others, *torch.autograd.grad(y, inputs, dy.to(y))]


def kernel_results(function, inputs):
    """`results` while fresh memory holds NaN, which shows what a kernel forgot to write."""
    torch.use_deterministic_algorithms(True)
    try:
        return results(function, inputs)
    finally:
        torch.use_deterministic_algorithms(False)


def assert_near(actual, expected, names, tolerance):
    for name, x, exact in zip(names, actual, expected, strict=True):
        if exact.dtype == torch.bool:  # a choice between logits that round to the same is free
            assert (x != exact).sum() <= exact.numel() // 1000, name
            continue
        assert (x - exact).norm() <= tolerance * exact.norm(), name
        # single elements may be further off: where the states of the scan nearly cancel in the
        # gradient of delta, the rounding of the stored ones to bfloat16 does not
        atol = 5 * tolerance * exact.square().mean().sqrt().item()
        assert_close(
            x.to(exact), exact, rtol=tolerance, atol=atol, msg=lambda text, n=name: f"{n}: {text}"
        )


SCAN_NAMES = ["y", "u", "delta", "A", "B", "C", "D"]
HEAD_NAMES = ["loss", "correct", "hidden", "weight"]
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


@on_device
@pytest.mark.parametrize("dtype, delta_dtype", DTYPES_OF_SCAN)
@pytest.mark.parametrize("sizes", SCAN_SIZES)
def test_scan_and_gradients_equal_the_recurrence(sizes, dtype, delta_dtype):
    inputs = scan_inputs(*sizes, dtype=dtype, delta_dtype=delta_dtype)
    actual = kernel_results(scan, inputs)
    assert [x.dtype for x in actual] == [dtype, *(x.dtype for x in inputs)]
    expected = results(selective_scan_recurrent, inputs, torch.float64)
    assert_near(actual, expected, SCAN_NAMES, TOLERANCE[dtype])


@on_device
@dtypes
@pytest.mark.parametrize("sizes", HEAD_SIZES)
def test_head_and_gradients_equal_cross_entropy(sizes, dtype):
    inputs, targets = head_inputs(*sizes, dtype=dtype)
    actual = kernel_results(partial(head, targets=targets), inputs)
    assert [x.dtype for x in actual] == [torch.float32, torch.bool, dtype, dtype]
    expected = results(partial(cross_entropy, targets=targets), inputs, torch.float64)
    assert_near(actual, expected, HEAD_NAMES, TOLERANCE[dtype])


@on_device
def test_scan_of_a_nan_run_leaves_its_neighbours_untouched():
    inputs = scan_inputs(3, 1, 2, 7, 4)
    clean = kernel_results(scan, inputs)
    inputs[0][1] = torch.nan
    diverged = kernel_results(scan, inputs)
    for name, x, other in zip(SCAN_NAMES, clean, diverged, strict=True):
        assert torch.equal(x[::2], other[::2]), name
    assert diverged[0][1].isnan().all()


@on_device
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy, in the interpreter
def test_head_of_a_nan_run_leaves_its_neighbours_untouched():
    inputs, targets = head_inputs(3, 5, 70, 16)
    function = partial(head, targets=targets)
    clean = kernel_results(function, inputs)
    inputs[0][1] = torch.nan
    diverged = kernel_results(function, inputs)
    for name, x, other in zip(HEAD_NAMES, clean, diverged, strict=True):
        assert torch.equal(x[::2], other[::2]), name
    assert diverged[0][1].isnan().all()
    assert not diverged[1][1].any()


@on_device
def test_inputs_of_any_layout_give_the_same():
    inputs = scan_inputs(2, 1, 3, 5, 4)
    strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    for x, other in zip(kernel_results(scan, inputs), kernel_results(scan, strided), strict=True):
        assert torch.equal(x, other)
    inputs, targets = head_inputs(2, 5, 37, 16)
    strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    mixed = partial(head, targets=targets.t().contiguous().t())
    expected = kernel_results(partial(head, targets=targets), inputs)
    for x, other in zip(expected, kernel_results(mixed, strided), strict=True):
        assert torch.equal(x, other)


def test_plain_head_equals_its_definition_and_is_right_nowhere_in_a_nan_run():
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
def test_scan_without_gradients_gives_the_same():
    inputs = scan_inputs(2, 1, 5, 6, 4)
    assert torch.equal(scan(*inputs), kernel_results(scan, inputs)[0])


@on_device
def test_head_counts_the_first_of_equal_logits_as_its_choice():
    hidden, weight = (torch.ones(1, size, 16, device=DEVICE) for size in (3, 130))
    correct = head(hidden, weight, torch.tensor([[0, 1, 129]], device=DEVICE))[1]
    assert correct.tolist() == [[True, False, False]]


@on_device
@dtypes
def test_head_is_exact_where_all_logits_are_far_below_zero(dtype):
    (hidden, weight), targets = head_inputs(1, 5, 65, 17, dtype)  # the last tile is nearly empty
    hidden[..., 0], weight[..., 0] = 1, -256
    actual = kernel_results(partial(head, targets=targets), [hidden, weight])
    expected = results(partial(cross_entropy, targets=targets), [hidden, weight], torch.float64)
    for x in (actual, expected):
        x[2] = x[2][..., 1:]  # less the difference of 256s
    assert_near(actual, expected, HEAD_NAMES, 2e-2)


@on_device
def test_head_keeps_the_small_gradients_of_a_solved_task():
    torch.manual_seed(5)
    weight = torch.eye(32).unsqueeze(0) + torch.randn(1, 32, 32) / 16
    inputs = [x.to(DEVICE, torch.bfloat16) for x in (11 * torch.eye(32).unsqueeze(0), weight)]
    targets = torch.arange(32, device=DEVICE).unsqueeze(0)
    loss, _, dhidden, dweight = kernel_results(partial(head, targets=targets), inputs)
    assert loss.max() < 0.01
    exact = results(partial(cross_entropy, targets=targets), inputs, torch.float64)
    for x, expected in zip((dhidden, dweight), exact[2:], strict=True):
        assert (x - expected).norm() < 0.01 * expected.norm()


@on_device
def test_kernels_compile_without_a_graph_break():
    inputs, targets = head_inputs(2, 5, 37, 16)
    backend = "aot_eager" if INTERPRETED else "inductor"

    def scan_of_double(u, *rest):
        return scan(2 * u, *rest)

    for function, arguments in [
        (scan_of_double, scan_inputs(2, 1, 5, 6, 4)),
        (partial(head, targets=targets), inputs),
    ]:
        compiled = torch.compile(function, backend=backend, fullgraph=True)
        expected = kernel_results(function, arguments)
        for x, other in zip(expected, kernel_results(compiled, arguments), strict=True):
            assert_close(x, other)


@on_device
def test_operators_are_registered_as_torch_expects():
    from zoorecall.ops import linear_cross_entropy_triton, selective_scan_triton

    inputs = [x.requires_grad_() for x in scan_inputs(2, 1, 3, 5, 3)]
    torch.library.opcheck(selective_scan_triton._forward, (*inputs, True))
    inputs, targets = head_inputs(2, 3, 17, 16)
    inputs = [x.requires_grad_() for x in inputs]
    torch.library.opcheck(linear_cross_entropy_triton._forward, (*inputs, targets))


if not INTERPRETED:

    @pytest.mark.gpu
    def test_the_same_inputs_give_the_same_bits():
        inputs, targets = head_inputs(*HEAD_SIZES[-1], dtype=torch.bfloat16)
        for function, arguments in [
            (scan, scan_inputs(*SCAN_SIZES[-1], dtype=torch.bfloat16)),
            (partial(head, targets=targets), inputs),
        ]:
            first, second = kernel_results(function, arguments), kernel_results(function, arguments)
            assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))

    @pytest.mark.gpu
    def test_kernels_replay_from_a_cuda_graph():
        inputs, targets = head_inputs(2, 300, 500, 64, dtype=torch.bfloat16)
        for function, arguments in [
            (scan, scan_inputs(2, 4, 33, 48, 16, dtype=torch.bfloat16)),
            (partial(head, targets=targets), inputs),
        ]:
            arguments = [x.requires_grad_() for x in arguments]

            def step(function=function, arguments=arguments):
                y = function(*arguments)
                y = y[0] if isinstance(y, tuple) else y
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
    scan_arguments = scan_inputs(2, 1, 3, 5, 3)
    with pytest.raises(ValueError, match="shapes"):
        scan(*scan_arguments[:2], scan_arguments[2].mT, *scan_arguments[3:])
    with pytest.raises(ValueError, match="float32"):
        scan(*scan_arguments[:5], scan_arguments[5].bfloat16())
    with pytest.raises(ValueError, match="65 is more than 64"):
        scan(*scan_inputs(1, 1, 2, 3, 65))
    (hidden, weight), targets = head_inputs(2, 3, 17, 16)
    with pytest.raises(ValueError, match="do not fit"):
        head(hidden, weight[:1], targets)
    with pytest.raises(ValueError, match="bfloat16"):
        head(hidden, weight.bfloat16(), targets)
    with pytest.raises(ValueError, match="257 is more than 256"):
        head(*head_inputs(1, 2, 3, 257)[0], targets[:1, :2])

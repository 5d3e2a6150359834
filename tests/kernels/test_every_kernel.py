"""What every kernel keeps: runs apart, the future out, torch's compiler and CUDA graphs working."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from . import (
    test_attention,
    test_causal_conv,
    test_delta_rule,
    test_gated_norm,
    test_linear_cross_entropy,
    test_mlp,
    test_selective_scan,
    test_ssd,
    test_wkv,
)
from .comparing import (
    INTERPRETED,
    assert_same,
    cotangent,
    gpu,
    kernel_results,
    on_device,
    results,
)

OF_TOKENS = (test_linear_cross_entropy, test_mlp)
OF_SEQUENCES = (
    test_attention,
    test_causal_conv,
    test_delta_rule,
    test_gated_norm,
    test_selective_scan,
    test_ssd,
    test_wkv,
)


def each(files, cases):
    """A test of `make`, which makes one of the `cases` of these files."""
    named = {name: make for file in files for name, make in getattr(file, cases).items()}
    return pytest.mark.parametrize("make", named.values(), ids=named)


def of_slices(function):
    """`function` of inputs that a compiled graph makes and that lie in a wider tensor."""

    def of_inputs(*inputs):
        halves = ((0.5 * F.pad(x, (1, 0)))[..., 1:] if x.is_floating_point() else x for x in inputs)
        return function(*halves)

    return of_inputs


@on_device
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's, of numpy
@each(OF_TOKENS + OF_SEQUENCES, "SMALL")
def test_a_run_of_nan_leaves_its_neighbours_untouched(make):
    """The first and last run stay clean, to the bits that the two have without the others; NaN is
    in one input of each other run, or in all."""
    numbers = sum(x.is_floating_point() for x in make(R=1).inputs)
    kernel, definition, inputs = make(R=numbers + 3)
    for run, x in enumerate(inputs[:numbers], start=1):
        x[[run, -2]] = torch.nan
    diverged, expected = kernel_results(kernel, inputs), results(definition, inputs)
    ends = [0, -1]
    clean = kernel_results(kernel, [x[ends] for x in inputs], cotangent(diverged[0])[ends])
    for x, other, exact in zip(clean, diverged, expected, strict=True):
        assert torch.equal(x, other[ends])
        wrong = other & ~exact if exact.dtype == torch.bool else exact.isnan() & ~other.isnan()
        assert not wrong.any(), wrong.flatten(1).any(1)
    # every input reaches outputs, if not all: WKV's first does not depend on its decay
    assert diverged[0][1:-1].isnan().flatten(1).any(1).all()


@on_device
@each(OF_TOKENS + OF_SEQUENCES, "SMALL")
def test_a_run_alone_is_as_beside_another(make):
    """torch refuses outputs that share memory, as slices of a pack of one may."""
    kernel, _, inputs = make(R=2)
    both = kernel_results(kernel, inputs)
    alone = kernel_results(kernel, [x[:1] for x in inputs], cotangent(both[0])[:1])
    assert_same(alone, [x[:1] for x in both])


@on_device
@each(OF_SEQUENCES, "SMALL")
def test_later_positions_do_not_reach_earlier_outputs(make):
    kernel, _, inputs = make(R=2)
    sequences = [x for x in inputs if x.ndim > 3]  # parameters have at most three axes
    now = sequences[0].shape[2] // 2
    y = kernel(*inputs)
    for x in sequences:
        x[:, :, now:] = x[:, :, now:].flip(2)
    other = kernel(*inputs)
    assert torch.equal(y[:, :, :now], other[:, :, :now])
    assert not torch.equal(y[:, :, now:], other[:, :, now:])


@on_device
@each(OF_TOKENS + OF_SEQUENCES, "SMALL")
def test_kernels_compile_without_a_graph_break(make):
    kernel, _, inputs = make(R=2)
    function = of_slices(kernel)
    torch.compiler.reset()  # or the cases would count as versions of one function
    backend = "aot_eager" if INTERPRETED else "inductor"
    compiled = torch.compile(function, backend=backend, fullgraph=True, dynamic=False)
    expected = kernel_results(function, inputs)
    for x, other in zip(expected, kernel_results(compiled, inputs), strict=True):
        assert_close(x, other)


@gpu
@each(OF_TOKENS + OF_SEQUENCES, "LARGE")
def test_the_same_inputs_give_the_same_bits(make):
    kernel, _, inputs = make()
    assert_same(kernel_results(kernel, inputs), kernel_results(kernel, inputs))


@gpu
@each(OF_TOKENS + OF_SEQUENCES, "LARGE")
def test_kernels_replay_from_a_cuda_graph(make):
    kernel, _, inputs = make()
    wanted = [x.requires_grad_() for x in inputs if x.is_floating_point()]

    def step():
        y = kernel(*inputs)
        y = y[0] if isinstance(y, tuple) else y
        return [y.detach(), *torch.autograd.grad(y, wanted, torch.ones_like(y))]

    expected = step()  # compiles outside of the capture
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for x in captured:
        x.zero_()
    graph.replay()
    assert_same(captured, expected)

"""The short convolution: its plain forms against torch's, its Triton kernel against the definition.

Triton decides at import whether it interprets. So the file runs a second time, in a process of its
own with TRITON_INTERPRET=1 and small sizes; in this one every test of the kernel needs a GPU.
"""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from zoorecall.layers import ShortConv
from zoorecall.ops.causal_conv import causal_conv, causal_conv_reference

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
# of a result in this dtype; the interpreter truncates to bfloat16 where a GPU rounds
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 1e-2}

# R, B, L, C, T, bias, SiLU: lengths of one tile, of several with a rest, and shorter than the taps;
# channels of one program and of several
CASES = [
    ((3, 2, 1, 19, 3), True, True),
    ((3, 2, 5, 19, 2), False, False),
    ((3, 2, 5, 19, 3), True, False),
    ((3, 2, 5, 19, 4), False, True),
    ((3, 2, 33, 19, 2), True, True),
    ((2, 1, 3, 35, 8), True, True),
]
if not INTERPRETED:
    CASES += [
        ((4, 512, 64, 384, 4), True, True),
        ((3, 128, 64, 64, 4), False, True),
        ((2, 33, 511, 200, 3), True, False),
        ((3, 5, 130, 192, 8), True, True),
    ]


def on_device(test):
    return test if INTERPRETED else pytest.mark.gpu(test)


if INTERPRETED:

    @pytest.fixture(autouse=True)
    def small_tiles(monkeypatch):
        """Short tiles and few a program, or the interpreter would need minutes."""
        from zoorecall.ops import causal_conv_triton

        monkeypatch.setattr(causal_conv_triton, "SPAN", 4)
        monkeypatch.setattr(causal_conv_triton, "TILES", 3)

else:

    def test_the_kernel_holds_in_the_interpreter():
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
        environment = {**os.environ, "TRITON_INTERPRET": "1"}
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr


def kernel(*arguments):
    from zoorecall.ops.causal_conv_triton import causal_conv_triton

    return causal_conv_triton(*arguments)


def make_inputs(R, B, L, C, T, bias=True, dtype=torch.float32):
    """x, weight and, if wanted, bias."""
    torch.manual_seed(1)
    inputs = [torch.randn(R, B, L, C).to(DEVICE, dtype), torch.randn(R, C, T).to(DEVICE)]
    return [*inputs, torch.randn(R, C).to(DEVICE)] if bias else inputs


def results(function, inputs, silu, dtype=None):
    """y and the gradients of all inputs, under the same cotangent always."""
    x, weight, *bias = inputs = [t.detach().to(dtype or t.dtype).requires_grad_() for t in inputs]
    y = function(x, weight, bias[0] if bias else None, silu)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).bfloat16()
    return [y.detach(), *torch.autograd.grad(y, inputs, dy.to(y))]


def kernel_results(inputs, silu, function=kernel):
    """`results` while fresh memory holds NaN, which shows what a kernel forgot to write."""
    torch.use_deterministic_algorithms(True)
    try:
        return results(function, inputs, silu)
    finally:
        torch.use_deterministic_algorithms(False)


def assert_near(actual, expected):
    for name, x, exact in zip(["y", "x", "weight", "bias"], actual, expected, strict=False):
        tolerance = TOLERANCE[x.dtype]
        atol = tolerance * exact.square().mean().sqrt().item()
        assert_close(
            x.to(exact), exact, rtol=tolerance, atol=atol, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("function", [causal_conv, causal_conv_reference])
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

    for y, exact in zip(
        results(function, inputs, silu), results(by_torch, inputs, silu), strict=True
    ):
        assert_close(y, exact)


@pytest.mark.parametrize("function", [causal_conv, causal_conv_reference])
def test_plain_forms_round_half_precision_once(function):
    torch.manual_seed(4)
    x = torch.randn(3, 2, 7, 5).bfloat16()
    weight, bias = torch.randn(3, 5, 4), torch.randn(3, 5)
    half, exact = function(x, weight, bias, True), function(x.float(), weight, bias, True)
    assert torch.equal(half, exact.bfloat16())


@on_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes, bias, silu", CASES)
def test_kernel_and_gradients_equal_the_definition(sizes, bias, silu, dtype):
    inputs = make_inputs(*sizes, bias=bias, dtype=dtype)
    actual = kernel_results(inputs, silu)
    assert [t.dtype for t in actual] == [dtype, *(t.dtype for t in inputs)]
    assert [t.shape for t in actual[1:]] == [t.shape for t in inputs]
    assert_near(actual, results(causal_conv_reference, inputs, silu, torch.float64))


@on_device
def test_a_nan_run_leaves_its_neighbours_untouched():
    inputs = make_inputs(3, 2, 5, 19, 3)
    clean = kernel_results(inputs, silu=True)
    inputs[0][1] = torch.nan
    diverged = kernel_results(inputs, silu=True)
    for x, other in zip(clean, diverged, strict=True):
        assert torch.equal(x[::2], other[::2])
        assert other[1].isnan().all()


@on_device
@pytest.mark.filterwarnings("ignore:overflow")  # the interpreter's, of numpy
def test_large_inputs_saturate_as_silu_does():
    inputs = make_inputs(2, 1, 5, 6, 2)
    inputs[0] *= 1e4
    expected = results(causal_conv_reference, inputs, True, torch.float64)
    assert_near(kernel_results(inputs, silu=True), expected)


@on_device
def test_inputs_of_any_layout_give_the_same():
    R, B, L, C, T = 2, 3, 5, 6, 4
    x, weight, bias = make_inputs(R, B, L, C, T)
    expected = kernel_results([x, weight, bias], silu=True)
    flat = torch.cat([weight.flatten(1), bias], dim=1)  # as the parameters of a pack are
    parameters = [flat[:, : C * T].view(R, C, T), flat[:, C * T :]]
    sliced = torch.full((R, B, L, C + 9), torch.nan, device=DEVICE)[..., 4 : 4 + C].copy_(x)
    swapped = x.transpose(0, 2).contiguous().transpose(0, 2)
    for other in (sliced, swapped, x.mT.contiguous().mT):
        assert not other.is_contiguous()
        for y, same in zip(kernel_results([other, *parameters], True), expected, strict=True):
            assert_close(y, same)


@on_device
def test_kernel_compiles_without_a_graph_break():
    def function(x, weight, bias, silu):
        return kernel((2 * x)[..., 1:], weight, bias, silu)  # a slice of what the graph computes

    _, weight, bias = make_inputs(2, 1, 5, 6, 3)
    inputs = [make_inputs(2, 1, 5, 7, 3)[0], weight, bias]
    backend = "aot_eager" if INTERPRETED else "inductor"
    compiled = torch.compile(function, backend=backend, fullgraph=True)
    for inputs_ in (inputs, inputs[:2]):
        expected = kernel_results(inputs_, True, function)
        for x, other in zip(kernel_results(inputs_, True, compiled), expected, strict=True):
            assert_close(x, other)


@on_device
def test_operator_is_registered_as_torch_expects():
    from zoorecall.ops.causal_conv_triton import _forward

    x, weight, bias = (t.requires_grad_() for t in make_inputs(2, 1, 3, 5, 3))
    torch.library.opcheck(_forward, (x, weight, bias, True))
    sliced = x.detach()[..., :4].requires_grad_()
    torch.library.opcheck(_forward, (sliced, weight.detach()[:, 1:], None, False))


@on_device
def test_misfits_are_refused():
    x, weight, bias = make_inputs(2, 1, 3, 5, 3)
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


if not INTERPRETED:

    @pytest.mark.gpu
    def test_a_layer_gives_the_same_on_both_devices():
        torch.manual_seed(5)
        layer, x = ShortConv(48, taps=3, silu=True), torch.randn(1, 4, 33, 48)
        expected = layer(x)
        assert_close(layer.cuda()(x.cuda()).cpu(), expected)

    @pytest.mark.gpu
    def test_the_same_inputs_give_the_same_bits():
        inputs = make_inputs(4, 512, 64, 384, 4, dtype=torch.bfloat16)
        for x, y in zip(kernel_results(inputs, True), kernel_results(inputs, True), strict=True):
            assert torch.equal(x, y)

    @pytest.mark.gpu
    def test_a_run_gives_the_same_alone():
        inputs = make_inputs(3, 64, 65, 48, 4, dtype=torch.bfloat16)
        x, weight, bias = (t.requires_grad_() for t in inputs)
        y = kernel(x, weight, bias, True)
        packed = [y, *torch.autograd.grad(y, inputs, x.detach())]
        y = kernel(x[1:2], weight[1:2], bias[1:2], True)
        alone = [y, *torch.autograd.grad(y, inputs, x.detach()[1:2])]
        assert torch.equal(packed[0][1], alone[0][0]) and torch.equal(packed[1][1], alone[1][1])
        for of_pack, of_run in zip(packed[2:], alone[2:], strict=True):
            assert_close(of_pack[1], of_run[1])

    @pytest.mark.gpu
    def test_kernel_replays_from_a_cuda_graph():
        inputs = [t.requires_grad_() for t in make_inputs(2, 4, 33, 48, 4, dtype=torch.bfloat16)]

        def step():
            y = kernel(*inputs, True)
            return [y.detach(), *torch.autograd.grad(y, inputs, torch.ones_like(y))]

        expected = step()  # compiles outside of the capture
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = step()
        for x in captured:
            x.zero_()
        graph.replay()
        assert all(torch.equal(x, y) for x, y in zip(expected, captured, strict=True))

    @pytest.mark.gpu
    def test_tensors_of_more_than_two_to_the_31_numbers():
        R, B, L, C, T = 2, 60_000, 64, 384, 4
        _, weight, bias = make_inputs(R, 1, L, C, T)
        x = torch.zeros(R, B, L, C, device=DEVICE, dtype=torch.bfloat16)
        x[-1, -3:].normal_()
        y = kernel(x.requires_grad_(), weight, bias, True)
        (dx,) = torch.autograd.grad(y, x, x.detach())
        last = x.detach()[-1:, -3:].double().requires_grad_()
        exact = causal_conv_reference(last, weight[-1:].double(), bias[-1:].double(), True)
        (exact_dx,) = torch.autograd.grad(exact, last, last.detach())
        assert_near([y[-1:, -3:], dx[-1:, -3:]], [exact.detach(), exact_dx])

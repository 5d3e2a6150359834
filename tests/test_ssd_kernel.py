"""Mamba2's SSD and gated norm: Triton kernels against the definitions in float64.

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
from test_sequence_kernels import (
    DEVICE,
    INTERPRETED,
    TOLERANCE,
    assert_near,
    dtypes,
    kernel_results,
    on_device,
    results,
)
from torch.testing import assert_close

from zoorecall.mixers.mamba2 import Mamba2, Mamba2Config
from zoorecall.ops.gated_norm import gated_rms_norm
from zoorecall.ops.ssd import ssd_recurrent, ssd_with_skip

# R, B, L, H, G, P, N: lengths, head dims and states below, at and above powers of two
SSD_SIZES = [(3, 2, 13, 2, 1, 16, 32), (2, 1, 33, 3, 1, 10, 24), (2, 1, 33, 3, 3, 10, 24)]
SSD_SIZES += [(1, 2, 64, 4, 2, 40, 5), (2, 1, 100, 2, 1, 5, 33)]
# R, B, L, E, G: rows of one program and of several, with and without a rest
NORM_SIZES = [(3, 2, 1, 16, 1), (2, 3, 13, 30, 3), (2, 1, 33, 48, 2), (1, 2, 5, 200, 1)]
if not INTERPRETED:
    SSD_SIZES += [(17, 64, 64, 2, 1, 64, 128), (2, 33, 64, 2, 2, 128, 128)]
    SSD_SIZES += [(4, 31, 128, 2, 1, 64, 64), (3, 65, 32, 4, 2, 16, 16), (5, 7, 16, 8, 1, 32, 64)]
    NORM_SIZES += [(17, 64, 64, 128, 1), (3, 7, 100, 1000, 2), (2, 3, 5, 4096, 1)]

SSD_NAMES = ["y", "xBC", "dt", "A", "D"]
NORM_NAMES = ["out", "y", "z", "weight"]

if INTERPRETED:
    from test_sequence_kernels import bfloat16_as_on_a_gpu  # noqa: F401

    @pytest.fixture(autouse=True)
    def small_tiles(monkeypatch):
        """Few rows a program of the norm, so that small tensors need several."""
        from zoorecall.ops import gated_norm_triton

        monkeypatch.setattr(gated_norm_triton, "NUMBERS", 128)
        monkeypatch.setattr(gated_norm_triton, "TILES", 3)

else:

    def test_the_kernels_hold_in_the_interpreter():
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
        environment = {**os.environ, "TRITON_INTERPRET": "1"}
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr


def scan(*inputs, G, N):
    from zoorecall.ops.ssd_triton import ssd_triton

    return ssd_triton(*inputs, G, N)


def norm(*inputs, G):
    from zoorecall.ops.gated_norm_triton import gated_rms_norm_triton

    return gated_rms_norm_triton(*inputs, G)


def ssd_inputs(R, B, L, H, G, P, N, dtype=torch.float32, device=DEVICE):
    torch.manual_seed(1)
    xBC = torch.randn(R, B, L, H * P + 2 * G * N).to(device, dtype)
    dt, A, D = torch.rand(R, B, L, H), -4 * torch.rand(R, H), torch.randn(R, H)
    return [xBC, *(x.to(device) for x in (dt, A, D))]


def norm_inputs(R, B, L, E, dtype=torch.float32, device=DEVICE):
    torch.manual_seed(2)
    y, z = (torch.randn(R, B, L, E).to(device, dtype) for _ in range(2))
    return [y, z, torch.randn(R, E).to(device)]


def recurrent(xBC, dt, A, D, G, N):
    """The skip and SSD, a head after the other."""
    H = D.shape[1]
    x, B, C = xBC.split([xBC.shape[-1] - 2 * G * N, G * N, G * N], dim=-1)
    heads = []
    for h, x_h in enumerate(x.chunk(H, dim=-1)):
        B_h, C_h = (t.chunk(G, dim=-1)[h // (H // G)].unsqueeze(-2) for t in (B, C))
        y = ssd_recurrent(x_h.unsqueeze(-2), dt[..., h : h + 1], A[:, h : h + 1], B_h, C_h)
        heads.append(y.squeeze(-2) + D[:, h, None, None, None] * x_h)
    return torch.cat(heads, dim=-1)


def norm_by_group(y, z, weight, G):
    """The gated norm, a group after the other."""
    outputs = []
    for y_g, z_g, w in zip(*(t.chunk(G, dim=-1) for t in (y, z, weight)), strict=True):
        gated = y_g * z_g / (1 + torch.exp(-z_g))
        scale = (gated.square().mean(-1, keepdim=True) + 1e-5) ** -0.5
        outputs.append(gated * scale * w[:, None, None])
    return torch.cat(outputs, dim=-1)


def cases():
    """Both kernels, each with something small to do."""
    return [
        (partial(scan, G=2, N=7), ssd_inputs(3, 1, 17, 4, 2, 5, 7)),
        (partial(norm, G=2), norm_inputs(3, 1, 17, 10)),
    ]


def test_plain_forms_and_gradients_equal_the_loops():
    inputs = [x.double() for x in ssd_inputs(3, 2, 13, 6, 2, 7, 5, device="cpu")]
    expected = results(partial(recurrent, G=2, N=5), inputs)
    assert_close(results(partial(ssd_with_skip, num_groups=2, d_state=5), inputs), expected)
    inputs = [x.double() for x in norm_inputs(3, 2, 13, 30, device="cpu")]
    expected = results(partial(norm_by_group, G=3), inputs)
    assert_close(results(partial(gated_rms_norm, num_groups=3), inputs), expected)


@pytest.mark.parametrize("heads", [3, 8])
def test_two_products_give_what_one_does(heads):
    config = Mamba2Config(headdim=24 // heads, d_state=5)
    mixer = Mamba2(config, 12, 13, 2).double()
    x = torch.randn(1, 2, 13, 12, dtype=torch.float64)

    def project(x, weight, apart):
        parts = torch.func.functional_call(mixer, {"in_proj.weight": weight}, (x, apart))
        return torch.cat(parts, dim=-1)

    mixer.forward = mixer.project
    inputs = [x, mixer.in_proj.weight.detach()]
    expected = results(partial(project, apart=False), inputs)
    assert_close(results(partial(project, apart=True), inputs), expected)
    parts = mixer.project(x, apart=True)
    assert [t.shape[-1] for t in parts] == [24, 34, heads]
    assert parts[0].stride(2) % 8 == 0  # 16 bytes of bfloat16


@on_device
@dtypes
@pytest.mark.parametrize("sizes", SSD_SIZES)
def test_ssd_and_gradients_equal_the_recurrence(sizes, dtype):
    G, N = sizes[4], sizes[6]
    inputs = ssd_inputs(*sizes, dtype=dtype)
    actual = kernel_results(partial(scan, G=G, N=N), inputs)
    assert [x.dtype for x in actual] == [dtype, *(x.dtype for x in inputs)]
    expected = results(partial(recurrent, G=G, N=N), inputs, torch.float64)
    # much cancels in the gradient of A, a sum over all positions
    tolerance = max(TOLERANCE[dtype], 1e-4)
    assert_near(actual, expected, SSD_NAMES, tolerance)


@on_device
@dtypes
@pytest.mark.parametrize("sizes", NORM_SIZES)
def test_gated_norm_and_gradients_equal_the_definition(sizes, dtype):
    *sizes, G = sizes
    inputs = norm_inputs(*sizes, dtype=dtype)
    actual = kernel_results(partial(norm, G=G), inputs)
    assert [x.dtype for x in actual] == [dtype, *(x.dtype for x in inputs)]
    expected = results(partial(norm_by_group, G=G), inputs, torch.float64)
    assert_near(actual, expected, NORM_NAMES, TOLERANCE[dtype])


@on_device
@pytest.mark.parametrize("scale", [0.0, 1e3])
def test_steps_that_do_nothing_or_forget_everything_leave_finite_gradients(scale):
    xBC, dt, A, D = ssd_inputs(2, 1, 33, 2, 1, 5, 7)
    inputs = [xBC, scale * dt, A, D]
    actual = kernel_results(partial(scan, G=1, N=7), inputs)
    expected = results(partial(recurrent, G=1, N=7), inputs, torch.float64)
    # the sums of steps are so large that little of a decay between neighbours is left
    assert_near(actual[:2], expected[:2], SSD_NAMES[:2], 1e-3)
    assert all(x.isfinite().all() for x in actual)


@on_device
@pytest.mark.filterwarnings("ignore:overflow")  # the interpreter's, of numpy
def test_large_gates_saturate_as_silu_does():
    y, z, weight = norm_inputs(2, 1, 5, 6)
    inputs = [y, 1e3 * z, weight]
    expected = results(partial(gated_rms_norm, num_groups=1), inputs, torch.float64)
    assert_near(kernel_results(partial(norm, G=1), inputs), expected, NORM_NAMES, 2e-5)


@on_device
def test_later_positions_do_not_reach_earlier_outputs():
    for function, inputs in cases():
        changed = [torch.cat([x[:, :, :9], x[:, :, 9:].flip(2)], 2) for x in inputs[:2]]
        y, other = function(*inputs), function(*changed, *inputs[2:])
        assert torch.equal(y[:, :, :9], other[:, :, :9])
        assert not torch.equal(y[:, :, 9:], other[:, :, 9:])


@on_device
@pytest.mark.filterwarnings("ignore:invalid value")  # numpy's
def test_a_run_of_nan_leaves_its_neighbours_untouched():
    for function, inputs in cases():
        clean = kernel_results(function, inputs)
        for x in inputs:
            x[1] = torch.nan
        diverged = kernel_results(function, inputs)
        for x, other in zip(clean, diverged, strict=True):
            assert torch.equal(x[::2], other[::2])
            assert other[1].isnan().all()


@on_device
def test_inputs_of_any_layout_give_the_same():
    def sliced(x):  # from a wider tensor
        return F.pad(x, (3, 2), value=torch.nan)[..., 3:-2]

    def features_first(x):
        return x.movedim(-1, 0).contiguous().movedim(0, -1)

    for function, inputs in cases():
        expected = kernel_results(function, inputs)
        for layout in (sliced, features_first):
            others = [layout(x) for x in inputs]
            assert not any(x.is_contiguous() for x in others)
            form = lambda *inputs, f=function, to=layout: f(*map(to, inputs))  # noqa: E731
            for x, other in zip(kernel_results(form, inputs), expected, strict=True):
                assert torch.equal(x, other)


@on_device
def test_kernels_compile_without_a_graph_break():
    backend = "aot_eager" if INTERPRETED else "inductor"
    for function, inputs in cases():

        def of_parts(x, *others, f=function):
            return f((2 * F.pad(x, (1, 0)))[..., 1:], *others)

        # dynamic=False, or the second function would be compiled for any shape, which takes minutes
        compiled = torch.compile(of_parts, backend=backend, fullgraph=True, dynamic=False)
        expected = kernel_results(of_parts, inputs)
        for x, other in zip(expected, kernel_results(compiled, inputs), strict=True):
            assert_close(x, other)


@on_device
def test_operators_are_registered_as_torch_expects():
    from zoorecall.ops import gated_norm_triton, ssd_triton

    inputs = [x.requires_grad_() for x in ssd_inputs(2, 1, 5, 4, 2, 3, 6)]
    torch.library.opcheck(ssd_triton._forward, (*inputs, 2, 6, False))
    y, z, weight = (x.requires_grad_() for x in norm_inputs(2, 1, 5, 6))
    torch.library.opcheck(gated_norm_triton._forward, (y, z, weight, 2, 1e-5))


@on_device
def test_misfits_are_refused():
    xBC, *others = ssd_inputs(2, 1, 5, 4, 2, 3, 6)
    with pytest.raises(ValueError, match="not 3 groups"):
        scan(xBC, *others, G=3, N=6)
    with pytest.raises(ValueError, match="of state 9"):
        scan(xBC, *others, G=2, N=9)
    with pytest.raises(ValueError, match="not 2 groups"):
        scan(xBC[:, :, :3], *others, G=2, N=6)
    with pytest.raises(ValueError, match="must be float32"):
        scan(xBC, others[0].bfloat16(), *others[1:], G=2, N=6)
    with pytest.raises(ValueError, match="float16"):
        scan(xBC.half(), *others, G=2, N=6)
    with pytest.raises(ValueError, match="length 129"):
        scan(*ssd_inputs(1, 1, 129, 1, 1, 5, 6), G=1, N=6)
    y, z, weight = norm_inputs(2, 1, 5, 6)
    with pytest.raises(ValueError, match="4 groups do not fit"):
        norm(y, z, weight, G=4)
    with pytest.raises(ValueError, match="do not fit"):
        norm(y, z[..., 1:], weight, G=1)
    with pytest.raises(ValueError, match="bfloat16"):
        norm(y, z.bfloat16(), weight, G=1)
    with pytest.raises(ValueError, match="4097 channels"):
        norm(*norm_inputs(1, 1, 1, 4097), G=1)


if not INTERPRETED:

    @pytest.mark.gpu
    @pytest.mark.parametrize("P, N", [(64, 128), (128, 128)])
    def test_ssd_of_wide_heads_and_states_equals_the_recurrence(P, N):
        """In bfloat16 alone: in float32 these are too large."""
        inputs = ssd_inputs(2, 31, 128, 2, 1, P, N, dtype=torch.bfloat16)
        expected = results(partial(recurrent, G=1, N=N), inputs, torch.float64)
        assert_near(kernel_results(partial(scan, G=1, N=N), inputs), expected, SSD_NAMES, 1e-2)

    @pytest.mark.gpu
    def test_ssd_in_tf32_is_near_the_recurrence():
        from zoorecall.ops.ssd_triton import ssd_triton

        inputs = ssd_inputs(3, 5, 64, 2, 1, 64, 128)
        function = partial(ssd_triton, num_groups=1, d_state=128, allow_tf32=True)
        expected = results(partial(recurrent, G=1, N=128), inputs, torch.float64)
        assert_near(kernel_results(function, inputs), expected, SSD_NAMES, 1e-2)

    @pytest.mark.gpu
    @pytest.mark.parametrize("length", [33, 64, 130])
    def test_a_layer_gives_the_same_on_both_devices(length):
        torch.manual_seed(3)
        layer = Mamba2(Mamba2Config(d_state=16, headdim=16), 32, length, 2)
        x = torch.randn(1, 4, length, 32)
        expected = results(layer.forward, [x])
        actual = results(layer.cuda().forward, [x.cuda()])
        for ours, exact in zip(actual, expected, strict=True):
            assert_close(ours.cpu(), exact, rtol=1e-3, atol=1e-4)

    def gpu_cases():
        bf16 = torch.bfloat16
        return [
            (partial(scan, G=1, N=128), ssd_inputs(17, 31, 64, 2, 1, 64, 128, bf16)),
            (partial(scan, G=1, N=128), ssd_inputs(3, 31, 128, 2, 1, 64, 128, bf16)),
            (partial(norm, G=1), norm_inputs(17, 31, 64, 128, bf16)),
        ]

    @pytest.mark.gpu
    def test_the_same_inputs_give_the_same_bits():
        for function, inputs in gpu_cases():
            first, second = kernel_results(function, inputs), kernel_results(function, inputs)
            assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))

    @pytest.mark.gpu
    def test_kernels_replay_from_a_cuda_graph():
        for function, inputs in gpu_cases():
            inputs = [x.requires_grad_() for x in inputs]

            def step(function=function, inputs=inputs):
                y = function(*inputs)
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

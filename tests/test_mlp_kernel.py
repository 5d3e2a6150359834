"""A layer's MLP with its norm and residual: the plain form against torch's modules, the Triton
kernels against the plain form in float64.

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
from conftest import small_run
from torch import nn
from torch.testing import assert_close

from zoorecall.model import Layer, Pack
from zoorecall.ops.mlp import mlp_reference

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
EPS = 1e-3
# norm of the error by norm of the float64 result of the same inputs
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 1e-2}

# R, T, D, F: one block of tokens and several with a rest, several programs of the weight gradients;
# widths and hidden widths below, at and above powers of two
SIZES = [(3, 37, 24, 56), (2, 270, 16, 64), (1, 64, 40, 130), (2, 5, 64, 9)]
WIDE = [(2, 70, 128, 96), (1, 19, 100, 40)]  # of bfloat16 alone
if not INTERPRETED:
    SIZES += [(17, 2048, 64, 256), (3, 4111, 32, 128), (2, 999, 48, 192), (1, 131072, 64, 256)]
    WIDE += [(5, 2048, 128, 512), (3, 999, 96, 384)]
CASES = [(sizes, dtype) for sizes in SIZES for dtype in (torch.float32, torch.bfloat16)]
CASES += [(sizes, torch.bfloat16) for sizes in WIDE]
NAMES = ["y", "x", "norm_weight", "norm_bias", "w1", "b1", "w2", "b2"]


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


def kernel(*inputs):
    from zoorecall.ops.mlp_triton import mlp_triton

    return mlp_triton(*inputs, EPS)


reference = partial(mlp_reference, eps=EPS)


def make_inputs(R, T, D, F, dtype=torch.float32, device=DEVICE):
    """x with a mean and a scale of its own in every row, and parameters of which none is zero."""
    torch.manual_seed(1)
    x = torch.randn(R, T, D) * (0.1 + torch.rand(R, T, 1)) + torch.randn(R, T, 1)
    norm = (1 + 0.3 * torch.randn(R, D), 0.5 * torch.randn(R, D))
    first = (1.5 * torch.randn(R, F, D) / D**0.5, torch.randn(R, F))
    second = (torch.randn(R, D, F) / F**0.5, torch.randn(R, D))
    return [x.to(device, dtype), *(p.to(device) for p in (*norm, *first, *second))]


def results(function, inputs, dtype=None):
    """A function's output and the gradients of its inputs, under the same cotangent always."""
    inputs = [x.detach().to(dtype or x.dtype).requires_grad_() for x in inputs]
    y = function(*inputs)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).bfloat16()
    return [y.detach(), *torch.autograd.grad(y, inputs, dy.to(y))]


def kernel_results(function, inputs):
    """`results` while fresh memory holds NaN, which shows what a kernel forgot to write."""
    torch.use_deterministic_algorithms(True)
    try:
        return results(function, inputs)
    finally:
        torch.use_deterministic_algorithms(False)


def assert_near(actual, expected, tolerance):
    for name, x, exact in zip(NAMES, actual, expected, strict=True):
        for run, (a, b) in enumerate(zip(x, exact, strict=True)):
            assert (a - b).norm() <= tolerance * b.norm(), f"{name} of run {run}"


def test_the_plain_form_equals_torchs_modules_of_each_run():
    inputs = [x.double() for x in make_inputs(3, 11, 6, 10, device="cpu")]
    actual = results(reference, inputs)
    for r in range(3):
        x, *parameters = (p[r].clone().requires_grad_() for p in inputs)
        norm, first, second = nn.LayerNorm(6, eps=EPS), nn.Linear(6, 10), nn.Linear(10, 6)
        modules = nn.Sequential(norm, first, nn.GELU(), second).double()
        for theirs, ours in zip(modules.parameters(), parameters, strict=True):
            theirs.data = ours.detach()
        y = x + modules(x)
        dy = torch.randn(3, 11, 6, generator=torch.Generator().manual_seed(2)).bfloat16()
        grads = torch.autograd.grad(y, [x, *modules.parameters()], dy[r].to(y))
        assert_close([t[r] for t in actual], [y.detach(), *grads])


def test_a_layer_is_a_mixer_and_an_mlp_each_behind_a_norm_on_a_residual_stream():
    pack = Pack([small_run(seed=seed) for seed in (1, 2, 3)], torch.device("cpu"))
    layer = pack.model.layers[0].double()
    assert isinstance(layer, Layer)
    for name, p in layer.named_parameters():
        p.data = torch.randn_like(p) / (1 if "norm" in name else 4)
    x = torch.randn(3, 2, 12, 16, dtype=torch.float64, requires_grad=True)
    positions = torch.tensor([3, 7, 11]).expand(3, 2, 3)
    wanted = [x, *layer.parameters()]

    def by_hand():
        mixed = x + layer.mixer(layer.mixer_norm(x))
        return mixed + layer.mlp.fc2(F.gelu(layer.mlp.fc1(layer.mlp_norm(mixed))))

    for y, expected in [
        (layer(x), by_hand()),
        (layer(x, positions), by_hand()[:, :, positions[0, 0]]),
    ]:
        assert_close(y, expected)
        dy = torch.cos(expected.detach())
        grads = torch.autograd.grad(y, wanted, dy)
        assert_close(grads, torch.autograd.grad(expected, wanted, dy))


@on_device
@pytest.mark.parametrize("sizes, dtype", CASES)
def test_output_and_gradients_equal_the_plain_form(sizes, dtype):
    inputs = make_inputs(*sizes, dtype=dtype)
    actual = kernel_results(kernel, inputs)
    assert [x.dtype for x in actual] == [dtype, dtype] + [torch.float32] * 6
    expected = results(reference, inputs, torch.float64)
    assert_near(actual, expected, TOLERANCE[dtype])


@on_device
def test_gelu_is_exact_from_deep_in_its_tail_to_far_above():
    D = 16
    x = torch.zeros(1, 1001, D, device=DEVICE)
    x[..., 0] = torch.linspace(-9, 9, 1001)
    x[..., 1] = -x[..., 0]
    scale = (x.square().mean(-1, keepdim=True) + EPS).sqrt()
    zeros, ones = torch.zeros(1, D, device=DEVICE), torch.ones(1, D, device=DEVICE)
    # one hidden feature, the first of the normed x, which is read into an output of its own
    w1, w2 = torch.zeros(1, 1, D, device=DEVICE), torch.zeros(1, D, 1, device=DEVICE)
    w1[..., 0], w2[:, 5] = 1, 1
    for sharpness in (1.0, 4.0):
        y = kernel(x, ones, zeros, w1 * sharpness, zeros[:, :1], w2, zeros)[0, :, 5]
        h = sharpness * (x / scale)[0, :, 0]
        assert_close(y.double(), F.gelu(h.double()), rtol=5e-6, atol=1e-6)


@on_device
@pytest.mark.filterwarnings("ignore:invalid value")  # numpy's
@pytest.mark.parametrize("which", [0, 1, 3])
def test_a_run_of_nan_leaves_its_neighbours_untouched(which):
    inputs = make_inputs(3, 17, 8, 20)
    clean = kernel_results(kernel, inputs)
    inputs[which][1] = torch.nan
    diverged = kernel_results(kernel, inputs)
    for x, other in zip(clean, diverged, strict=True):
        assert torch.equal(x[::2], other[::2])
    assert diverged[0][1].isnan().all()


@on_device
def test_inputs_of_any_layout_give_the_same():
    inputs = make_inputs(2, 19, 8, 20)
    expected = kernel_results(kernel, inputs)

    def in_a_pack(x, *parameters):  # as views of one tensor, with gaps between the runs
        flat = torch.cat([p.flatten(1) for p in parameters], 1)
        parts = flat.split([p[0].numel() for p in parameters], 1)
        return kernel(x, *(part.view(p.shape) for part, p in zip(parts, parameters, strict=True)))

    def strided(*inputs):
        return kernel(*(x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs))

    for form in (in_a_pack, strided):
        for x, other in zip(expected, kernel_results(form, inputs), strict=True):
            assert torch.equal(x, other)


@on_device
def test_the_same_inputs_give_the_same_bits():
    inputs = make_inputs(*SIZES[1], dtype=torch.bfloat16)
    for x, other in zip(
        kernel_results(kernel, inputs), kernel_results(kernel, inputs), strict=True
    ):
        assert torch.equal(x, other)


@on_device
def test_kernels_compile_without_a_graph_break():
    backend = "aot_eager" if INTERPRETED else "inductor"
    inputs = make_inputs(2, 19, 8, 20)

    def of_double(x, *parameters):
        return kernel(2 * x, *parameters)

    compiled = torch.compile(of_double, backend=backend, fullgraph=True)
    expected = kernel_results(of_double, inputs)
    for x, other in zip(expected, kernel_results(compiled, inputs), strict=True):
        assert_close(x, other)


@on_device
def test_operators_are_registered_as_torch_expects():
    from zoorecall.ops import mlp_triton

    inputs = [x.requires_grad_() for x in make_inputs(2, 5, 8, 12)]
    torch.library.opcheck(mlp_triton._forward, (*inputs, EPS, False))


if not INTERPRETED:

    @pytest.mark.gpu
    def test_float32_in_tf32_is_near_the_plain_form():
        from zoorecall.ops.mlp_triton import mlp_triton

        inputs = make_inputs(3, 999, 64, 256)
        function = partial(mlp_triton, eps=EPS, allow_tf32=True)
        expected = results(reference, inputs, torch.float64)
        assert_near(kernel_results(function, inputs), expected, 1e-2)

    @pytest.mark.gpu
    def test_kernels_replay_from_a_cuda_graph():
        inputs = make_inputs(3, 999, 64, 256, dtype=torch.bfloat16)
        inputs = [x.requires_grad_() for x in inputs]

        def step():
            y = kernel(*inputs)
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
    def test_a_layer_on_a_gpu_is_near_its_plain_form():
        pack = Pack([small_run(seed=seed) for seed in (1, 2, 3)], torch.device("cuda"))
        layer = pack.model.layers[0]
        x = torch.randn(3, 5, 12, 16, device="cuda")
        assert_close(layer(x).double(), layer.double()(x.double()), rtol=1e-4, atol=1e-4)


@on_device
def test_misfits_are_refused():
    from zoorecall.ops.mlp_triton import fits

    inputs = make_inputs(2, 3, 8, 12)
    with pytest.raises(ValueError, match="does not fit"):
        kernel(*inputs[:3], inputs[3].mT, *inputs[4:])
    with pytest.raises(ValueError, match="must be float32"):
        kernel(*inputs[:3], inputs[3].bfloat16(), *inputs[4:])
    with pytest.raises(ValueError, match="no kernel for width 65"):
        kernel(*make_inputs(1, 2, 65, 3))
    assert fits(torch.bfloat16, 128) and fits(torch.float32, 64)
    assert not fits(torch.bfloat16, 129) and not fits(torch.float16, 16)
    assert not fits(torch.float64, 16)

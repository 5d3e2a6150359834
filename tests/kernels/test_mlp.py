"""A layer's MLP with its norm and residual: the plain form against torch's modules, the kernels
against the plain form in float64.
"""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from conftest import small_run
from torch import nn
from torch.testing import assert_close

from zoorecall.model.blocks import Layer
from zoorecall.model.pack import Pack
from zoorecall.ops.mlp.reference import mlp_reference

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

EPS = 1e-3
NAMES = ["y", "x", "norm_weight", "norm_bias", "w1", "b1", "w2", "b2"]

# R, T, D, F: one block of tokens and several with a rest, several programs of the weight gradients;
# widths and hidden widths below, at and above powers of two
SIZES = [(3, 37, 24, 56), (2, 270, 16, 64), (1, 64, 40, 130), (2, 5, 64, 9)]
LARGE_SIZES = [(17, 2048, 64, 256), (3, 4111, 32, 128), (2, 999, 48, 192), (1, 131072, 64, 256)]
# of bfloat16 alone
WIDE = [(2, 70, 128, 96), (1, 19, 100, 40)]
LARGE_WIDE = [(5, 2048, 128, 512), (3, 999, 96, 384)]

definition = partial(mlp_reference, eps=EPS)


def make_inputs(R, T, D, F, dtype=torch.float32, device=DEVICE):
    """x with a mean and a scale of its own in every row, and parameters of which none is zero."""
    torch.manual_seed(1)
    x = torch.randn(R, T, D) * (0.1 + torch.rand(R, T, 1)) + torch.randn(R, T, 1)
    norm = (1 + 0.3 * torch.randn(R, D), 0.5 * torch.randn(R, D))
    first = (1.5 * torch.randn(R, F, D) / D**0.5, torch.randn(R, F))
    second = (torch.randn(R, D, F) / F**0.5, torch.randn(R, D))
    return [x.to(device, dtype), *(p.to(device) for p in (*norm, *first, *second))]


def case(R, T, D, F, dtype=torch.float32):
    from zoorecall.ops.mlp.triton import mlp_triton

    return Case(partial(mlp_triton, eps=EPS), definition, make_inputs(R, T, D, F, dtype))


SMALL = {"mlp": partial(case, T=17, D=8, F=20)}
LARGE = {"mlp": partial(case, 3, 999, 64, 256, dtype=torch.bfloat16)}


def test_the_plain_form_equals_torchs_modules_of_each_run():
    inputs = [x.double() for x in make_inputs(3, 11, 6, 10, device="cpu")]
    dy = torch.randn(3, 11, 6, dtype=torch.float64)
    ours = [x.clone().requires_grad_() for x in inputs]
    y = definition(*ours)
    actual = [y, *torch.autograd.grad(y, ours, dy)]
    for r in range(3):
        x, *parameters = (p[r].clone().requires_grad_() for p in inputs)
        norm, first, second = nn.LayerNorm(6, eps=EPS), nn.Linear(6, 10), nn.Linear(10, 6)
        modules = nn.Sequential(norm, first, nn.GELU(), second).double()
        for theirs, our in zip(modules.parameters(), parameters, strict=True):
            theirs.data = our.detach()
        y = x + modules(x)
        grads = torch.autograd.grad(y, [x, *modules.parameters()], dy[r])
        assert_close([t[r] for t in actual], [y, *grads])


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
        mixed, block = x + layer.mixer(layer.sequence.norm(x)), layer.channel
        return mixed + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm(mixed))))

    for y, expected in [
        (layer(x), by_hand()),
        (layer(x, positions), by_hand()[:, :, positions[0, 0]]),
    ]:
        assert_close(y, expected)
        dy = torch.cos(expected.detach())
        grads = torch.autograd.grad(y, wanted, dy)
        assert_close(grads, torch.autograd.grad(expected, wanted, dy))


def assert_kernel_near_the_plain_form(sizes, dtype):
    kernel, definition, inputs = case(*sizes, dtype=dtype)
    actual = kernel_results(kernel, inputs)
    assert [x.dtype for x in actual] == [dtype, dtype] + [torch.float32] * 6
    expected = results(definition, inputs, torch.float64)
    assert_near(actual, expected, NAMES, TOLERANCE[dtype])


@on_device
@dtypes
@on_sizes(SIZES, LARGE_SIZES)
def test_output_and_gradients_equal_the_plain_form(sizes, dtype):
    assert_kernel_near_the_plain_form(sizes, dtype)


@on_device
@on_sizes(WIDE, LARGE_WIDE)
def test_wide_layers_in_bfloat16_equal_the_plain_form(sizes):
    assert_kernel_near_the_plain_form(sizes, torch.bfloat16)


@gpu
def test_float32_in_tf32_is_near_the_plain_form():
    kernel, definition, inputs = case(3, 999, 64, 256)
    expected = results(definition, inputs, torch.float64)
    assert_near(kernel_results(partial(kernel, allow_tf32=True), inputs), expected, NAMES, 1e-2)


@on_device
def test_gelu_is_exact_from_deep_in_its_tail_to_far_above():
    D = 16
    kernel = case(1, 1, D, 1).kernel
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
def test_inputs_of_any_layout_give_the_same():
    kernel, _, inputs = case(2, 19, 8, 20)
    expected = kernel_results(kernel, inputs)

    def in_a_pack(x, *parameters):  # as views of one tensor, with gaps between the runs
        flat = torch.cat([p.flatten(1) for p in parameters], 1)
        parts = flat.split([p[0].numel() for p in parameters], 1)
        return kernel(x, *(part.view(p.shape) for part, p in zip(parts, parameters, strict=True)))

    assert_same(kernel_results(in_a_pack, inputs), expected)
    assert_same(kernel_results(kernel, [strided(x) for x in inputs]), expected)


@on_device
def test_the_same_inputs_give_the_same_bits():
    kernel, _, inputs = case(*SIZES[1], dtype=torch.bfloat16)
    assert_same(kernel_results(kernel, inputs), kernel_results(kernel, inputs))


@on_device
def test_operator_is_registered_as_torch_expects():
    from zoorecall.ops.mlp.triton import _forward

    inputs = [x.requires_grad_() for x in make_inputs(2, 5, 8, 12)]
    torch.library.opcheck(_forward, (*inputs, EPS, False))


@gpu
def test_a_layer_on_a_gpu_is_near_its_plain_form():
    pack = Pack([small_run(seed=seed) for seed in (1, 2, 3)], torch.device("cuda"))
    layer = pack.model.layers[0]
    x = torch.randn(3, 5, 12, 16, device="cuda")
    assert_close(layer(x).double(), layer.double()(x.double()), rtol=1e-4, atol=1e-4)


@on_device
def test_misfits_are_refused():
    from zoorecall.ops.mlp.triton import fits

    kernel, _, inputs = case(2, 3, 8, 12)
    with pytest.raises(ValueError, match="does not fit"):
        kernel(*inputs[:3], inputs[3].mT, *inputs[4:])
    with pytest.raises(ValueError, match="must be float32"):
        kernel(*inputs[:3], inputs[3].bfloat16(), *inputs[4:])
    with pytest.raises(ValueError, match="no kernel for width 65"):
        kernel(*make_inputs(1, 2, 65, 3))
    assert fits(torch.bfloat16, 128) and fits(torch.float32, 64)
    assert not fits(torch.bfloat16, 129) and not fits(torch.float16, 16)
    assert not fits(torch.float64, 16)

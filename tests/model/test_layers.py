"""The primitives with a run axis against torch's own layers, one a run."""

import pytest
import torch
from torch import nn

from zoorecall.layers import Embedding, LayerNorm, Linear, RMSNorm, ShortConv
from zoorecall.ops.causal_conv.fast import causal_conv_in_place
from zoorecall.ops.causal_conv.reference import causal_conv_reference
from zoorecall.ops.embedding.fast import embedding_spread
from zoorecall.ops.embedding.reference import embedding_reference

R, B, L, D = 3, 2, 7, 5


def widen(layer: nn.Module, runs: int = R) -> nn.Module:
    """Give a layer of one run the parameters of several."""
    for parameter in layer.parameters():
        parameter.data = torch.randn(runs, *parameter.shape[1:], dtype=torch.float64)
    return layer


def copy_run(layer: nn.Module, r: int, into: nn.Module) -> nn.Module:
    into = into.double()
    for (_, ours), (_, theirs) in zip(
        layer.named_parameters(), into.named_parameters(), strict=True
    ):
        theirs.data = ours[r].detach().reshape(theirs.shape)
    return into


CASES = {
    "linear": (lambda: Linear(D, 4), lambda: nn.Linear(D, 4)),
    "linear without bias": (lambda: Linear(D, 4, bias=False), lambda: nn.Linear(D, 4, bias=False)),
    "layer norm": (lambda: LayerNorm(D), lambda: nn.LayerNorm(D)),
    "rms norm": (lambda: RMSNorm(D), lambda: nn.RMSNorm(D, eps=1e-5)),
}


@pytest.mark.parametrize("case", CASES)
def test_a_layer_of_many_runs_equals_torchs_layer_for_each(case):
    ours, theirs = CASES[case]
    layer = widen(ours())
    x = torch.randn(R, B, L, D, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    grad = torch.randn_like(y)
    y.backward(grad)
    for r in range(R):
        solo = copy_run(layer, r, theirs())
        x_run = x[r].detach().requires_grad_()
        y_run = solo(x_run)
        y_run.backward(grad[r])
        torch.testing.assert_close(y[r], y_run)
        torch.testing.assert_close(x.grad[r], x_run.grad)
        for ours_p, theirs_p in zip(layer.parameters(), solo.parameters(), strict=True):
            torch.testing.assert_close(ours_p.grad[r].reshape(theirs_p.shape), theirs_p.grad)


@pytest.mark.parametrize("taps", [2, 4, 9])
def test_short_conv_equals_torchs_padded_depthwise_conv(taps):
    layer = widen(ShortConv(D, taps))
    x = torch.randn(R, B, L, D, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    grad = torch.randn_like(y)
    y.backward(grad)
    for r in range(R):
        solo = copy_run(layer, r, nn.Conv1d(D, D, taps, groups=D, padding=taps - 1))
        x_run = x[r].detach().requires_grad_()
        y_run = solo(x_run.mT)[..., :L].mT
        y_run.backward(grad[r])
        torch.testing.assert_close(y[r], y_run)
        torch.testing.assert_close(x.grad[r], x_run.grad)
        torch.testing.assert_close(layer.weight.grad[r], solo.weight.grad[:, 0])
        torch.testing.assert_close(layer.bias.grad[r], solo.bias.grad)


@pytest.mark.parametrize("length", [1, 2, 7])
def test_the_fast_causal_conv_equals_its_reference(length):
    x = torch.randn(R, B, length, D, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(R, D, 4, dtype=torch.float64, requires_grad=True)
    outputs = []
    for conv in (causal_conv_in_place, causal_conv_reference):
        y = conv(x, weight)
        grads = torch.autograd.grad(y, (x, weight), torch.cos(y.detach()))
        outputs.append((y, *grads))
    for fast, slow in zip(*outputs, strict=True):
        torch.testing.assert_close(fast, slow)


def test_embedding_looks_up_each_run_in_its_own_table():
    layer = widen(Embedding(11, D))
    tokens = torch.randint(11, (R, B, L))
    y = layer(tokens)
    grad = torch.randn_like(y)
    y.backward(grad)
    for r in range(R):
        solo = copy_run(layer, r, nn.Embedding(11, D))
        y_run = solo(tokens[r])
        y_run.backward(grad[r])
        assert torch.equal(y[r], y_run)
        torch.testing.assert_close(layer.weight.grad[r], solo.weight.grad)


def test_the_gradient_that_spreads_the_filler_equals_the_plain_one():
    tokens = torch.randint(4, (R, B, L))
    table = torch.randn(R, 5, D, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(R, B, L, D, dtype=torch.float64)
    fast, slow = (
        torch.autograd.grad(lookup(tokens, table), table, grad)[0]
        for lookup in (embedding_spread, embedding_reference)
    )
    torch.testing.assert_close(fast, slow)


@pytest.mark.parametrize("taps_or_width", [4])
def test_initial_weights_follow_torchs_rule_and_std_that_of_gpt2(taps_or_width):
    torch.manual_seed(0)
    default, normal = Linear(400, 300), Linear(400, 300, std=0.02)
    bound = 400**-0.5
    assert default.weight.abs().max() <= bound and default.bias.abs().max() <= bound
    assert default.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert normal.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not normal.bias.any()
    conv = ShortConv(500, taps_or_width)
    assert 0.49 < conv.weight.abs().max() <= 0.5

"""`BasedLinearAttention` of flash-linear-attention: outputs, gradients; Zoology's weights."""

import math

import pytest
import torch
from conftest import gradients
from official_fla import Based as OfficialBased
from torch.testing import assert_close

from zoorecall.mixers.based import Based, BasedConfig
from zoorecall.ops.taylor_attention.fast import taylor_attention
from zoorecall.ops.taylor_attention.reference import (
    features,
    num_features,
    taylor_attention_recurrent,
)

STATE_SIZES = [
    ("based", {}, 1989, 1989),
    ("based", {"num_heads": 3, "feature_dim": 5}, 315, 315),
]


def inputs(R=3, B=2, L=13, H=5, K=4, V=7, dtype=torch.float64):
    shapes = (R, B, L, H, K), (R, B, L, H, K), (R, B, L, H, V)
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def make(num_runs=3, d_model=12, **options):
    """A pack and the official layers whose weights it holds."""
    mixer = Based(BasedConfig(**options), d_model, 13, 2).double()
    heads = options.get("num_heads", 1)
    sizes = {"num_heads": heads, "num_key_value_heads": heads}
    sizes["feature_dim"] = options.get("feature_dim", 16)
    officials = [OfficialBased(d_model, **sizes).double() for _ in range(num_runs)]
    for name, parameter in mixer.named_parameters():
        parameter.data = torch.stack([official_weight(o, name).detach() for o in officials])
    return mixer, officials


def official_weight(layer, name):
    names = [f"{part}_proj.weight" for part in ("qkv" if name == "qkv_proj.weight" else "o")]
    return torch.cat([layer.get_parameter(each) for each in names])


@pytest.mark.parametrize("length", [1, 2, 13, 64])
def test_parallel_form_is_the_recurrence(length):
    tensors = inputs(L=length)
    y, expected = taylor_attention(*tensors), taylor_attention_recurrent(*tensors)
    assert y.shape == (3, 2, length, 5, 7)
    assert_close(y, expected)
    assert_close(gradients(y, tensors), gradients(expected, tensors))


def test_features_multiply_to_the_polynomial():
    q, k = torch.randn(2, 9, 5, dtype=torch.float64)
    x = (q * k).sum(-1) / math.sqrt(5)
    assert_close((features(q) * features(k)).sum(-1), 1 + x + x**2 / 2)
    assert features(q).shape[-1] == num_features(5) == 21


def test_one_key_gets_nearly_all_of_its_query():
    # orthonormal keys of length 10: p(100 / 2) = 1301 for its own key and 1 for each other
    k = 10 * torch.eye(4, dtype=torch.float64)[None, None, :, None]
    v = torch.randn(1, 1, 4, 1, 3, dtype=torch.float64)
    y = taylor_attention(k, k, v)
    others = v.cumsum(2) - v
    assert_close(y, (1301 * v + others) / (1301 + torch.arange(4.0).view(4, 1, 1)))


@pytest.mark.parametrize("options", [{}, {"num_heads": 3, "feature_dim": 5}])
@pytest.mark.parametrize("num_runs", [1, 3])
def test_pack_is_the_official_layers(num_runs, options):
    mixer, officials = make(num_runs, **options)
    x = torch.randn(num_runs, 2, 13, 12, dtype=torch.float64, requires_grad=True)
    y = mixer(x)
    expected = torch.stack([o.forward_reference(x[r]) for r, o in enumerate(officials)])
    assert_close(y, expected)
    names = [name for name, _ in mixer.named_parameters()]
    ours = gradients(y, [x, *mixer.parameters()])
    weights = [o.get_parameter(f"{part}_proj.weight") for o in officials for part in "qkvo"]
    theirs = gradients(expected, [x, *weights])
    assert_close(ours[0], theirs[0])
    of_runs = [theirs[1 + 4 * r : 5 + 4 * r] for r in range(num_runs)]
    both = {"qkv_proj.weight": slice(3), "o_proj.weight": slice(3, 4)}
    for i, name in enumerate(names):
        assert_close(ours[1 + i], torch.stack([torch.cat(run[both[name]]) for run in of_runs]))


def test_initial_weights_follow_zoology():
    mixer = Based(BasedConfig(num_heads=4), 96, 13, 3)
    weights = dict(mixer.named_parameters())
    assert set(weights) == {"qkv_proj.weight", "o_proj.weight"}
    assert weights["qkv_proj.weight"].shape == (1, 4 * 16 * 2 + 96, 96)
    for weight in weights.values():
        assert_close(weight.std().item(), 0.02, rtol=0.05, atol=0)


def test_later_inputs_do_not_reach_earlier_outputs():
    mixer, _ = make()
    x = torch.randn(3, 2, 13, 12, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(mixer(x)[:, :, :9].sum(), x)
    assert grad[:, :, :9].abs().amin(dim=(0, 1, 3)).gt(0).all()
    assert grad[:, :, 9:].eq(0).all()


def test_flops_of_a_small_model_by_hand():
    mixer = Based(BasedConfig(num_heads=2, feature_dim=5), 6, 13, 2)
    # projections 6 -> 10 + 10 + 6 and 6 -> 6; 91 pairs of positions with 5 + 3 products in 2 heads
    assert mixer.flops(13) == 2 * 13 * (6 * 26 + 6 * 6) + 2 * 91 * 2 * 8
    assert mixer.flops(13, 4) == mixer.flops(13) - 2 * 9 * 6 * 6


def test_bf16_input_gives_bf16_output_near_float32_and_finite_gradients():
    mixer = Based(BasedConfig(num_heads=2), 12, 13, 2)
    for parameter in mixer.parameters():
        parameter.data *= 20
    x = torch.randn(1, 2, 13, 12)
    y, expected = mixer(x.bfloat16()), mixer(x)
    assert y.dtype == torch.bfloat16
    assert_close(y.float(), expected, rtol=0.1, atol=0.05 * expected.abs().max().item())
    y.float().square().mean().backward()
    for parameter in mixer.parameters():
        assert parameter.grad.dtype == torch.float32 and parameter.grad.isfinite().all()


def test_heads_that_do_not_fit_are_an_error():
    with pytest.raises(ValueError, match="d_model 12 is not a multiple of num_heads 5"):
        BasedConfig(num_heads=5).check(12)

"""torch.nn.MultiheadAttention and Conv1d: outputs, gradients; RoPE by complex phases."""

import math

import pytest
import torch
from conftest import gradients
from torch import nn
from torch.testing import assert_close

from zoorecall.mixers.attention import Attention, AttentionConfig, rotate

STATE_SIZES = [
    ("attention", {}, 120, 264),
    ("attention", {"num_heads": 3, "conv": "q", "conv_size": 2}, 132, 276),
    ("attention", {"num_heads": 2, "conv": "k", "conv_size": 3}, 144, 288),
    ("attention", {"conv": "v"}, 156, 300),
    ("attention", {"conv": "qk", "rope": True}, 192, 336),
    ("attention", {"num_heads": 3, "conv": "qv", "rope": True}, 192, 336),
    ("attention", {"conv": "kv", "conv_size": 9}, 312, 456),
    ("attention", {"num_heads": 3, "conv": "qkv", "conv_size": 3}, 192, 336),
    ("attention", {"num_heads": 2, "rope": True}, 120, 264),
]

CONVS = ["q", "k", "v", "qk", "qv", "kv", "qkv"]


def solo(**options):
    """A mixer of one run whose parameters are all far from special values."""
    mixer = Attention(AttentionConfig(**options), 12, 13, 2).double()
    for parameter in mixer.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return mixer


def pack(mixers, **options):
    packed = Attention(AttentionConfig(**options), 12, 13, 2).double()
    for name, parameter in packed.named_parameters():
        parameter.data = torch.cat([mixer.get_parameter(name).detach() for mixer in mixers])
    return packed


class TorchAttention(nn.Module):
    """torch's own modules with the weights of run `r` of a pack."""

    def __init__(self, mixer, r, num_heads):
        super().__init__()
        self.mha = nn.MultiheadAttention(12, num_heads, batch_first=True).double()
        self.mha.in_proj_weight.data = torch.cat([p.weight[r].detach() for p in mixer.in_proj])
        self.mha.in_proj_bias.data = torch.cat([p.bias[r].detach() for p in mixer.in_proj])
        self.mha.out_proj.weight.data = mixer.out_proj.weight[r].detach()
        self.mha.out_proj.bias.data = mixer.out_proj.bias[r].detach()
        self.convs = nn.ModuleDict()
        for branch, conv in mixer.convs.items():
            taps = conv.weight.shape[-1]
            own = nn.Conv1d(12, 12, taps, groups=12, padding=taps - 1).double()
            own.weight.data = conv.weight[r].detach().unsqueeze(1)
            own.bias.data = conv.bias[r].detach()
            self.convs[branch] = own

    def forward(self, x):
        L = x.shape[1]
        q, k, v = (
            self.convs[b](x.mT)[..., :L].mT if b in self.convs else x for b in ("q", "k", "v")
        )
        future = torch.ones(L, L, dtype=torch.bool).triu(1)
        return self.mha(q, k, v, attn_mask=future, need_weights=False)[0]

    def gradient_of(self, name):
        """The gradient under the name that our mixer has for the parameter."""
        part, *rest = name.split(".")
        if part == "in_proj":
            whole = self.mha.in_proj_weight if rest[1] == "weight" else self.mha.in_proj_bias
            return whole.grad.chunk(3)[int(rest[0])] if self.convs else whole.grad
        source = self.convs if part == "convs" else self.mha
        gradient = source.get_parameter(".".join(rest) if part == "convs" else name).grad
        return gradient.squeeze(1) if gradient.ndim == 3 else gradient


@pytest.mark.parametrize("num_heads", [1, 3])
@pytest.mark.parametrize("conv", ["", *CONVS])
def test_pack_is_torchs_attention_and_convolution_run_by_run(conv, num_heads):
    options = {"num_heads": num_heads, "conv": conv, "conv_size": 3}
    mixer = pack([solo(**options) for _ in range(3)], **options)
    torchs = [TorchAttention(mixer, r, num_heads) for r in range(3)]
    x = torch.randn(3, 2, 13, 12, dtype=torch.float64, requires_grad=True)
    y, expected = mixer(x), torch.stack([module(x[r]) for r, module in enumerate(torchs)])
    assert_close(y, expected)
    weight = torch.randn(y.shape, dtype=y.dtype)
    (y * weight).sum().backward()
    gradient_of_x, x.grad = x.grad, None
    (expected * weight).sum().backward()
    assert_close(gradient_of_x, x.grad)
    for name, parameter in mixer.named_parameters():
        assert_close(parameter.grad, torch.stack([m.gradient_of(name) for m in torchs]))


@pytest.mark.parametrize("options", [{}, {"conv": "kv"}, {"rope": True, "num_heads": 3}])
def test_pack_is_its_runs(options):
    mixers = [solo(**options) for _ in range(3)]
    packed = pack(mixers, **options)
    x = torch.randn(3, 2, 13, 12, dtype=torch.float64, requires_grad=True)
    y = packed(x)
    expected = torch.cat([mixer(x[r : r + 1]) for r, mixer in enumerate(mixers)])
    assert_close(y, expected)
    names = [name for name, _ in packed.named_parameters()]
    ours = gradients(y, [x, *packed.parameters()])
    theirs = gradients(expected, [x, *(m.get_parameter(n) for n in names for m in mixers)])
    assert_close(ours[0], theirs[0])
    for i in range(len(names)):
        assert_close(ours[1 + i], torch.cat(theirs[1 + 3 * i : 4 + 3 * i]))


def turn(x):
    """`rotate` for one head, [..., L, K]."""
    return rotate(x.reshape(1, -1, *x.shape[-2:]), num_heads=1).view_as(x)


def test_rope_multiplies_complex_numbers_by_a_phase():
    x = torch.randn(3, 13, 8, dtype=torch.float64)
    phases = torch.tensor(
        [[t * 10_000 ** (-2 * i / 8) for i in range(4)] for t in range(13)], dtype=torch.float64
    )
    turned = torch.complex(x[..., :4], x[..., 4:]) * torch.polar(torch.ones_like(phases), phases)
    # the angles are float32
    assert_close(turn(x), torch.cat([turned.real, turned.imag], -1), rtol=1e-5, atol=1e-5)


def test_rope_scores_depend_on_the_distance_alone():
    q, k = (torch.randn(8, dtype=torch.float64).expand(13, 8) for _ in range(2))
    scores = turn(q) @ turn(k).mT
    for distance in range(-12, 13):
        diagonal = scores.diagonal(distance)
        assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-5)
    assert scores[0].std() > 0.1


def test_rope_turns_queries_and_keys_and_not_values():
    mixer, plain = solo(rope=True, num_heads=2), solo(num_heads=2)
    plain.load_state_dict(mixer.state_dict())
    x = torch.randn(1, 2, 13, 12, dtype=torch.float64)
    assert_close(mixer(x)[:, :, 0], plain(x)[:, :, 0])  # the first position sees its value alone
    assert (mixer(x) - plain(x))[:, :, 1:].abs().amin(-1).gt(1e-4).all()
    reference = TorchAttention(mixer, 0, 2)
    q, k, v = (u.view(2, 13, 2, 6).transpose(1, 2) for u in mixer.in_proj[0](x)[0].chunk(3, -1))
    scores = (turn(q) @ turn(k).mT / math.sqrt(6)).masked_fill(
        torch.ones(13, 13, dtype=torch.bool).triu(1), -math.inf
    )
    y = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    assert_close(mixer(x)[0], reference.mha.out_proj(y))


@pytest.mark.parametrize("options", [{}, {"conv": "qkv"}, {"rope": True}])
def test_later_inputs_do_not_reach_earlier_outputs(options):
    mixer = solo(**options)
    x = torch.randn(1, 2, 13, 12, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(mixer(x)[:, :, :9].sum(), x)
    assert grad[:, :, :9].abs().amax(dim=(0, 1, 3)).gt(0).all()
    assert grad[:, :, 9:].eq(0).all()


def test_sequence_flops_count_the_causal_half_of_both_products():
    pairs = sum(t + 1 for t in range(13))
    assert solo(num_heads=3).sequence_flops(13) == 3 * pairs * (2 * 4 + 2 * 4)


def test_initial_weights_follow_gpt2():
    mixer = Attention(AttentionConfig(conv="k"), 96, 13, 3)
    for linear in mixer.in_proj:
        assert_close(linear.weight.std().item(), 0.02, rtol=0.1, atol=0)
        assert linear.bias.eq(0).all()
    assert_close(mixer.out_proj.weight.std().item(), 0.02 / math.sqrt(6), rtol=0.1, atol=0)
    assert mixer.out_proj.bias.eq(0).all()
    assert 0.45 < mixer.convs["k"].weight.abs().max() <= 0.5  # as torch.nn.Conv1d with 4 taps


def test_bf16_input_gives_bf16_output_near_float32_and_finite_gradients():
    mixer = solo(conv="qkv", rope=True).float()
    x = torch.randn(1, 2, 13, 12)
    y = mixer(x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert_close(y.float(), mixer(x), rtol=0.1, atol=0.2)
    y.float().square().mean().backward()
    for parameter in mixer.parameters():
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 5}, "d_model 12 is not a multiple of num_heads 5"),
        ({"num_heads": 4, "rope": True}, "rope needs an even head dim, not 3"),
    ],
)
def test_options_that_do_not_fit_the_width_are_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        AttentionConfig(**options).check(12)

"""Dropout on the embedding and on attention's weights: what is dropped, and on what that does not
depend."""

import pytest
import torch
from conftest import gradients, small_run
from made_up import whole_row
from torch.testing import assert_close

from zoorecall.config import RunConfig
from zoorecall.mixers.attention import Attention, rotate
from zoorecall.ops.dropout import WORDS, Dropped, dropout, mix
from zoorecall.results import load_results, write_shard
from zoorecall.training.trainer import PackTrainer

CPU = torch.device("cpu")


BOTH = pytest.mark.parametrize("option", ["embed_dropout", "attention_dropout"])


def dropping(rate: float, option: str = "embed_dropout", **settings) -> RunConfig:
    run = small_run(**settings)
    return run.model_copy(update={"model": run.model.model_copy(update={option: rate})})


def trained(runs, advances=3) -> PackTrainer:
    trainer = PackTrainer(runs, CPU)
    for _ in range(advances):
        trainer.advance()
    return trainer


def test_every_bit_of_a_mixed_word_depends_on_every_bit():
    words = torch.arange(0, WORDS, WORDS // 20_000)
    assert len(mix(words).unique()) == len(words) and mix(words).max() < WORDS
    for i in range(32):
        changed = mix(words) ^ mix(words ^ (1 << i))
        shares = torch.stack([(changed >> j & 1).double().mean() for j in range(32)])
        assert (shares - 0.5).abs().max() < 0.05, f"bit {i}"


def test_the_share_is_dropped_the_mean_kept_and_runs_drop_on_their_own():
    x = torch.ones(2, 50, 40, 16, dtype=torch.float64, requires_grad=True)
    y = dropout(x, 0.25, torch.tensor([7, 8]))
    kept = y != 0
    assert y[kept].unique().tolist() == [pytest.approx(4 / 3)]
    for one in kept.double():  # of 32,000 numbers, each place of a row and each row
        assert one.mean().item() == pytest.approx(0.75, abs=0.01)
        assert (one.mean((0, 1)) - 0.75).abs().max() < 0.04
        assert (one.mean((1, 2)) - 0.75).abs().max() < 0.08
    assert (kept[0] & kept[1]).double().mean().item() == pytest.approx(0.75**2, abs=0.01)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert_close(gradient, y.detach())


def test_bfloat16_stays_bfloat16():
    assert dropout(torch.ones(1, 3, dtype=torch.bfloat16), 0.5, torch.tensor([1])).dtype == (
        torch.bfloat16
    )


@BOTH
def test_what_a_run_drops_does_not_depend_on_its_pack(option):
    settings = [(1, 1e-3), (2, 1e-2)]
    runs = [dropping(0.3, option, seed=seed, learning_rate=rate) for seed, rate in settings]
    solo = torch.cat([trained([run]).pack.flat for run in runs])
    assert_close(trained(runs).pack.flat, solo, rtol=1e-3, atol=1e-5)
    undropped = torch.cat([trained([dropping(0.0, option, seed=s)]).pack.flat for s in (1, 2)])
    assert not torch.allclose(solo, undropped, rtol=1e-3, atol=1e-5)


@BOTH
def test_every_step_drops_others(option):
    trainer = trained([dropping(0.5, option)], 1)
    batch = trainer.feed.batch()
    losses = []
    for step in (0, 1, 0):
        trainer.do_step.index.fill_(step)
        losses.append(trainer.do_step.mean_loss(*batch).item())
    assert losses[0] == losses[2] != losses[1]


@BOTH
def test_training_goes_on_from_a_saved_state_as_if_it_had_not_stopped(option):
    run = dropping(0.3, option)
    stopped = trained([run], 2)
    resumed = PackTrainer([run], CPU)
    resumed.restore(resumed.running[0], stopped.state(stopped.running[0]))
    resumed.advance()
    assert torch.equal(resumed.pack.flat, trained([run]).pack.flat)


@BOTH
def test_evaluations_drop_nothing(option):
    with_it, without = (trained([dropping(rate, option)], 1) for rate in (0.9, 0.0))
    assert with_it.slots[0].curve.test_loss == without.slots[0].curve.test_loss


def test_a_run_without_it_is_the_run_it_was_before_there_was_dropout():
    run = small_run()
    assert dropping(0.0).run_id == run.run_id != dropping(0.1).run_id
    again = RunConfig.model_validate(dropping(0.1).model_dump())
    assert again.model.embed_dropout == 0.1


def test_a_table_says_zero_of_runs_without_it(tmp_path):
    rows = [
        whole_row({"run_id": run.run_id, "config": run.model_dump_json(), "curve.step": [0]})
        for run in (dropping(0.0), dropping(0.1))
    ]
    write_shard(tmp_path, rows)
    assert sorted(load_results(tmp_path).runs["model.embed_dropout"]) == [0.0, 0.1]


def test_each_layer_drops_others():
    dropped = Dropped(0.5, torch.tensor([7, 8]))
    keys = torch.cat([dropped.of_layer(layer).keys for layer in (0, 1, 2)] + [dropped.keys])
    assert len(keys.unique()) == 8 and keys.max() < WORDS


@pytest.mark.parametrize("options", [{}, {"conv": "kv"}, {"rope": True}], ids=str)
def test_attention_drops_weights_after_the_softmax(options):
    """Each head's own, of every position; the mask is what dropout makes of ones."""
    R, B, L, H, D = 2, 3, 7, 2, 8
    config = Attention.Config(num_heads=H, **options)
    mixer = Attention(config, D, L, 2).double()
    for parameter in mixer.parameters():
        parameter.data = torch.randn(R, *parameter.shape[1:], dtype=torch.float64)
    x = torch.randn(R, B, L, D, dtype=torch.float64, requires_grad=True)
    dropped = Dropped(0.3, torch.tensor([7, 8]))
    y = mixer(x, None, dropped)
    mask = dropout(torch.ones(R, B, H, L, L, dtype=torch.float64), *dropped)
    inputs = [mixer.convs[b](x) if b in mixer.convs else x for b in "qkv"]
    if mixer.convs:
        q, k, v = (proj(u) for proj, u in zip(mixer.in_proj, inputs, strict=True))
    else:
        q, k, v = mixer.in_proj[0](x).chunk(3, dim=-1)
    if mixer.rope:
        q, k = rotate(q, H), rotate(k, H)
    q, k, v = (u.unflatten(-1, (H, -1)).transpose(2, 3) for u in (q, k, v))
    future = torch.full((L, L), float("-inf"), dtype=torch.float64).triu(1)
    weights = (q @ k.mT / (D // H) ** 0.5 + future).softmax(-1) * mask
    expected = mixer.out_proj((weights @ v).transpose(2, 3).flatten(-2))
    assert_close(y, expected)
    parameters = [x, *mixer.parameters()]
    for one, other in zip(gradients(y, parameters), gradients(expected, parameters), strict=True):
        assert_close(one, other)
    assert not torch.allclose(y, mixer(x))


@pytest.mark.gpu
def test_a_gpu_drops_the_same_compiled_or_not():
    x, keys = torch.randn(3, 5, 7, 64, dtype=torch.bfloat16), torch.tensor([5, WORDS - 1, 12345])
    expected = dropout(x, 0.1, keys)
    for form in (dropout, torch.compile(dropout, dynamic=False)):
        assert torch.equal(form(x.cuda(), 0.1, keys.cuda()).cpu(), expected)

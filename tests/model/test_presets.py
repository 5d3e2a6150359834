"""The presets against what Zoology's code does (HazyResearch/zoology, d88d6f5), written out here in
plain torch: three layers block by block, a training loop, initial weights.

The mixers have oracles of their own in tests/mixers; here only attention is written out again.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import SMALL_MIXERS, SMALL_TASKS, gradients
from torch import Tensor
from torch.testing import assert_close

from zoorecall.config import PRESETS, ModelConfig, RunConfig, TrainConfig
from zoorecall.grid import load_grid
from zoorecall.layers import Linear
from zoorecall.mixers import MIXERS
from zoorecall.model.model import Model, build_model
from zoorecall.tasks import make_task
from zoorecall.training.data import Feed
from zoorecall.training.trainer import PackTrainer, reached

WIDTH, LAYERS = 16, 3
GRID_2023 = load_grid(Path(__file__).parents[2] / "grids/zoology_2023.yaml")
OWN_BLOCK = ("mamba", "mamba2")
BASED = {"name": "pattern", "mixers": ["base_conv", {"name": "based", "feature_dim": 8}]}
HYBRID = {"name": "pattern", "mixers": ["mamba", {"name": "attention"}]}
SMALL = {"batch_size": 16, "train_examples": 40, "test_examples": 24, "learning_rate": 1e-2}


def run_of(preset: str, mixer: Any, model: dict | None = None, seed: int = 1, **train) -> RunConfig:
    """A small run of a preset, whose layer count and width are those of this file."""
    if isinstance(mixer, str):
        mixer = {"name": mixer} if mixer == "attention" else {"name": mixer, **odd(mixer)}
    laid = {"d_model": WIDTH, "num_layers": LAYERS, "mixer": mixer} | (model or {})
    return RunConfig.model_validate(
        {
            "task": {"name": "mqar", **SMALL_TASKS["mqar"]},
            "model": PRESETS[preset]["model"] | laid,
            "train": PRESETS[preset]["train"] | SMALL | train,
            "seed": seed,
        }
    )


def odd(mixer: str) -> dict:
    return {k: v for k, v in SMALL_MIXERS.get(mixer, {}).items() if k != "init_std"}


# ---- the block


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def written_out(
    model: Model, name: str, tokens: Tensor, mlp: bool, second: bool, activation=gelu
) -> Tensor:
    """Logits [B, L, V] of `model` at every position, as Zoology's blocks compute them: what a
    block hands on is its last output and the stream without it, which the next one adds."""
    parameters = {key: p[0] for key, p in model.named_parameters()}
    residual, hidden = None, F.embedding(tokens, parameters["embedding.weight"])
    if model.position_embedding is not None:
        hidden = hidden + parameters["position_embedding"][: tokens.shape[1]]
    for i, layer in enumerate(model.each_layer()):
        own = {k.removeprefix(f"layers.{i}."): p for k, p in parameters.items()}
        residual = hidden if residual is None else hidden + residual
        norm = {k.rpartition(".")[2]: p for k, p in own.items() if k.startswith("sequence.norm")}
        if name in OWN_BLOCK:
            mean_square = residual.square().mean(-1, keepdim=True)
            hidden = residual / (mean_square + 1e-5).sqrt() * norm["weight"]
        else:
            hidden = layer_norm(residual, norm["weight"], norm["bias"])
        hidden = attention(hidden, own) if name == "attention" else layer.mixer(hidden[None])[0]
        if mlp or second:
            residual = hidden + residual
            hidden = layer_norm(residual, own["channel.norm.weight"], own["channel.norm.bias"])
        if mlp:
            inner = hidden @ own["channel.mlp.fc1.weight"].T + own["channel.mlp.fc1.bias"]
            hidden = (
                activation(inner) @ own["channel.mlp.fc2.weight"].T + own["channel.mlp.fc2.bias"]
            )
    last = layer_norm(hidden + residual, parameters["norm.weight"], parameters["norm.bias"])
    return last @ parameters["embedding.weight"].T


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias


def attention(x: Tensor, own: dict[str, Tensor]) -> Tensor:
    at = "sequence.mixer."
    q, k, v = (x @ own[f"{at}in_proj.0.weight"].T + own[f"{at}in_proj.0.bias"]).chunk(3, -1)
    scores = q @ k.mT / math.sqrt(WIDTH) + torch.full((x.shape[1],) * 2, -1e4).to(x).triu(1)
    y = scores.softmax(-1) @ v
    return y @ own[f"{at}out_proj.weight"].T + own[f"{at}out_proj.bias"]


@pytest.mark.parametrize("preset", ["zoology", "paper"])
@pytest.mark.parametrize("name", sorted(MIXERS))
def test_three_layers_are_zoologys_block_by_block(preset, name):
    run = run_of(preset, name)
    model = build_model(run).double()
    torch.manual_seed(0)
    for key, parameter in model.named_parameters():
        if "norm" in key.split(".")[-2:][0]:
            torch.nn.init.normal_(parameter)
    L = run.task.seq_len
    tokens = torch.randint(run.task.vocab_size, (3, L))
    ours = model(tokens[None], torch.arange(L).expand(1, 3, -1))[0]
    inside = {"mlp": preset == "paper" and name not in OWN_BLOCK}
    inside["second"] = name not in OWN_BLOCK
    theirs = written_out(model, name, tokens, **inside)
    assert_close(ours, theirs)
    weights = list(model.parameters())
    for one, other in zip(gradients(ours, weights), gradients(theirs, weights), strict=True):
        assert_close(one, other)


@pytest.mark.parametrize(
    ("mixer", "layers", "mlp"),
    [("attention", 2, True), ("hyena", 2, True), ("rwkv", 2, True), ("h3", 4, False),
     ("pattern", 8, False)],
)  # fmt: skip
def test_the_runs_of_2023_have_the_blocks_of_those_days(mixer, layers, mlp):
    """At 8486daf and 0a76ef2 an MLP had tanh; where a second mixer stood in its place, a layer of
    then is two here."""
    found = (run for run in GRID_2023.runs if run.model.mixer.name == mixer)
    run = next(found).model_copy(update={"task": run_of("zoology", "h3").task})
    run = run.model_copy(update={"model": run.model.model_copy(update={"d_model": WIDTH})})
    model, L = build_model(run).double(), run.task.seq_len
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    tokens = torch.randint(run.task.vocab_size, (3, L))
    ours = model(tokens[None], torch.arange(L).expand(1, 3, -1))[0]
    assert len(model.layers) == layers
    assert_close(ours, written_out(model, mixer, tokens, mlp, False, torch.tanh))
    assert not mlp or not torch.allclose(ours, written_out(model, mixer, tokens, mlp, False))


def test_one_position_at_a_time_has_the_second_norm_too():
    run = run_of("zoology", "hyena")
    model, L = build_model(run).double(), run.task.seq_len
    for layer in model.each_layer():
        torch.nn.init.normal_(layer.channel.norm.weight)
    tokens = torch.randint(run.task.vocab_size, (1, 2, L))
    state, logits = model.initial_state(1, 2, L), []
    for t in range(L):
        y, state = model.step(tokens[..., t], state)
        logits.append(y)
    assert_close(torch.stack(logits, 2), model(tokens, torch.arange(L).expand(1, 2, -1)))


# ---- what `auto` comes to

TRANSFORMER = {"norm": "layer", "embed_dropout": 0.1, "attention_dropout": 0.0}
OWN = {"norm": "rms", "embed_dropout": 0.0, "attention_dropout": 0.0, "channel_mixer": "none"}
OWN |= {"second_norm": False, "positions": "none", "initial_weights": "zoology"}
IDENTITY = {"channel_mixer": "none", "second_norm": True}
WITH_MLP = {"channel_mixer": "mlp", "second_norm": False}


@pytest.mark.parametrize("name", sorted(OWN_BLOCK))
@pytest.mark.parametrize("preset", ["zoology", "paper"])
def test_mamba_has_its_own_block(preset, name):
    found = run_of(preset, name).model.model_dump()
    assert {key: found[key] for key in OWN} == OWN
    with_mlp = run_of(preset, name, {"channel_mixer": "mlp", "second_norm": False}).model
    assert (with_mlp.norm, with_mlp.channel_mixer) == ("rms", "mlp")


@pytest.mark.parametrize(
    ("preset", "mixer", "expected"),
    [
        ("zoology", "attention", {**IDENTITY, "positions": "learned", "attention_dropout": 0.1}),
        ("zoology", "based", {**IDENTITY, "positions": "none", "initial_weights": "official"}),
        ("zoology", BASED, {**IDENTITY, "positions": "none"}),
        ("zoology", HYBRID, {**IDENTITY, "positions": "learned", "attention_dropout": 0.1}),
        ("zoology", "delta_net", {**IDENTITY, "positions": "none", "initial_weights": "zoology"}),
        ("paper", "attention", {**WITH_MLP, "positions": "learned", "attention_dropout": 0.1}),
        ("paper", "based", {**WITH_MLP, "positions": "learned"}),
        ("paper", "gla", {**WITH_MLP, "positions": "none", "initial_weights": "zoology"}),
    ],
    ids=str,
)
def test_auto_is_what_zoologys_code_does_with_the_mixer(preset, mixer, expected):
    found = run_of(preset, mixer).model.model_dump()
    expected = {**TRANSFORMER, **expected}
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("preset", ["zoology", "paper"])
@pytest.mark.parametrize(
    ("left_out", "named"),
    [
        ({"name": "delta_net"}, {"name": "delta_net", "num_heads": 4}),
        ({"name": "delta_net", "num_heads": 1}, {"name": "delta_net", "num_heads": 1}),
        ({"name": "gla", "conv": True}, {"name": "gla", "conv": True, "num_heads": 4}),
        (
            {"name": "gated_delta_net"},
            {"name": "gated_delta_net", "num_heads": 6, "head_dim": WIDTH // 6},
        ),
        ({"name": "gated_delta_net", "num_heads": 2}, {"name": "gated_delta_net", "num_heads": 2}),
        ({"name": "pattern", "mixers": ["base_conv", "based"]}, BASED),
    ],
    ids=str,
)
def test_options_that_a_mixer_leaves_out_are_zoologys(preset, left_out, named):
    plain = {"mixer_defaults": "own"}
    run = run_of(preset, left_out)
    assert run.model == run_of(preset, named, plain).model
    assert RunConfig.model_validate(run.model_dump()).run_id == run.run_id


def test_what_auto_comes_to_is_the_run():
    auto, named = run_of("zoology", "mamba"), run_of("zoology", "mamba", OWN)
    assert auto == named and auto.run_id == named.run_id
    hyena = ModelConfig(mixer={"name": "hyena"}, initial_weights="zoology")
    assert hyena.initial_weights == "official"  # which draws the same
    one_layer = ModelConfig(mixer={"name": "mamba"}, num_layers=1, initial_weights="zoology")
    assert one_layer.initial_weights == "official"  # divided by the root of one


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"evaluate": "epoch", "evaluations": 20}, "evaluations is no option of evaluate: epoch"),
        ({"stop_at_accuracy": 0.9, "stop_above_accuracy": 0.9}, "two ends, should be one"),
    ],
)
def test_options_of_training_that_do_not_go_together_are_one_line(settings, says):
    with pytest.raises(ValueError, match=says):
        TrainConfig.model_validate(settings)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"second_norm": True}, "second_norm: true needs channel_mixer: none"),
        ({"mixer": {"name": "hyena"}, "attention_dropout": 0.1}, "0.1 needs attention"),
        (
            {"mixer": {"name": "mamba", "init_std": 0.02}, "initial_weights": "zoology"},
            "stands for the init_std of mamba",
        ),
    ],
)
def test_options_that_do_not_go_together_are_one_line(settings, says):
    with pytest.raises(ValueError, match=says):
        ModelConfig.model_validate(settings)


# ---- initial weights


@pytest.mark.parametrize("name", ["delta_net", "gated_delta_net", "gla", "s6"])
def test_zoology_draws_every_linear_layer_again(name):
    model = ModelConfig(d_model=128, num_layers=3, mixer={"name": name}, initial_weights="zoology")
    assert model.initial_weights == "zoology"
    (layer, *_) = build_model(RunConfig(model=model)).each_layer()
    linears = [module for module in layer.mixer.modules() if isinstance(module, Linear)]
    assert linears
    for linear in linears:
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.15)
        assert linear.bias is None or not linear.bias.any()


@pytest.mark.parametrize("name", OWN_BLOCK)
def test_mamba_starts_officially_but_for_its_output(name):
    official, zoology = (
        build_model(RunConfig(model=ModelConfig(num_layers=3, mixer={"name": name}, **changed)))
        for changed in ({}, {"initial_weights": "zoology"})
    )
    for (key, one), other in zip(official.named_parameters(), zoology.parameters(), strict=True):
        scale = math.sqrt(3) if key.endswith("mixer.out_proj.weight") else 1
        assert_close(other * scale, one)


@pytest.mark.parametrize("name", OWN_BLOCK)
def test_mamba_among_others_starts_as_in_a_transformer_block(name):
    mixer = {"name": "pattern", "mixers": [{"name": name}, "attention"]}
    model = ModelConfig(d_model=128, num_layers=2, mixer=mixer, initial_weights="zoology")
    mamba, _ = (layer.mixer for layer in build_model(RunConfig(model=model)).each_layer())
    assert mamba.in_proj.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert mamba.out_proj.weight.std().item() == pytest.approx(0.02 / math.sqrt(4), rel=0.1)
    assert name == "mamba2" or not mamba.dt_proj.bias.any()


# ---- the recipe


def rates(run: RunConfig, steps_per_epoch: int) -> list[float]:
    """Of every step: linear warmup by the step, then cosine by the epoch."""
    epochs, warmup = round(run.train.epochs), round(run.train.warmup * run.train.epochs)
    found = []
    for step in range(epochs * steps_per_epoch):
        if step < warmup * steps_per_epoch:
            share = (step + 1) / (warmup * steps_per_epoch)
        else:
            after = step // steps_per_epoch - warmup
            share = (1 + math.cos(math.pi * after / (epochs - warmup))) / 2
        found.append(run.train.learning_rate * share)
    return found


@pytest.mark.parametrize(("preset", "epochs"), [("zoology", 4), ("paper", 10)])
def test_training_is_zoologys_loop(preset, epochs):
    """Batches as drawn, the last one short; its rates; evaluated after each epoch."""
    run = run_of(preset, "base_conv", {"embed_dropout": 0.0}, epochs=epochs)
    net, task = build_model(run), make_task(run.task)
    examples = task.examples(40, 123, "train")
    batches = [[torch.from_numpy(x[i : i + 16])[None].long() for x in examples[:3]]
               for i in range(0, 40, 16)]  # fmt: skip
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.1)
    for step, rate in enumerate(rates(run, len(batches))):
        tokens, positions, targets = batches[step % len(batches)]
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        F.cross_entropy(net(tokens, positions).flatten(0, 2), targets.flatten()).backward()
        optimizer.step()
    trainer = PackTrainer([run], torch.device("cpu"))
    while not trainer.finished:
        trainer.advance()
    assert trainer.ended[0].curve.step == [3 * i for i in range(epochs + 1)]
    for one, other in zip(trainer.pack.model.parameters(), net.parameters(), strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_run_ends_above_an_accuracy_and_not_at_it():
    train = run_of("zoology", "attention").train
    assert not reached(train, 0.99) and reached(train, np.nextafter(0.99, 1))


def test_runs_of_one_data_seed_see_the_same_and_start_apart():
    runs = [run_of("zoology", "attention", seed=seed) for seed in (1, 2)]
    runs.append(run_of("zoology", "attention", seed=1, data_seed=None))
    assert len({run.pack_key for run in runs}) == 1
    trainer = PackTrainer(runs, torch.device("cpu"))
    tokens, *_ = trainer.feed.batch()
    assert torch.equal(tokens[0], tokens[1]) and not torch.equal(tokens[0], tokens[2])
    flat = trainer.pack.flat
    assert torch.equal(flat[0], flat[2]) and not torch.equal(flat[0], flat[1])


@pytest.mark.parametrize("order", ["fixed", "shuffled"])
def test_an_epoch_has_every_example_once_and_each_batch_a_mean(order):
    run, orders = run_of("zoology", "attention", order=order), []
    feed = Feed(run, 1, torch.device("cpu"))
    for epoch in (0, 1):
        feed.load(0, run, epoch)
        weights = torch.stack([feed.weight[i] for i in range(3)])
        assert_close(weights.sum(1), torch.ones(3))
        orders.append(feed.order[0][weights > 0].tolist())
        assert sorted(orders[-1]) == list(range(40))
    assert (orders[0] == orders[1] == list(range(40))) is (order == "fixed")

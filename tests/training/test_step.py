"""A step is compiled a layer of each kind, and gives what it gives when it is not."""

import torch
from conftest import small_run
from torch.testing import assert_close

from zoorecall.config import PRESETS, RunConfig
from zoorecall.training.trainer import PackTrainer

TWO_KINDS = {"name": "pattern", "mixers": ["attention", "base_conv"]}


def trainer(num_layers: int, preset: str = "paper_as_stated") -> PackTrainer:
    options = {"batch_size": 16, "drop_last": False} if preset == "zoology" else {}
    runs = [small_run(seed=seed, **options).model_dump() for seed in (1, 2)]
    for run in runs:
        run["model"] |= {"mixer": TWO_KINDS, "num_layers": num_layers} | PRESETS[preset]["model"]
    return PackTrainer([RunConfig.model_validate(r) for r in runs], torch.device("cpu"))


def graphs(num_layers: int, preset: str = "paper_as_stated") -> int:
    """How many programs a compiled step has."""
    from torch._dynamo.utils import counters  # it takes a second

    made = trainer(num_layers, preset)
    made.do_step.compile(backend="eager")
    counters.clear()
    made.do_step()
    return counters["stats"]["unique_graphs"]


def test_a_deep_model_compiles_a_layer_of_each_kind_once():
    around = 3  # the embedding, head and loss, the optimizer
    last = 1  # which finishes at the query positions
    assert graphs(6) == graphs(9, "zoology") == 2 + last + around


def test_a_model_of_two_layers_is_one_program():
    assert graphs(2) == 2  # the other is the optimizer


def test_a_step_compiled_by_layers_is_the_step():
    """With dropout in each layer and a last batch that is short."""
    plain, compiled = trainer(4, "zoology"), trainer(4, "zoology")
    before = plain.pack.flat.clone()
    compiled.do_step.compile(backend="aot_eager")
    for each in (plain, compiled):
        for _ in range(3):
            each.do_step()
    assert not torch.equal(plain.pack.flat, before)
    assert_close(compiled.pack.flat, plain.pack.flat, rtol=1e-5, atol=1e-6)

"""What a plan groups, what it refuses, and how long it takes to make one."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from conftest import small_run
from malformed_grids import load

from zoorecall.config import PER_RUN, ModelConfig, RunConfig, TrainConfig
from zoorecall.errors import DeviceError, UserError
from zoorecall.mixers import MIXERS
from zoorecall.model.cost import count_parameters
from zoorecall.sweeps import plan as planning
from zoorecall.sweeps.plan import (
    RunGroup,
    check_fits,
    example_bytes,
    memory_bytes,
    pack_size,
    plan,
)
from zoorecall.sweeps.sweeper import plan_groups
from zoorecall.tasks import TASKS
from zoorecall.training.data import Feed

CPU = torch.device("cpu")


def every_option() -> Iterator[tuple[str, Any]]:
    """A function of a value for each option: the base of a grid with that option at that value."""
    for kind, registry in (("task", TASKS), ("mixer", MIXERS)):
        for name, one in registry.items():
            for option in one.Config.model_fields.keys() - {"name"}:
                yield f"{kind} {name} {option}", {"name": name, option: ...}
    yield from ((f"model {option}", {option: ...}) for option in ModelConfig.model_fields)
    yield from ((f"train {option}", {option: ...}) for option in TrainConfig.model_fields)
    yield "seed", {"seed": ...}


def with_value(option: str, form: dict[str, Any], value: float) -> dict[str, Any]:
    filled = {key: value if x is ... else x for key, x in form.items()}
    if option == "seed":
        return filled
    kind = option.partition(" ")[0]
    return {"model": {"mixer": filled}} if kind == "mixer" else {kind: filled}


@pytest.mark.parametrize("value", [10**18, 1e308, 2**20, -1, 1e-300])
def test_an_option_of_any_size_is_planned_or_refused_in_one_line_at_once(value):
    started, refused = time.process_time(), 0
    for option, form in every_option():
        try:
            grid = load({"base": with_value(option, form, value)})
            plan_groups(grid, "cpu")
        except UserError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1, option
    assert refused > 20
    assert time.process_time() - started < 20


@pytest.mark.parametrize(
    ("base", "says"),
    [
        ({"model": {"d_model": 2**16, "num_layers": 2**10}}, "num_layers 1024"),
        ({"train": {"test_examples": 10**12}}, "test_examples 1000000000000"),
        ({"train": {"batch_size": 10**8, "train_examples": 10**8}}, "batch_size 100000000"),
        (
            {
                "model": {
                    "d_model": 2**16,
                    "mixer": {
                        "name": "gated_delta_net",
                        "num_heads": 2**16,
                        "head_dim": 2**20,
                        "expand_v": 2**20,
                    },
                }
            },
            "inf GiB",
        ),
    ],
    ids=["depth", "test examples", "batch", "beyond 64 bits"],
)
def test_what_no_machine_holds_is_refused_with_what_it_takes(base, says):
    with pytest.raises(DeviceError, match=r"takes .* GiB at the least, should fit into") as caught:
        check_fits([RunConfig.model_validate(base)], CPU)
    assert says in str(caught.value)


def test_what_fits_is_not_refused():
    check_fits([RunConfig()], CPU)


def test_runs_are_grouped_by_pack_key_in_the_order_of_the_grid():
    runs = [small_run(mixer, seed) for seed in (1, 2, 3) for mixer in ("hyena", "attention")]
    slots = {"hyena": 2, "attention": 100}
    groups = plan(runs, lambda run: slots[run.model.mixer.name])
    assert groups == [RunGroup(tuple(runs[::2]), 2), RunGroup(tuple(runs[1::2]), 3)]
    assert plan([], lambda run: 1) == []


@pytest.mark.parametrize("name", PER_RUN)
def test_runs_that_differ_in_what_each_may_have_of_its_own_are_one_group(name):
    """How long each trains, too: its sequences are counted run by run."""
    other = {"data": "fresh", "order": "permutation", "schedule": "constant", "betas": (0.5, 0.6)}
    other |= {"evaluate": "epoch", "keep": "weights", "epochs": 3, "evaluations": 7}
    run = small_run()
    value = other.get(name, 0.125)
    both = (run, run.model_copy(update={"train": run.train.model_copy(update={name: value})}))
    (group,) = plan(both, lambda run: 8)
    assert group.slots == 2 and getattr(both[0].train, name) != getattr(both[1].train, name)
    assert group.sequences == 8 * sum(run.train.num_steps for run in both)


def test_the_longest_runs_of_a_group_come_first():
    """By steps; those that end at an accuracy last, and of these the lowest learning rate first."""
    settings = [
        {"epochs": 1, "learning_rate": 1e-5},
        {"stop_at_accuracy": 0.9, "learning_rate": 1e-2},
        {"stop_above_accuracy": 0.9, "learning_rate": 1e-4},
        {"learning_rate": 1e-1},
        {"learning_rate": 1e-3},
    ]
    (group,) = plan([small_run(**train) for train in settings], lambda run: 8)
    rates = [run.train.learning_rate for run in group.runs]
    assert rates == [1e-1, 1e-3, 1e-4, 1e-2, 1e-5]


MANY = {
    "base": {"task": {"vocab_size": 256}, "model": {"d_model": 32}},
    "axes": {
        "model.mixer": ["attention", "mamba", {"name": "attention", "conv": "k"}, "hyena"],
        "train.learning_rate": {"logspace": [1e-5, 1e-1, 125]},
        "seed": {"linspace": [1, 20, 20]},
    },
}


def test_ten_thousand_runs_are_read_and_planned_in_seconds():
    """They are of four shapes: a hundred thousand take ten times as long."""
    count_parameters(RunConfig())  # what is only once to do is done
    started = time.process_time()
    grid = load(MANY)
    groups = plan_groups(grid, "cpu")
    assert [len(group.runs) for group in groups] == [2500] * 4 and len(grid.runs) == 10_000
    assert time.process_time() - started < 2


@pytest.mark.parametrize(("runs", "most", "slots"), [(5, 8, 5), (8, 8, 8), (9, 8, 5), (51, 25, 17)])
def test_a_group_is_trained_in_nearly_equal_numbers_at_once(runs, most, slots):
    (group,) = plan([small_run(seed=seed) for seed in range(runs)], lambda run: most)
    assert (len(group.runs), group.slots) == (runs, slots)


def test_the_bytes_of_examples_are_those_of_a_slot():
    for task in TASKS:
        runs = [small_run(task={"name": task}, train_examples=48, seed=seed) for seed in range(5)]
        feed = Feed(runs[0], 3, CPU)
        for i, run in enumerate(runs):
            feed.load(i % 3, run, 0)
            feed.tests(run)
        examples = [feed.examples, *(feed.tests(run) for run in runs[2:])]
        tensors = [x for each in examples for name, x in vars(each).items() if name != "slices"]
        assert 3 * example_bytes(runs[0]) == sum(x.nbytes for x in [feed.order, *tensors])
        assert example_bytes(runs[0]) < memory_bytes(runs[0])


def test_a_feed_has_no_more_test_examples_than_slots_and_keeps_those_of_who_is_there():
    first, stays, enters = (small_run(seed=seed) for seed in range(3))
    feed = Feed(first, 2, CPU)
    for r, run in enumerate((first, stays)):
        feed.load(r, run, 0)
    made = [feed.tests(run) for run in (first, stays)]
    feed.load(0, enters, 0)
    feed.tests(enters)
    assert len(feed._tests) == 2 and feed.tests(stays) is made[1]


@pytest.mark.parametrize(
    ("d_model", "gib", "slots"),
    [(64, 80, 20), (256, 80, 5), (1024, 80, 1), (8, 80, 128), (64, 8, 5)],
)
def test_a_gpu_trains_as_many_runs_as_keep_it_busy_and_fit(d_model, gib, slots, monkeypatch):
    monkeypatch.setattr(planning, "total_memory", lambda device: gib * 2**30)
    run = RunConfig.model_validate(
        {
            "task": {"name": "mqar", "vocab_size": 8192, "seq_len": 64, "num_kv_pairs": 4},
            "model": {"d_model": d_model, "num_layers": 2},
            "train": {"batch_size": 512, "train_examples": 100_000, "precision": "bf16"},
        }
    )
    assert pack_size(run, torch.device("cuda")) == slots

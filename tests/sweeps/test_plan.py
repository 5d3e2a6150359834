"""What a plan refuses, and how long it takes to make one."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from malformed_grids import load

from zoorecall.config import ModelConfig, RunConfig, TrainConfig
from zoorecall.errors import DeviceError, UserError
from zoorecall.mixers import MIXERS
from zoorecall.model.cost import count_parameters
from zoorecall.sweeps.plan import check_fits
from zoorecall.sweeps.sweeper import plan_packs
from zoorecall.tasks import TASKS

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
            plan_packs(grid, "cpu")
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


MANY = {
    "base": {"task": {"vocab_size": 256}, "model": {"d_model": 32}},
    "axes": {
        "model.mixer": ["attention", "mamba", {"name": "attention", "conv": "k"}, "hyena"],
        "train.learning_rate": {"logspace": [1e-5, 1e-1, 125]},
        "seed": {"linspace": [1, 20, 20]},
    },
}


def test_ten_thousand_runs_are_read_and_planned_in_seconds():
    """As many packs as runs, of four shapes: a hundred thousand take ten times as long."""
    count_parameters(RunConfig())  # what is only once to do is done
    started = time.process_time()
    grid = load(MANY)
    assert len(plan_packs(grid, "cpu")) == len(grid.runs) == 10_000
    assert time.process_time() - started < 2

"""Grids with ranges: what they ask a search for, and what is said of one that is wrong."""

from pathlib import Path

import jsonschema
import pytest
from malformed_grids import GOOD, load, write_grid

from zoorecall.errors import GridError
from zoorecall.grid import Space, grid_schema, load_space
from zoorecall.grid.yaml_nodes import parse_yaml

LOG = "{log: [1e-4, 1e-2]}"
SEARCHED = GOOD.replace("{logspace: [1e-4, 1e-2, 3]}", LOG)
SEARCHED = SEARCHED.replace(
    "train.learning_rate: [1e-1], seed", f"train.learning_rate: {LOG}, seed"
)


@pytest.fixture
def space_of(tmp_path: Path):
    def load_text(text: str, *overrides: str) -> Space:
        return load_space(write_grid(tmp_path / "grid.yaml", text), overrides)

    return load_text


def test_a_setting_is_all_but_seeds_and_ranges_of_the_axes_and_of_an_include_entry(
    space_of,
) -> None:
    space = space_of(SEARCHED)
    seeds = [one.seeds for one in space.settings]
    # two mixers at two sizes and depths, less attention with a convolution at one layer, and one
    # seed less at two layers, which leaves six; and the entry, of other seeds
    assert seeds == [(1, 2), (1,), (1, 2), (1,), (1,), (1,), (3, 4)]
    assert (space.name, space.description) == ("grid", "A good grid.")
    for one in space.settings:
        (found,) = one.ranges.values()
        assert (found.kind, found.values) == ("log", (1e-4, 1e-2))
    run = space.settings[3].run({"train.learning_rate": 3e-3}, 1)
    assert (run.train.learning_rate, run.seed, run.model.num_layers) == (3e-3, 1, 2)
    assert run.task.seq_len == 64 and run.train.batch_size == 64


def test_its_runs_are_those_of_a_grid_of_values(space_of) -> None:
    rate = 0.00316227766017
    told = load(GOOD, f"train.learning_rate={rate}").runs
    found = [
        one.run({"train.learning_rate": rate}, seed)
        for one in space_of(SEARCHED).settings
        for seed in one.seeds
    ]
    assert {run.run_id for run in found} == {run.run_id for run in told}


def test_every_kind_of_range(space_of) -> None:
    text = """
base: {model: {d_model: 32}}
axes:
  train.weight_decay: {float: [0, 1]}
  model.num_layers: {int: [1, 4]}
  train.betas: {choices: [[0.9, 0.999], [0.9, 0.95]]}
"""
    (one,) = space_of(text).settings
    assert {path: (x.kind, x.values) for path, x in one.ranges.items()} == {
        "train.weight_decay": ("float", (0.0, 1.0)),
        "model.num_layers": ("int", (1, 4)),
        "train.betas": ("choices", ([0.9, 0.999], [0.9, 0.95])),
    }
    values = {"train.weight_decay": 0.5, "model.num_layers": 3, "train.betas": [0.9, 0.95]}
    run = one.run(values, 7)
    assert (run.train.weight_decay, run.model.num_layers, run.train.betas) == (0.5, 3, (0.9, 0.95))
    assert one.seeds == (42,)


def test_an_automatic_setting_follows_what_is_searched(space_of) -> None:
    text = "preset: zoology\naxes: {model.mixer: [{name: mamba}], model.d_model: {int: [32, 64]}}"
    (one,) = space_of(text).settings
    for width in (32, 48):
        told = load(f"preset: zoology\nbase: {{model: {{mixer: mamba, d_model: {width}}}}}").runs[0]
        assert one.run({"model.d_model": width}, 42) == told


def test_an_override_may_give_a_range_another_or_take_it_away(space_of) -> None:
    (one, *_) = space_of(SEARCHED, "train.learning_rate={log: [1e-3, 1e-1]}").settings
    assert one.ranges["train.learning_rate"].values == (1e-3, 1e-1)
    with pytest.raises(GridError, match="has no range to search"):
        space_of(SEARCHED, "train.learning_rate=1e-3")
    assert load(SEARCHED, "train.learning_rate=1e-3").runs


def test_values_that_cannot_go_together_raise(space_of) -> None:
    (one,) = space_of("axes: {model.mixer: [{name: attention, num_heads: 2}], "
                      "model.d_model: {int: [8, 16]}}").settings  # fmt: skip
    with pytest.raises(ValueError, match="d_model 9 is not a multiple"):
        one.run({"model.d_model": 9}, 42)


def test_a_sweep_refuses_a_range_in_one_line_that_names_tune() -> None:
    with pytest.raises(GridError) as caught:
        load(SEARCHED)
    text = str(caught.value).partition("grid.yaml:")[2]
    assert text.startswith("22: train.learning_rate: is a range, which `zoorecall tune` searches")
    assert "\n" not in text


RATE = "train.learning_rate"
WRONG = [
    ("log of one", f"{RATE}: {{log: [1e-4]}}", f"{RATE}.log: should be a list of two ends"),
    ("log of three", f"{RATE}: {{log: [1, 2, 3]}}", f"{RATE}.log: should be a list of two ends"),
    ("log of a number", f"{RATE}: {{log: 1e-4}}", f"{RATE}.log: should be a list of two ends"),
    ("log of none", f"{RATE}: {{log: }}", f"{RATE}.log: should be a list of two ends"),
    ("log from zero", f"{RATE}: {{log: [0, 1]}}", f"{RATE}.log: 0 is too small"),
    ("log of words", f"{RATE}: {{log: [low, high]}}", f"{RATE}.log: 'low' is a string"),
    ("log of truth", f"{RATE}: {{log: [true, 2]}}", f"{RATE}.log: true is a truth value"),
    ("log downwards", f"{RATE}: {{log: [1e-1, 1e-4]}}", f"{RATE}.log: 0.1 is not below 0.0001"),
    ("log of whole numbers", "model.num_layers: {log: [1, 4]}", "1.0 is a number, should be an in"),
    ("an end out of bounds", "train.weight_decay: {float: [-1, 1]}", "-1.0 is too small, should"),
    ("int of halves", "model.num_layers: {int: [1, 1.5]}", "num_layers.int: 1.5 is a number"),
    ("int downwards", "model.num_layers: {int: [2, 2]}", "num_layers.int: 2 is not below 2"),
    ("one choice", "train.schedule: {choices: [cosine]}", "choices: should be a list of two"),
    ("a choice twice", "train.schedule: {choices: [cosine, cosine]}", "choices: should be a list"),
    ("an unknown choice", "train.schedule: {choices: [cosine, wave]}", "'wave' is not one of"),
    ("two kinds", f"{RATE}: {{log: [1e-4, 1], int: [1, 2]}}", f"{RATE}: is log already"),
    ("a kind misspelt", f"{RATE}: {{lgo: [1e-4, 1]}}", "'lgo' here, did you mean 'log'"),
    ("a seed", "seed: {int: [1, 9]}", "seed: is not searched, should be a list of seeds"),
    ("no range", f"{RATE}: [1e-4, 1e-3]", "axes: has no range to search, should have one such as"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "axis", "says"), WRONG, ids=[case[0] for case in WRONG])
def test_a_wrong_range_is_told_in_one_line_at_its_line(name, axis, says, space_of) -> None:
    with pytest.raises(GridError) as caught:
        space_of(f"base: {{}}\naxes:\n  {axis}\n")
    line, _, text = str(caught.value).partition("grid.yaml:")[2].partition(": ")
    assert line == ("2" if name == "no range" else "3")
    assert says in text and "\n" not in text


def test_exclude_may_not_be_about_what_is_searched(space_of) -> None:
    for entry in (
        *(f"{RATE}: 1e-4", f"{RATE}: {LOG}", "train: {learning_rate: 1e-4}"),
        f"mine: [{{seed: 1, {RATE}: 1e-4}}]",
    ):
        text = f"axes: {{seed: [1, 2], {RATE}: {LOG}}}\nexclude:\n  - {{{entry}}}\n"
        with pytest.raises(GridError, match=f"3: {RATE}: is searched, should not be in exclude"):
            space_of(text)


def test_an_entry_of_exclude_that_drops_nothing_is_told_as_a_sweep_tells_it(space_of) -> None:
    text = f"axes: {{seed: [1, 2], {RATE}: {LOG}}}\nexclude:\n  - {{seed: 7}}\n"
    with pytest.raises(GridError, match="3: exclude: no run of the axes matches, should match one"):
        space_of(text)
    assert space_of(text, "seed=[1]").settings[0].seeds == (1,)


def test_settings_that_differ_in_their_seeds_alone_are_one_and_in_any_end_two(space_of) -> None:
    seeds = f"axes: {{seed: [1, 2], {RATE}: {LOG}}}\ninclude: [{{seed: [2, 3], {RATE}: {LOG}}}]"
    assert [one.seeds for one in space_of(seeds).settings] == [(1, 2, 3)]
    alike = """
preset: zoology
axes: {model.norm: [layer, auto], model.mixer.name: {choices: [attention, mamba]}}
"""
    one, other = space_of(alike).settings
    assert one.first == other.first and one.code != other.code


def test_the_schema_takes_ranges_and_not_wrong_ones() -> None:
    schema = jsonschema.Draft202012Validator(grid_schema())
    assert schema.is_valid(parse_yaml(SEARCHED).value)
    seen = [
        name
        for name, axis, _ in WRONG
        if not schema.is_valid(parse_yaml(f"axes: {{{axis}}}").value)
    ]
    assert seen == [
        *("log of one", "log of three", "log of a number", "log of none", "log from zero"),
        *("log of words", "log of truth", "int of halves", "one choice", "a choice twice"),
        *("two kinds", "a kind misspelt"),
    ]  # what it cannot see are ends and choices that are not of the setting

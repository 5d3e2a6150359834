"""Grid files: what they expand to, with and without overrides."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from malformed_grids import GOOD, load

from zoorecall.config import ModelConfig, RunConfig, TrainConfig
from zoorecall.errors import GridError
from zoorecall.grid import Grid, load_grid
from zoorecall.grid.yaml_nodes import parse_yaml


def rates(grid: Grid) -> list[float]:
    return [run.train.learning_rate for run in grid.runs]


def seeds(grid: Grid) -> list[int]:
    return [run.seed for run in grid.runs]


def test_a_grid_has_the_name_of_its_file_and_its_description() -> None:
    grid = load(GOOD)
    assert (grid.name, grid.description) == ("grid", "A good grid.")
    assert len(grid.runs) == 2 * 2 * 2 * 2 * 3 - 12 - 12 + 2


def test_an_empty_grid_is_one_run_of_the_defaults() -> None:
    assert load("{}").runs == (RunConfig(),)


def test_the_first_axis_is_the_slowest() -> None:
    axes = {"seed": [3, 1], "model.d_model": [8, 4], "train.learning_rate": [0.1, 0.3, 0.2]}
    runs = load({"axes": axes}).runs
    assert [(run.seed, run.model.d_model, run.train.learning_rate) for run in runs] == [
        (seed, width, rate) for seed in (3, 1) for width in (8, 4) for rate in (0.1, 0.3, 0.2)
    ]


VALUES = {
    "seed": st.integers(0, 999),
    "model.d_model": st.integers(1, 64),
    "model.mlp_ratio": st.integers(1, 8),
    "task.vocab_size": st.integers(64, 99),
    "train.learning_rate": st.floats(1e-6, 1.0),
    "train.precision": st.sampled_from(["fp32", "tf32", "bf16"]),
}


@st.composite
def grids(draw: st.DrawFn) -> dict[str, Any]:
    """Axes of different values, exclude entries made of some of them, an include of new seeds."""
    paths = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=4, unique=True))
    axes = {p: draw(st.lists(VALUES[p], min_size=1, max_size=4, unique=True)) for p in paths}
    exclude = []
    for _ in range(draw(st.integers(0, 3))):
        chosen = draw(st.lists(st.sampled_from(paths), min_size=1, unique=True))
        exclude.append({p: draw(st.sampled_from(axes[p])) for p in chosen})
    new = draw(st.lists(st.integers(1000, 1009), min_size=1, unique=True))
    return {"axes": axes, "exclude": exclude, "include": [{"seed": new}]}


def value(run: RunConfig, path: str) -> Any:
    data: Any = run.model_dump()
    for key in path.split("."):
        data = data[key]
    return data


@settings(max_examples=60, deadline=None)
@given(grid=grids())
def test_the_runs_are_the_product_less_excluded_plus_included(grid: dict[str, Any]) -> None:
    grid_runs = load(grid).runs
    axes, exclude, (include,) = grid["axes"], grid["exclude"], grid["include"]
    product = load({"axes": axes}).runs
    assert len(product) == math.prod(len(values) for values in axes.values())
    kept = [
        run
        for run in product
        if not any(all(value(run, p) == v for p, v in entry.items()) for entry in exclude)
    ]
    assert list(grid_runs[: len(kept)]) == kept
    assert [run.seed for run in grid_runs[len(kept) :]] == include["seed"]
    assert load(grid).runs == grid_runs
    assert len({run.run_id for run in grid_runs}) == len(grid_runs)


def test_a_run_that_stands_twice_is_one_run_at_its_first_place() -> None:
    grid = load({"axes": {"seed": [2, 1, 2]}, "include": [{"seed": [1, 3]}]})
    assert seeds(grid) == [2, 1, 3]


def test_settings_move_together_under_a_key_of_the_users_own() -> None:
    size = [
        {"task.seq_len": 32, "task.num_kv_pairs": 4},
        {"task": {"seq_len": 64}, "task.num_kv_pairs": 8},
    ]
    runs = load({"axes": {"size": size, "seed": [1, 2]}}).runs
    sizes = [(run.task.seq_len, run.task.num_kv_pairs, run.seed) for run in runs]
    assert sizes == [(32, 4, 1), (32, 4, 2), (64, 8, 1), (64, 8, 2)]


def test_a_narrow_path_is_laid_over_a_broad_one_wherever_they_stand() -> None:
    mixers = ["attention", {"name": "attention", "conv": "q"}]
    runs = load({"axes": {"model.mixer.num_heads": [2, 4], "model.mixer": mixers}}).runs
    options = [(run.model.mixer.num_heads, run.model.mixer.conv) for run in runs]
    assert options == [(2, ""), (2, "q"), (4, ""), (4, "q")]


def test_an_axis_may_be_an_option_that_only_the_mixers_of_another_axis_have() -> None:
    axes = {"model.mixer": ["hyena"], "model.mixer.filter_order": [8, 16]}
    runs = load({"axes": axes}).runs
    assert [run.model.mixer.filter_order for run in runs] == [8, 16]


def test_a_named_choice_replaces_that_of_the_base_and_other_mappings_are_merged() -> None:
    base = {"model": {"mixer": {"name": "attention", "conv": "k"}, "d_model": 32}}
    axis = ["attention", {"num_heads": 2}]
    runs = load({"base": base, "axes": {"model.mixer": axis}}).runs
    assert [run.model.mixer.conv for run in runs] == ["", "k"]
    assert [run.model.mixer.num_heads for run in runs] == [1, 2]
    runs = load({"base": base, "axes": {"model": [{"d_model": 16}]}}).runs
    assert [(run.model.d_model, run.model.mixer.conv) for run in runs] == [(16, "k")]


def test_the_base_lies_over_the_preset() -> None:
    (run,) = load("preset: zoology\nbase: {train: {epochs: 3}}").runs
    assert (run.train.epochs, run.train.schedule) == (3, "cosine_by_epoch")
    assert run.model.channel_mixer == "none"


def test_scalars_are_read_as_yaml_1_2() -> None:
    read = parse_yaml("[1e-5, 1E+3, .5, 5., yes, no, on, off, true, 1:30, 064, 1_0, 2020-01-01, ~]")
    text = ["yes", "no", "on", "off"]
    assert read.value == [1e-5, 1e3, 0.5, 5.0, *text, True, "1:30", 64, "1_0", "2020-01-01", None]
    assert [type(item) for item in read.value[:4]] == [float] * 4


def test_a_logspace_is_numpys_to_12_digits_with_its_ends_exact() -> None:
    found = rates(load("axes: {train.learning_rate: {logspace: [1e-5, 1e-1, 17]}}"))
    np.testing.assert_allclose(found, np.logspace(-5, -1, 17), rtol=1e-11)
    assert (found[0], found[4], found[8], found[-1]) == (1e-5, 1e-4, 1e-3, 1e-1)


@settings(max_examples=60, deadline=None)
@given(first=st.integers(-8, 4), decades=st.integers(1, 4), per_decade=st.integers(1, 40))
def test_grids_of_equal_density_share_their_rates(
    first: int, decades: int, per_decade: int
) -> None:
    def space(low: int, high: int) -> list[float]:
        ends = f"1.0e{low}, 1.0e{high}, {(high - low) * per_decade + 1}"
        return rates(load(f"axes: {{train.learning_rate: {{logspace: [{ends}]}}}}"))

    wide, narrow = space(first, first + decades + 1), space(first, first + decades)
    assert wide[: len(narrow)] == narrow
    assert all(value == float(f"{value:.12g}") for value in wide)


def test_a_space_between_integers_gives_integers() -> None:
    assert seeds(load("axes: {seed: {linspace: [10, 30, 3]}}")) == [10, 20, 30]
    runs = load("axes: {model.d_model: {logspace: [64, 512, 4]}}").runs
    assert [run.model.d_model for run in runs] == [64, 128, 256, 512]
    with pytest.raises(GridError, match=r"1\.5 is a number, should be an integer"):
        load("axes: {seed: {linspace: [1, 2, 3]}}")


def test_a_space_of_one_is_its_first_value() -> None:
    assert rates(load("axes: {train.learning_rate: {logspace: [1e-3, 1e-1, 1]}}")) == [1e-3]


def test_an_exclude_entry_matches_lists_of_values_and_defaults() -> None:
    axes = {"seed": [1, 2, 3], "model.num_layers": [1, 2]}
    exclude = [{"seed": [1, 3], "model.num_layers": 2, "model.d_model": 64}]
    runs = load({"axes": axes, "exclude": exclude}).runs
    assert [(run.seed, run.model.num_layers) for run in runs] == [(1, 1), (2, 1), (2, 2), (3, 1)]


def test_an_exclude_entry_matches_a_mixer_as_a_whole_or_by_name() -> None:
    axes = {"model.mixer": ["attention", {"name": "attention", "conv": "q"}, "hyena"]}
    left = load({"axes": axes, "exclude": [{"model.mixer": "attention"}]}).runs
    assert [run.model.mixer.label for run in left] == ["attention (conv=q)", "hyena"]
    left = load({"axes": axes, "exclude": [{"model.mixer.name": "attention"}]}).runs
    assert [run.model.mixer.label for run in left] == ["hyena"]


def test_what_is_excluded_need_not_be_valid() -> None:
    axes = {"model.d_model": [6, 8], "model.mixer.num_heads": [3, 4]}
    exclude = [
        {"model.d_model": 6, "model.mixer.num_heads": 4},
        {"model.d_model": 8, "model.mixer.num_heads": 3},
    ]
    runs = load({"axes": axes, "exclude": exclude}).runs
    assert [(run.model.d_model, run.model.mixer.num_heads) for run in runs] == [(6, 3), (8, 4)]
    with pytest.raises(GridError, match="d_model 8 is not a multiple of num_heads 3"):
        load({"axes": axes, "exclude": exclude[:1]})


def test_each_part_of_a_config_is_checked_once_however_many_runs_share_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A grid of 100,000 runs is read in seconds."""
    made = Counter[str]()
    for part in (ModelConfig, TrainConfig):
        check = part.model_post_init

        def counted(self: Any, context: Any, /, check: Any = check) -> None:
            made[type(self).__name__] += 1
            check(self, context)

        monkeypatch.setattr(part, "model_post_init", counted)

    def checked(seeds: int) -> dict[str, int]:
        made.clear()
        axes = {"seed": [*range(seeds)], "model.mixer": ["mamba", "h3"], "train.epochs": [1, 2]}
        grid = {"axes": axes, "exclude": [{"model.mixer": "h3", "seed": 0}]}
        assert len(load(grid).runs) == 4 * seeds - 2
        return {**made}

    few = checked(2)
    assert set(few) == {"ModelConfig", "TrainConfig"} and checked(9) == few


def test_an_include_entry_has_axes_of_its_own_and_is_not_excluded() -> None:
    include = [{"model.d_model": [8, 16], "seed": 1}, {"seed": [2]}]
    grid = {"axes": {"seed": [1, 2]}, "exclude": [{"seed": [2]}], "include": include}
    runs = load(grid).runs
    assert [(run.seed, run.model.d_model) for run in runs] == [(1, 64), (1, 8), (1, 16), (2, 64)]


def test_an_override_takes_the_place_of_the_base_of_an_axis_and_of_a_part_of_one() -> None:
    grid = load(GOOD, "train.batch_size=32", "train.learning_rate=1e-5", "task.seq_len=48")
    assert {run.train.batch_size for run in grid.runs} == {32}
    assert set(rates(grid)) == {1e-5}
    assert {(run.task.seq_len, run.task.num_kv_pairs) for run in grid.runs} == {(48, 4), (48, 8)}
    assert set(seeds(grid)) == {1, 2, 3, 4}


def test_a_list_overrides_the_values_of_an_axis_in_its_place() -> None:
    grid = {"axes": {"seed": [1, 2], "model.d_model": [8, 16]}, "include": [{"seed": [7]}]}
    runs = load(grid, "seed=[5, 4]").runs
    found = [(run.seed, run.model.d_model) for run in runs]
    assert found == [(5, 8), (5, 16), (4, 8), (4, 16), (5, 64), (4, 64)]
    runs = load(grid, "seed={linspace: [1, 3, 3]}", "model.d_model=8").runs
    assert [run.seed for run in runs] == [1, 2, 3]


def test_an_override_of_a_whole_mixer_takes_its_options_out_of_the_axes() -> None:
    axes = {"model.mixer.num_heads": [1, 2], "seed": [1, 2]}
    runs = load({"axes": axes}, "model.mixer=hyena").runs
    assert [run.model.mixer.label for run in runs] == ["hyena", "hyena"]


def test_an_override_may_leave_an_exclude_entry_nothing_to_drop() -> None:
    assert set(seeds(load(GOOD, "seed=1"))) == {1}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_overrides_of_different_settings_hold_in_either_order(order: tuple[int, int]) -> None:
    overrides = ("model.mixer=mamba", "model.mixer.d_state=4")
    axes = {"model.mixer": ["attention"], "model.mixer.num_heads": [1, 2]}
    (run,) = load({"axes": axes}, *(overrides[i] for i in order)).runs
    assert run.model.mixer.label == "mamba (d_state=4)"


def test_an_override_is_laid_over_what_the_mixers_of_an_axis_set() -> None:
    axes = {"model.mixer": ["mamba", {"name": "mamba", "d_state": 4}]}
    (run,) = load({"axes": axes}, "model.mixer.d_state=8").runs
    assert run.model.mixer.d_state == 8


def test_different_settings_may_stand_under_a_broad_and_a_narrow_path() -> None:
    base = {"task": {"name": "mqar"}, "task.seq_len": 32, "model.mixer": "mamba"}
    grid = {"base": base, "axes": {"model.mixer": ["mamba", {"name": "mamba", "d_state": 4}]}}
    assert [run.model.mixer.d_state for run in load(grid).runs] == [16, 4]
    assert {run.task.seq_len for run in load(grid).runs} == {32}


def test_an_axis_may_set_what_the_other_axis_mixers_leave_open() -> None:
    axes = {"model.mixer": ["mamba", {"name": "mamba", "d_conv": 3}]}
    runs = load({"axes": axes | {"model.mixer.d_state": [8, 16]}}).runs
    assert [run.model.mixer.d_state for run in runs] == [8, 16, 8, 16]


def test_a_list_is_a_value_where_the_setting_takes_one() -> None:
    (run,) = load("{}", "train.betas=[0.8, 0.9]").runs
    assert run.train.betas == (0.8, 0.9)


@settings(max_examples=40, deadline=None)
@given(grid=grids(), data=st.data())
def test_an_override_by_one_value_leaves_the_runs_of_the_other_axes(
    grid: dict[str, Any], data: st.DataObject
) -> None:
    axes = grid["axes"]
    path = data.draw(st.sampled_from(sorted(VALUES)))
    new = data.draw(VALUES[path])
    runs = load({"axes": axes}, f"{path}={json.dumps(new)}").runs
    assert runs == load({"axes": {k: v for k, v in axes.items() if k != path} | {path: [new]}}).runs


def test_lr_fine_is_612_runs_one_seed_after_the_other() -> None:
    runs = load_grid(Path(__file__).parents[2] / "grids/lr_fine.yaml").runs
    assert len(runs) == 3 * 2 * 6 * 17
    assert [run.seed for run in runs[::204]] == [42, 123, 777]
    assert len({run.seed for run in runs[:204]}) == 1
    assert len({run.pack_key for run in runs[:17]}) == 1
    assert len({run.model.mixer.label for run in runs}) == 6
    assert {run.train.precision for run in runs} == {"bf16"}


def test_the_two_zeros_are_one_run() -> None:
    for values in ("[0, -0.0]", "[0.0, -0]", "{linspace: [0, 0, 2]}"):
        grid = load(f"axes: {{train.weight_decay: {values}}}")
        assert [str(run.train.weight_decay) for run in grid.runs] == ["0.0"]

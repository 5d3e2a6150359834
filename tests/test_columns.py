"""What tells runs apart: ids, labels and the columns of a table, the same in every version."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import train_into
from made_up import made_up_runs

from zoorecall import columns, load_grid, load_results, words
from zoorecall.analysis.accuracy import accuracies, setting_columns
from zoorecall.cli import main
from zoorecall.config import RunConfig, current_defaults
from zoorecall.errors import ResultsError
from zoorecall.mixers import MIXERS
from zoorecall.results import has_runs, read_rows
from zoorecall.sweeps.sweeper import plan_groups
from zoorecall.tasks import TASKS

RESULTS = Path(__file__).parents[1] / "results"
FOLDERS = sorted(filter(has_runs, RESULTS.glob("*")))


def run(**settings) -> RunConfig:
    return RunConfig.model_validate(settings)


def test_the_recorded_defaults_are_those_of_the_code():
    """An option's default never changes; one that is new is added to zoorecall/defaults.json."""
    assert current_defaults() == columns.defaults()


def test_an_id_hashes_what_is_not_at_its_default_and_the_names():
    assert run().run_id == columns.digest(
        {
            "task": {"name": "mqar"},
            "model": {"mixer": {"name": "attention"}, "positions": "learned"},
            "train": {},
            "seed": 42,
        }
    )
    assert run(model={"embed_dropout": 0.0}).run_id == run().run_id
    others = [
        run(seed=1),
        run(model={"embed_dropout": 0.1}),
        run(model={"mixer": {"name": "attention", "conv": "k"}}),
        run(model={"mixer": {"name": "mamba"}}),
        run(task={"name": "key_value_sum"}),
        run(train={"betas": [0.9, 0.95]}),
        run(train={"clip_norm": 1.0}),
    ]
    assert len({one.run_id for one in (run(), *others)}) == 8


def test_an_option_that_is_newer_than_a_row_changes_no_id(monkeypatch):
    config = run().model_dump(mode="json")
    newer = columns.defaults()
    newer = {**newer, "model": {**newer["model"], "new_option": "off"}}
    monkeypatch.setattr(columns, "defaults", lambda: newer)
    assert columns.with_defaults(config)["model"]["new_option"] == "off"
    assert columns.run_id(columns.with_defaults(config)) == run().run_id
    config["model"]["new_option"] = "on"
    assert columns.run_id(config) != run().run_id


def test_the_ids_of_committed_rows_are_those_of_their_configs():
    """Rows that an earlier version wrote, under ids of its own."""
    for folder in FOLDERS:
        rows = read_rows(folder)
        assert rows["run_id"].is_unique
        texts = rows.loc[~rows["config"].str.contains("package.module:|experiments.", regex=True)]
        for text, run_id in texts[["config", "run_id"]].head(5).itertuples(index=False):
            assert RunConfig.model_validate_json(text).run_id == run_id


@pytest.mark.parametrize("name", MIXERS)
def test_a_mixer_with_its_defaults_is_called_by_its_name(name):
    assert run(model={"mixer": {"name": name}}).model.mixer.label == name


def test_each_mixer_has_a_label_of_its_own():
    mixers = [
        {"name": "attention"},
        {"name": "attention", "conv": "k"},
        {"name": "lab_a.mix:Mine", "options": {}},
        {"name": "lab_b.mix:Mine", "options": {}},
        {"name": "lab_a.mix:Mine", "options": {"x": 1}},
        {"name": "lab_a.mix:Mine", "options": {"x": "1"}},
        {"name": "lab_a.mix:Mine", "options": {"x": True}},
        {"name": "lab_a.mix:Mine", "options": {"x": "True"}},
        {"name": "lab_a.mix:Mine", "options": {"x": None}},
        {"name": "lab_a.mix:Mine", "options": {"x": "k, y=1"}},
        {"name": "lab_a.mix:Mine", "options": {"x": "k", "y": 1}},
    ]
    assert len({columns.mixer_label(mixer) for mixer in mixers}) == len(mixers)


def test_a_users_mixer_goes_without_its_module_only_where_that_stays_different():
    one, other = "lab_a.mix:Mine", "lab_b.mix:Mine"
    assert columns.short_labels([one, "attention"]) == {one: "Mine", "attention": "attention"}
    assert columns.short_labels([one, other]) == {one: one, other: other}
    assert columns.short_labels(["a:Mine (x=1)", "a:Mine (x='b:c')"]) == {
        "a:Mine (x=1)": "Mine (x=1)", "a:Mine (x='b:c')": "Mine (x='b:c')",
    }  # fmt: skip


def two(column: str, *values: object) -> pd.DataFrame:
    """Runs that differ in one column only, a value each, made up to differ in accuracy."""
    tables = []
    for i, value in enumerate(values):
        table = made_up_runs(lambda *_, i=i: 0.2 + 0.5 * i, rates=(1e-3, 1e-2), seeds=(1, 2))
        value = pd.Series([value] * len(table), dtype=object)
        tables.append(table.assign(**{column: value, "run_id": table["run_id"] + str(i)}))
    return pd.concat(tables, ignore_index=True)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("train.clip_norm", (None, 1.0)),
        ("train.optimizer", ("adamw", "lion")),
        ("train.momentum", (0.9, 0.95)),
        ("train.stop_at_accuracy", (None, 0.9)),
        ("train.betas", ((0.9, 0.999), (0.9, 0.95))),
        ("task.recall", ("true", "false", "both")),
        ("task.vocab_size", (32, 64)),
        ("mixer", ("lab_a.mix:Mine", "lab_b.mix:Mine")),
        ("mixer.source", ("0a1b", "2c3d")),
        ("task.name", tuple(TASKS)),
    ],
)
def test_settings_that_differ_in_one_value_are_never_one_row(column, values):
    found = accuracies(two(column, *values))
    assert sorted(one.mean[0] for one in found) == [0.2 + 0.5 * i for i in range(len(values))]
    assert [column in one.setting for one in found] == [True] * len(values)
    assert len({words.setting(one.setting) for one in found}) == len(values)


def test_sizes_that_follow_from_the_options_are_not_told_as_well():
    runs = two("task.num_kv_pairs", 2, 4).assign(**{"task.num_queries": [2] * 4 + [4] * 4})
    assert "task.num_queries" not in setting_columns(runs)


def test_numbers_that_go_with_an_optimizer_are_not_told_as_well():
    runs = two("train.optimizer", "sgd", "muon").assign(
        **{"train.momentum": [0.9] * 4 + [0.95] * 4}
    )
    assert "train.momentum" not in setting_columns(runs)
    assert "train.momentum" in setting_columns(two("train.momentum", 0.9, 0.95))


def test_two_runs_of_one_setting_rate_and_seed_are_an_error():
    runs = made_up_runs(lambda *_: 0.5)
    with pytest.raises(ResultsError, match=r"runs run\d+ and copy have the same setting"):
        accuracies(pd.concat([runs, runs.head(1).assign(run_id="copy")]))


def test_every_column_has_a_meaning_and_somebody_who_decides_it():
    names = [column.name for column in (*columns.COLUMNS, *columns.CURVE_COLUMNS)]
    assert len(set(names)) == len(names) - len({"test_loss", "test_accuracy", "train_loss",
                                               "test_sequence_accuracy"})  # fmt: skip
    assert all(column.meaning for column in (*columns.COLUMNS, *columns.CURVE_COLUMNS))


def test_a_table_is_shown_without_torch():
    """Its import takes seconds, and so, half of one, does that of scipy.stats."""
    code = (
        "import sys; from zoorecall.cli import main; "
        f"main(['table', {str(FOLDERS[0])!r}, '--format', 'json']); "
        "print([m for m in ('torch', 'scipy.stats', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    table, _, loaded = done.stdout.rpartition("]\n[")
    assert json.loads(table + "]") and loaded == "]\n"


def test_a_folder_of_the_version_before_reads_resumes_and_draws(tmp_path, capsys):
    """Its rows have ids of their own, no sizes of the task, and no options that are newer."""
    (tmp_path / "small.yaml").write_text(SMALL_GRID)
    grid, folder = load_grid(tmp_path / "small.yaml"), tmp_path / "out"
    train_into(folder, grid.runs)
    (shard,) = (folder / "shards").iterdir()
    rows = pd.read_parquet(shard)
    configs = [json.loads(text) for text in rows["config"]]
    for config in configs:
        del config["model"]["embed_dropout"]
    before = rows.drop(columns=[*columns.TASK_SIZES, "curve.max_loss", "curve.max_grad_norm"])
    before = before.assign(run_id=["0ld0", "0ld1"], config=[json.dumps(x) for x in configs])
    before.to_parquet(shard)
    (folder / "plan.json").write_text(json.dumps({"pack": ["0ld0", "0ld1", "0ld2"]}))

    assert plan_groups(grid, "cpu", folder) == []
    again = load_results(folder)
    assert set(again.runs["run_id"]) == {run.run_id for run in grid.runs}
    assert set(again.runs["model.embed_dropout"]) == {0.0}
    assert again.curves["max_loss"].isna().all()
    for command in ("table", "plot", "report", "merge"):
        assert main([command, str(folder)]) == 0
    merged = load_results(folder)
    pd.testing.assert_frame_equal(merged.runs, again.runs)
    pd.testing.assert_frame_equal(merged.curves, again.curves)
    assert not (folder / "plan.json").exists() and plan_groups(grid, "cpu", folder) == []


SMALL_GRID = """
base:
  task: {name: mqar, vocab_size: 32, seq_len: 12, num_kv_pairs: 2}
  model: {d_model: 8, num_layers: 1}
  train: {train_examples: 40, batch_size: 20, test_examples: 10, evaluations: 1, epochs: 1}
axes:
  train.learning_rate: [1e-3, 1e-2]
"""

"""A grid file made of runs expands to these runs and to no other."""

import random
from pathlib import Path

import pytest

from zoorecall import load_grid
from zoorecall.grid.dump import dump_grid
from zoorecall.results import has_runs, read_rows

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(filter(has_runs, (ROOT / "results").glob("*")))

ODD = """
preset: zoology
base:
  model: {num_layers: 4}
  train: {batch_size: 20, train_examples: 40, betas: [0.9, 0.95]}
axes:
  seed: [2, 1]
  model.mixer:
    - attention
    - {name: attention, rope: true}
    - {name: pattern, mixers: [mamba2, {name: attention, conv: k}], attention_at: "50"}
    - {name: "grid_mixers:Mine", options: {kind: "1e5", "on": "true", more: {b: 1.0, a: []}}}
  model.positions: [auto, none]
  train.clip_norm: [null, 1.0]
exclude:
  - {seed: 2, train.clip_norm: 1.0}
include:
  - train.betas: [[0.9, 0.99], [0.8, 0.99]]
  - {train: {optimizer: sgd, betas: [0.9, 0.999]}, train.nesterov: [true, false]}
  - {train: {optimizer: muon, momentum: 0.9, betas: [0.9, 0.999]}}
  - task: {name: key_value_sum, num_values: 7}
    task.recall: [true, both]
    task.num_pairs: [10, 20]
  - task.name: key_value_sum
    size: [{train.learning_rate: 3e-3, train.eps: 1e-10}, {train.learning_rate: 1e-5}]
"""


def ids(runs) -> set[str]:
    return {run.run_id for run in runs}


def dumped(runs, description: str = "") -> str:
    return dump_grid([run.model_dump(mode="json") for run in runs], description)


def again(text: str, tmp_path):
    (tmp_path / "again.yaml").write_text(text)
    return load_grid(tmp_path / "again.yaml")


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """Presets, exclusions, two tasks, a pattern, a mixer of the user's own, odd values."""
    (tmp_path / "grid_mixers.py").write_text(
        "import torch\nclass Mine(torch.nn.Linear):\n"
        "    def __init__(self, d_model, kind, on, more): super().__init__(d_model, d_model)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "odd.yaml").write_text(ODD)
    return load_grid(tmp_path / "odd.yaml").runs


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_grid_of_a_committed_folder_is_what_was_run(folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert ids(load_grid(folder / "grid.yaml").runs) == set(read_rows(folder)["run_id"])


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("lengths", ["seed=42", "model.d_model=[64,128]"]),
        ("precision", []),
        ("positions", ["model.mixer=[mamba, attention]"]),
        ("key_value_sum", ["seed=42", "task.num_operands=2"]),
        ("quick", ["train.learning_rate={logspace: [1e-4, 1e-1, 3]}"]),
    ],
)
def test_a_grid_as_run_expands_to_its_runs(name, overrides, tmp_path):
    grid = load_grid(ROOT / "grids" / f"{name}.yaml", overrides)
    found = again(dumped(grid.runs, grid.description), tmp_path)
    assert ids(found.runs) == ids(grid.runs) and found.description == grid.description


def test_odd_values_and_runs_of_several_tasks_come_back(odd, tmp_path):
    assert ids(again(dumped(odd), tmp_path).runs) == ids(odd)
    assert ids(again(dumped(odd[:1]), tmp_path).runs) == ids(odd[:1])


def test_any_part_of_a_grid_comes_back(odd, tmp_path):
    draw = random.Random(0)
    for count in (2, 5, 20):
        runs = draw.sample(odd, count)
        assert ids(again(dumped(runs), tmp_path).runs) == ids(runs)


def test_the_text_depends_on_which_runs_there_are_and_on_nothing_else(odd, tmp_path):
    text = dumped(odd)
    assert dumped([*reversed(odd), *odd[:3]]) == text
    assert dumped(again(text, tmp_path).runs) == text


def test_sizes_that_go_together_and_what_auto_comes_to_stay_one_product(tmp_path):
    """Length, pairs and batch size are one axis; positions differ by mixer."""
    grid = load_grid(ROOT / "grids" / "lengths.yaml", ["seed=42", "model.d_model=64"])
    text = dumped(grid.runs)
    assert "include" not in text and "positions: auto" in text
    assert text.count("task.seq_len: ") == 3  # as many sizes

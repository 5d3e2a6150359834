"""What holds of every task of the registry: all commands show what was trained on it."""

import json

import pytest
import torch

from zoorecall import columns, load_results
from zoorecall.cli import main
from zoorecall.config import RunConfig
from zoorecall.sweeps.pack_job import train_pack
from zoorecall.sweeps.plan import PlannedPack
from zoorecall.tasks import TASKS

SMALL = {"train_examples": 40, "batch_size": 20, "test_examples": 10, "evaluations": 1, "epochs": 1}
FORMS = [*({"name": name} for name in TASKS), {"name": "key_value_sum", "recall": "both"}]


def train(folder, tasks) -> None:
    """Two learning rates of a small model on each task, into a results folder."""
    for task in tasks:
        settings = {"task": task, "model": {"d_model": 8, "num_layers": 1}}
        runs = tuple(
            RunConfig.model_validate(settings | {"train": SMALL | {"learning_rate": rate}})
            for rate in (1e-3, 1e-2)
        )
        assert train_pack(PlannedPack(runs), folder, torch.device("cpu"), 60, lambda *_: None)


def shown(folder, capsys) -> list[dict]:
    """The table, after every command that shows a folder has shown this one."""
    for form in ("text", "markdown", "csv"):
        assert main(["table", str(folder), "--format", form]) == 0
    assert main(["plot", str(folder), "--out", str(folder / "figure.svg")]) == 0
    assert main(["report", str(folder)]) == 0
    capsys.readouterr()
    assert main(["table", str(folder), "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("task", FORMS, ids=lambda task: "-".join(map(str, task.values())))
def test_every_command_shows_every_task(task, tmp_path, capsys):
    train(tmp_path, [task])
    (row,) = shown(tmp_path, capsys)
    config = RunConfig.model_validate({"task": task}).task
    assert row["length"] == config.seq_len and row["rates"] == 2
    assert set(row) >= set(config.slices)
    run = load_results(tmp_path).runs.iloc[0]
    assert {name: run[name] for name in columns.TASK_SIZES} == {
        "task.seq_len": config.seq_len,
        "task.vocab_size": config.vocab_size,
        "task.num_queries": config.num_queries,
    }


def test_a_folder_of_several_tasks_has_a_row_for_each(tmp_path, capsys):
    tasks = [*FORMS, {"name": "key_value_sum", "recall": False}, {"name": "mqar", "power_a": 1.0}]
    train(tmp_path, tasks)
    rows = shown(tmp_path, capsys)
    assert len(rows) == len(tasks) and {row["task"] for row in rows} == set(TASKS)
    by_recall = {row["recall"]: row for row in rows if row["task"] == "key_value_sum"}
    assert set(by_recall) == {"true", "false", "both"}
    assert by_recall["both"]["AR"] is not None and by_recall["true"]["AR"] is None
    page = (tmp_path / "report.html").read_text()
    assert "key_value_sum, 1 layer, width 8, length 25, recall both" in page

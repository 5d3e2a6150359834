"""A grid of the toy mixer and the toy task goes through every command."""

import os

from zoorecall.cli import main

GRID = """
base:
  task: {name: echo, distance: 5}
  model: {d_model: 8, num_layers: 2}
  train: {train_examples: 40, batch_size: 20, test_examples: 10, evaluations: 1, epochs: 1}
axes:
  model.mixer:
    - {name: running_mean, start: 0.5}
    - {name: pattern, mixers: [running_mean, attention]}
  train.learning_rate: [1e-3, 1e-2]
"""


def test_a_grid_of_running_mean_and_echo_is_swept_and_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)  # for one worker
    grid, folder = tmp_path / "grid.yaml", tmp_path / "out"
    grid.write_text(GRID)
    command = ["sweep", str(grid), "--device", "cpu", "--out", str(folder)]
    assert main([*command, "--dry-run"]) == 0
    assert main(command) == 0
    assert main(["report", str(folder)]) == 0
    assert main(["table", str(folder), "--format", "csv"]) == 0
    shown = capsys.readouterr().out
    assert "running_mean (start=0.5)" in shown and "running_mean + attention" in shown
    page = (folder / "report.html").read_text()
    assert "echo" in page and "running_mean (start 0.5)" in page

"""Arguments of the functions for users that make no sense are told in one line, before there is a
folder."""

import pytest
from conftest import small_run

from zoorecall import Grid, sweep, train, tune
from zoorecall.errors import UserError

GRID = Grid("small", (small_run(), small_run(seed=1)))

WRONG = {
    "sweep: grid: .* not 'grids/quick.yaml'": lambda out: sweep("grids/quick.yaml", out),
    "sweep: device: .*'cpu' or 'cuda', not 'tpu'": lambda out: sweep(GRID, out, device="tpu"),
    "sweep: executor: .* not 'slurm'": lambda out: sweep(GRID, out, executor="slurm"),
    "sweep: part: .* not '1/2'": lambda out: sweep(GRID, out, part="1/2"),
    "sweep: part: Input should be greater than 0": lambda out: sweep(GRID, out, part=(0, 2)),
    "there is no part 3 of 2": lambda out: sweep(GRID, out, part=(3, 2)),
    "sweep: checkpoint_seconds: .* not -1": lambda out: sweep(GRID, out, checkpoint_seconds=-1),
    "the grid has no runs": lambda out: sweep(Grid("small", ()), out),
    "tune: space: .* not Grid": lambda out: tune(GRID, out),
    "train: device: .* not 'tpu'": lambda out: train(GRID.runs, device="tpu"),
    r"train: runs: .* not \[3\]": lambda out: train([3]),
    "there are no runs to train": lambda out: train([]),
}


@pytest.mark.parametrize(("message", "call"), WRONG.items(), ids=list(WRONG))
def test_wrong_arguments_are_told_in_one_line(message, call, tmp_path):
    with pytest.raises(UserError, match=message) as raised:
        call(tmp_path / "out")
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 160
    assert not (tmp_path / "out").exists()

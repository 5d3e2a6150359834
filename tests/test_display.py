"""What a sweep's display says of the time that is left."""

import io

import pandas as pd
import pytest
from rich.console import Console

from zoorecall import display
from zoorecall.config import RunConfig
from zoorecall.display import SweepDisplay
from zoorecall.sweeps.events import Progress, Started, Warned
from zoorecall.sweeps.plan import PlannedPack
from zoorecall.tables import print_table


@pytest.fixture
def at(monkeypatch):
    """Sets the clock."""
    clock = {"now": 0.0}
    monkeypatch.setattr(display.time, "monotonic", lambda: clock["now"])
    return lambda seconds: clock.update(now=seconds)


@pytest.fixture
def shown(at, tmp_path):
    """A display of one pack of two runs, 1,000 steps each."""
    train = {"train_examples": 100, "batch_size": 10, "epochs": 100}
    runs = [RunConfig.model_validate({"seed": seed, "train": train}) for seed in (1, 2)]
    pack = PlannedPack(tuple(runs))
    shown = SweepDisplay(Console(file=io.StringIO(), width=200))
    shown.show(Started(tmp_path, "cpu", (pack,), 0))

    def progress(seconds, step):
        at(seconds)
        shown.show(Progress(pack.pack_id, step, (0.1, 0.2), ()))
        return shown._pace()

    return progress


def test_the_time_left_is_not_guessed_from_the_time_that_compiling_took(shown):
    assert shown(20, 0) == "20s elapsed"
    assert shown(60, 100) == "1:00 elapsed"
    assert shown(70, 200) == "20 run-steps/s, 1:10 elapsed, 1:20 left"


def test_a_warning_is_shown_once(tmp_path):
    shown = SweepDisplay(Console(file=io.StringIO(), width=40))
    for run_id in "abc":
        shown.show(Warned((run_id,), "pkg.file:Mixer [1, 2] looks into the future, or so it seems"))
    shown.show(Warned(("a",), "another"))
    lines = [x for x in shown.console.file.getvalue().splitlines() if x.startswith("warning")]
    assert lines == [
        "warning: pkg.file:Mixer [1, 2] looks into the future, or so it seems",
        "warning: another",
    ]


def test_a_mixers_options_may_have_brackets(capsys):
    name = "my:Mixer (kinds=[a, b])"
    print_table(pd.DataFrame({"mixer": [name]}))
    shown = SweepDisplay()
    shown.best = {f"{name} x2": 0.5}
    shown.console.print(shown._panel())
    out, err = capsys.readouterr()
    assert name in out and name in err


def test_the_time_left_follows_the_pace_of_the_last_minute(shown):
    for i in range(21):
        shown(10 * i, 10 * i)
    for i in range(1, 8):
        pace = shown(200 + 10 * i, 200 + 100 * i)
    assert pace == "20 run-steps/s, 4:30 elapsed, 10s left"

"""What a sweep's display says of the time that is left."""

import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
import torch
from rich.console import Console

from zoorecall import display
from zoorecall.bench import RECORDS, Measurement, estimated_hours
from zoorecall.config import RunConfig
from zoorecall.display import SweepDisplay
from zoorecall.model.cost import forward_flops
from zoorecall.sweeps.events import (
    Evaluation,
    Failed,
    Finished,
    Progress,
    Pruned,
    Reduced,
    Retried,
    Started,
    SweepEvent,
    Warned,
)
from zoorecall.sweeps.plan import RunGroup
from zoorecall.sweeps.provenance import device_name
from zoorecall.tables import print_table


@pytest.fixture
def at(monkeypatch):
    """Sets the clock."""
    clock = {"now": 0.0}
    monkeypatch.setattr(display.time, "monotonic", lambda: clock["now"])
    return lambda seconds: clock.update(now=seconds)


@pytest.fixture
def runs() -> tuple[RunConfig, ...]:
    """Two runs of 1,000 steps each."""
    train = {"train_examples": 100, "batch_size": 10, "epochs": 100}
    return tuple(RunConfig.model_validate({"seed": seed, "train": train}) for seed in (1, 2))


@pytest.fixture
def shown(at, runs, tmp_path):
    """Tells a display of these runs how far they are; returns what it says of the time."""
    shown = SweepDisplay(Console(file=io.StringIO(), width=200))
    shown.show(Started(tmp_path, "cpu", (RunGroup(runs, 2),), 0))

    def progress(seconds, *steps):
        """Both are at this step, or each at its own."""
        at(seconds)
        ids = [run.run_id for run in runs]
        shown.show(Progress(dict(zip(ids, 2 * steps, strict=False)), ()))
        return shown._pace()

    progress.display = shown
    return progress


def test_the_time_left_is_told_once_a_run_has_a_tenth_of_its_steps(shown):
    """Before, it compiles, and is evaluated every few steps."""
    assert shown(20, 0) == "20s elapsed"
    assert shown(60, 50) == "1:00 elapsed"
    assert shown(70, 100) == "1:10 elapsed"
    assert shown(80, 200) == "20 run-steps/s, 1:20 elapsed, 1:20 left"


def test_the_time_left_is_near_the_truth_from_the_first_time_it_is_told(at, tmp_path):
    """A sweep of twelve runs, two at a time, whose evaluations cost ten times their steps: at each
    of 60 a pace of the first steps would say half an hour or more of three minutes."""
    steps, evaluation, step = 400, 0.5, 0.01
    train = {"train_examples": 100, "batch_size": 10, "epochs": steps / 10}
    runs = [RunConfig.model_validate({"seed": seed, "train": train}) for seed in range(12)]
    shown = SweepDisplay(Console(file=io.StringIO(), width=200))
    shown.show(Started(tmp_path, "cpu", (RunGroup(tuple(runs), 2),), 0))
    at_steps = runs[0].train.evaluation_steps
    of_one = [step * s + evaluation * (i + 1) for i, s in enumerate(at_steps)]
    timeline = sorted(
        (of_one[-1] * (k // 2) + seconds, k, s)
        for k in range(len(runs))
        for seconds, s in zip(of_one, at_steps, strict=True)
    )
    end, told = timeline[-1][0], []
    for seconds, k, s in timeline:
        at(seconds)
        shown.show(Progress({runs[k].run_id: s}, ()))
        if s == steps:
            shown.show(Finished((runs[k].run_id,)))
        left = shown.bar.tasks[0].time_remaining
        if left is not None and end - seconds > 20:
            told.append(left / (end - seconds))
    assert len(told) > 400 and end > 180
    assert min(told) > 0.4 and max(told) < 2.5


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


def test_runs_that_end_early_or_go_on_from_a_checkpoint_leave_the_time_that_is_left(shown, runs):
    """Each is at a step of its own, and where one first is heard of its training begins."""
    display, ids = shown.display, [run.run_id for run in runs]
    shown(0, 500, 0)
    shown(10, 600, 100)
    assert shown(20, 700, 200) == "20 run-steps/s, 20s elapsed, 55s left"
    display.show(Finished((ids[0],)))
    assert display.bar.tasks[0].remaining == 800
    display.show(Retried((ids[1],), "died"))
    display.show(Progress({ids[1]: 150}, ()))  # 50 steps are lost
    assert display.bar.tasks[0].remaining == 850 and display.bar.tasks[0].completed == 400
    display.show(Pruned((ids[1],)))
    assert display.bar.tasks[0].remaining == 0


LINES: dict[str, Callable[[tuple[str, ...]], SweepEvent]] = {
    "out of memory: 2 runs go on, 1 at once": lambda ids: Reduced(ids, 1),
    "2 runs: died; on from the last checkpoint": lambda ids: Retried(ids, "died"),
    "1 run: died; on from the last checkpoint": lambda ids: Retried(ids[:1], "died"),
    "2 runs of attention failed: no such luck": lambda ids: Failed(ids, "no such luck"),
    "1/2 runs, 0s elapsed; best: attention x2 0.75": lambda ids: Finished(ids[:1]),
}


@pytest.mark.parametrize("line", LINES)
def test_what_happens_is_a_line(line, shown, runs):
    ids = tuple(run.run_id for run in runs)
    evaluations = (Evaluation(ids[0], 0, {"test_accuracy": 0.75}), Evaluation(ids[1], 0, {}))
    shown.display.show(Progress(dict.fromkeys(ids, 0), evaluations))
    before = shown.display.console.file.getvalue()
    assert before.startswith("2 runs of 1 shape on cpu into ")
    shown.display.show(LINES[line](ids))
    assert shown.display.console.file.getvalue().removeprefix(before) == f"{line}\n"


def test_the_hours_of_a_plan_are_those_of_steps_that_were_measured(tmp_path, monkeypatch):
    """Nothing is said of a mixer, or of a size, that nobody has measured on this device."""
    monkeypatch.chdir(tmp_path)
    cpu, run = torch.device("cpu"), RunConfig()
    seconds, share, peak = 0.25, 0.5, 3 * forward_flops(run) * run.train.batch_size / 0.125
    step = Measurement(
        *("attention", "attention", 2, 64, 64, 512, 1, "fp32", 1e3 * seconds, 1e5, share, 0.1),
        *(0.0, 1.0, "", []),
    )
    group, record = RunGroup((run,), 1), tmp_path / RECORDS / "here.json"
    assert estimated_hours([group], cpu) == (0, 1)
    record.parent.mkdir(parents=True)
    told = {"device": device_name(cpu), "flops_per_second": peak, "measurements": [asdict(step)]}
    record.write_text(json.dumps(told))
    hours, unknown = estimated_hours([group, group], cpu)
    assert unknown == 0 and hours == pytest.approx(2 * seconds * run.train.num_steps / 3600)
    for model in ({"mixer": {"name": "hyena"}}, {"d_model": 1024}):
        other = RunGroup((RunConfig.model_validate({"model": model}),), 1)
        assert estimated_hours([other], cpu) == (0, 1)
    record.write_text(json.dumps(told | {"device": "another"}))
    assert estimated_hours([group], cpu) == (0, 1)


@pytest.mark.parametrize(("search", "says"), [(False, "nothing to train"), (True, "searching")])
def test_a_sweep_with_nothing_left_to_train_is_no_search(search, says, capsys):
    with SweepDisplay() as shown:
        shown.show(Started(Path("here"), "cpu", (), 8, is_search=search))
    assert f"{says} on cpu into here; 8 finished before" in capsys.readouterr().err

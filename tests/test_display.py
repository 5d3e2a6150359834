"""What a sweep's display says of the time that is left."""

import io
import json
from dataclasses import asdict

import pandas as pd
import pytest
import torch
from rich.console import Console

from zoorecall import display
from zoorecall.bench import RECORDS, Measurement, estimated_hours
from zoorecall.config import RunConfig
from zoorecall.display import SweepDisplay
from zoorecall.model.cost import forward_flops
from zoorecall.sweeps.events import Finished, Progress, Started, Warned
from zoorecall.sweeps.plan import PlannedPack
from zoorecall.sweeps.provenance import device_name
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


def test_the_time_left_is_told_once_a_pack_has_a_tenth_of_its_steps(shown):
    """Before, it compiles, and is evaluated every few steps."""
    assert shown(20, 0) == "20s elapsed"
    assert shown(60, 50) == "1:00 elapsed"
    assert shown(70, 100) == "1:10 elapsed"
    assert shown(80, 200) == "20 run-steps/s, 1:20 elapsed, 1:20 left"


def test_the_time_left_is_near_the_truth_from_the_first_time_it_is_told(at, tmp_path):
    """A sweep of twelve packs, two at a time, whose evaluations cost ten times their steps: at each
    of 60 a pace of the first steps would say half an hour or more of three minutes."""
    steps, evaluation, step = 400, 0.5, 0.01
    train = {"train_examples": 100, "batch_size": 10, "epochs": steps / 10}
    runs = [RunConfig.model_validate({"seed": seed, "train": train}) for seed in range(12)]
    packs = [PlannedPack((run,)) for run in runs]
    shown = SweepDisplay(Console(file=io.StringIO(), width=200))
    shown.show(Started(tmp_path, "cpu", tuple(packs), 0))
    at_steps = runs[0].train.evaluation_steps
    of_one = [step * s + evaluation * (i + 1) for i, s in enumerate(at_steps)]
    timeline = sorted(
        (of_one[-1] * (k // 2) + seconds, k, s)
        for k in range(len(packs))
        for seconds, s in zip(of_one, at_steps, strict=True)
    )
    end, told = timeline[-1][0], []
    for seconds, k, s in timeline:
        at(seconds)
        shown.show(Progress(packs[k].pack_id, s, (0.1,), ()))
        if s == steps:
            shown.show(Finished(packs[k].pack_id))
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


def test_the_hours_of_a_plan_are_those_of_steps_that_were_measured(tmp_path, monkeypatch):
    """Nothing is said of a mixer, or of a size, that nobody has measured on this device."""
    monkeypatch.chdir(tmp_path)
    cpu, run = torch.device("cpu"), RunConfig()
    seconds, share, peak = 0.25, 0.5, 3 * forward_flops(run) * run.train.batch_size / 0.125
    step = Measurement(
        *("attention", "attention", 2, 64, 64, 512, 1, "fp32", 1e3 * seconds, 1e5, share, 0.1),
        *(0.0, 1.0, "", []),
    )
    pack, record = PlannedPack((run,)), tmp_path / RECORDS / "here.json"
    assert estimated_hours([pack], cpu) == (0, 1)
    record.parent.mkdir(parents=True)
    told = {"device": device_name(cpu), "flops_per_second": peak, "measurements": [asdict(step)]}
    record.write_text(json.dumps(told))
    hours, unknown = estimated_hours([pack, pack], cpu)
    assert unknown == 0 and hours == pytest.approx(2 * seconds * run.train.num_steps / 3600)
    for model in ({"mixer": {"name": "hyena"}}, {"d_model": 1024}):
        other = PlannedPack((RunConfig.model_validate({"model": model}),))
        assert estimated_hours([other], cpu) == (0, 1)
    record.write_text(json.dumps(told | {"device": "another"}))
    assert estimated_hours([pack], cpu) == (0, 1)

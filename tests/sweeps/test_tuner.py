"""A search trains what it asks for, as a sweep does, into tables that all commands read."""

from collections import deque

import pandas as pd
import pytest
from conftest import small_run

from zoorecall import load_results, load_space, tune
from zoorecall.cli import main
from zoorecall.results import checkpoint_path
from zoorecall.search import Search
from zoorecall.sweeps import sweeper
from zoorecall.sweeps.events import Asked, Done, Failed, Finished, More, Pruned, Train, Warned
from zoorecall.sweeps.plan import RunGroup
from zoorecall.sweeps.schedule import Schedule
from zoorecall.sweeps.sweeper import train_all
from zoorecall.sweeps.tuner import Searching
from zoorecall.sweeps.watch import Watch

GRID = """
base:
  task: {name: mqar, vocab_size: 32, seq_len: 12, num_kv_pairs: 2}
  model: {d_model: 16, mixer: delta_net}
  train: {train_examples: 40, test_examples: 24, batch_size: 8, epochs: 2, evaluations: 4}
axes:
  train.learning_rate: {log: [1e-3, 1e-1]}
  seed: [1, 2]
"""


LONG = ["train.epochs=60", "train.evaluations=30", "task.num_kv_pairs=1"]
"""Settings of a run that takes long enough to be pruned, and learns at some rates."""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "rates.yaml"
    path.write_text(GRID)
    return path


@pytest.fixture
def space(path):
    return load_space(path)


def ids(events, kind):
    """The ids of the runs in events of a kind, in their order."""
    found = [event for event in events if isinstance(event, kind)]
    if kind is Asked:
        return [run.run_id for x in found for group in x.groups for run in group.runs]
    return [run_id for x in found for run_id in x.run_ids]


@pytest.mark.usefixtures("in_this_process")
def test_each_run_that_is_asked_for_is_a_row_or_pruned_with_its_checkpoint_kept(path, tmp_path):
    events, folder, space = [], tmp_path / "out", load_space(path, LONG)
    results, answers = tune(space, folder, device="cpu", on_event=events.append)
    asked, finished, pruned = (ids(events, kind) for kind in (Asked, Finished, Pruned))
    assert len(asked) == len(set(asked)) > 3 and pruned
    assert set(asked) == {*finished, *pruned} and set(results.runs["run_id"]) == {*finished}
    assert all(checkpoint_path(folder, run_id).exists() for run_id in pruned)
    assert not any(checkpoint_path(folder, run_id).exists() for run_id in finished)
    ((_, values, accuracy, runs),) = answers
    assert 1e-3 <= values["train.learning_rate"] <= 1e-1 and runs == len(asked)
    assert 0 <= accuracy <= 1
    again = []
    tune(space, folder, device="cpu", on_event=again.append)
    assert ids(again, Asked) == []


@pytest.mark.usefixtures("in_this_process")
def test_a_search_that_is_interrupted_goes_on_and_asks_for_nothing_twice(space, tmp_path):
    whole, _ = tune(space, tmp_path / "whole", device="cpu", pruner="none")
    folder, before, after = tmp_path / "out", [], []

    def interrupt(event):
        before.append(event)
        if isinstance(event, Finished):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(space, folder, device="cpu", pruner="none", on_event=interrupt)
    finished = set(load_results(folder).runs["run_id"])
    folder = folder.rename(tmp_path / "renamed")
    results, _ = tune(space, folder, device="cpu", pruner="none", on_event=after.append)
    assert finished and not finished & set(ids(after, Asked))
    columns = ["run_id", "test_accuracy", "test_loss", "steps_to_solve"]
    pd.testing.assert_frame_equal(results.runs[columns], whole.runs[columns])


@pytest.mark.usefixtures("in_this_process")
def test_commands_read_what_a_search_has_found(path, tmp_path, capsys):
    folder = tmp_path / "out"
    options = ["--out", str(folder), "--device", "cpu", "--runs", "3", "--pruner", "none"]
    assert main(["tune", str(path), *options]) == 0
    told = capsys.readouterr().out
    assert "best learning rate" in told and "mean accuracy" in told
    assert len(load_results(folder)) == 3
    for command in ("table", "plot", "report"):
        assert main([command, str(folder)]) == 0


def test_a_dry_run_says_about_how_many_runs_and_writes_nothing(path, monkeypatch, capsys):
    tmp_path = path.parent
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(["tune", path.name, "--device", "cpu", "--dry-run", "--runs", "4"]) == 0
    assert "4 runs of 1 shape on cpu" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_that_fails_is_told_to_the_search(monkeypatch):
    told = []
    monkeypatch.setattr(Search, "ended", lambda self, run_id, x, pruned=False: told.append(x))
    Searching(Search.__new__(Search), None).hear(Failed(("a", "b"), "why"))
    assert told == [None, None]


class Workers:
    """An executor whose workers finish at once what they are given."""

    places = ("cpu", "cpu")

    def __init__(self):
        self.told = deque()

    def give(self, place, order):
        if isinstance(order, Train | More):
            run_ids = tuple(run.run_id for run in order.runs)
            self.told.append((place, Finished(run_ids) if run_ids else Done()))

    def event(self, seconds):
        return self.told.popleft()  # raises where all are silent


class OfTwo:
    """A source that has one run now, and another after three looks at a search elsewhere."""

    def __init__(self, *runs):
        self.runs, self.looks, self.ended = dict(zip((0, 3), runs, strict=True)), 0, []

    def look(self, seconds):
        self.looks += 1

    def ask(self, room):
        run = self.runs.pop(self.looks, None)
        return [RunGroup((run,), 1)] if run else []

    def hear(self, event):
        self.ended += event.run_ids if isinstance(event, Finished) else ()
        return ()

    @property
    def finished(self):
        return len(self.ended) == 2


def test_a_held_worker_wakes_when_a_search_elsewhere_is_further_and_the_user_is_told_once(
    monkeypatch,
):
    runs, events = [small_run(seed=seed) for seed in (1, 2)], []
    source = OfTwo(*runs)
    monkeypatch.setattr(sweeper.time, "sleep", source.look)
    watch = Watch(Workers(), None, events.append)
    train_all(Schedule((), Workers.places), watch, events.append, source)
    assert source.ended == [run.run_id for run in runs]
    (told,) = (event.text for event in events if isinstance(event, Warned))
    assert told.startswith("waiting for runs that another search")

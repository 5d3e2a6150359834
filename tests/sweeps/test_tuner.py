"""A search trains what it asks for, as a sweep does, into tables that all commands read."""

import shutil
from collections import deque
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import small_run
from optuna.exceptions import StorageInternalError
from optuna.storages import InMemoryStorage

import zoorecall
from zoorecall import arguments, load_grid, load_results, load_space, results, tune
from zoorecall.checkpoints import checkpoint_path
from zoorecall.cli import main
from zoorecall.columns import RATE
from zoorecall.search import PRUNERS, SAMPLERS, Search
from zoorecall.search.pruners import PlateauPruner
from zoorecall.sweeps import merging, plan, sweeper, tuner
from zoorecall.sweeps.events import (
    Asked,
    Done,
    Evaluation,
    Failed,
    Finished,
    More,
    Progress,
    Pruned,
    Retried,
    Train,
    Warned,
)
from zoorecall.sweeps.plan import RunGroup
from zoorecall.sweeps.schedule import Schedule
from zoorecall.sweeps.sweeper import train_all
from zoorecall.sweeps.tuner import Searching
from zoorecall.sweeps.watch import Watch

GRID = """
base:
  task: {name: mqar, vocab_size: 32, seq_len: 12, num_kv_pairs: 2}
  model: {d_model: 16, mixer: delta_net}
  train: {test_examples: 24, batch_size: 8, epochs: 2, evaluations: 4}
axes:
  train.learning_rate: {log: [1e-3, 1e-1]}
  model.num_layers: [1]
  train.train_examples: [40]
  seed: [1, 2]
"""

RESULTS = Path(zoorecall.__file__).parents[1] / "results"

LONG = ["train.epochs=20", "train.evaluations=10"]
"""Settings of a run that takes long enough to be pruned."""


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
def test_each_run_that_is_asked_for_is_a_row_or_pruned_with_its_checkpoint_kept(
    path, tmp_path, monkeypatch
):
    monkeypatch.setattr(PlateauPruner, "prune", lambda self, study, trial: trial.params[RATE] < 0.1)
    events, folder, space = [], tmp_path / "out", load_space(path, LONG)
    results, answers = tune(space, folder, device="cpu", on_event=events.append)
    asked, finished, pruned = (ids(events, kind) for kind in (Asked, Finished, Pruned))
    assert len(asked) == len(set(asked)) > 3 and pruned
    assert set(asked) == {*finished, *pruned} and set(results.runs["run_id"]) == {*finished}
    assert all(checkpoint_path(folder, run_id).exists() for run_id in pruned)
    assert not any(checkpoint_path(folder, run_id).exists() for run_id in finished)
    (answer,) = answers
    assert 1e-3 <= answer.values[RATE] <= 1e-1 and answer.runs == len(asked)
    assert 0 <= answer.accuracy <= 1
    stated = load_grid(folder / "grid.yaml").runs  # which a sweep goes on with
    assert {run.run_id for run in stated} == {*asked}
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
    assert "best learning rate" in told and "mean accuracy" in told and "no row" not in told
    assert len(load_results(folder)) == 3
    for command in ("table", "plot", "report"):
        assert main([command, str(folder)]) == 0


def test_a_dry_run_says_about_how_many_runs_and_writes_nothing(path, monkeypatch, capsys):
    tmp_path = path.parent
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    dry = ["tune", path.name, "--device", "cpu", "--dry-run"]
    for more, says in (
        (["--runs", "4"], "4 runs of 1 shape"),
        (["--runs", "3", "--set", "model.num_layers=[1, 2]"], "3 runs of 2 shapes"),
        (["--runs", "1", "--set", "model.num_layers=[1, 2]"], "1 run of 1 shape"),
        (["--sampler", "grid", "--set", "seed=[1]"], "9 runs of 1 shape"),
    ):
        assert main([*dry, *more]) == 0
        assert f"{says} on cpu" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_that_fails_is_told_to_the_search(monkeypatch):
    told = []
    monkeypatch.setattr(Search, "ended", lambda self, run_id, x, pruned=False: told.append(x))
    Searching(Search.__new__(Search), None).hear(Failed(("a", "b"), "why"))
    assert told == [None, None]


def evaluated(run, step=0):
    """What a worker says of a run in which nothing is recalled."""
    return Progress({}, (Evaluation(run.run_id, step, {"test_accuracy": 0.0}),))


def asked_by(source):
    return [run for group in source.ask(99) for run in group.runs]


def test_a_run_is_pruned_until_its_worker_has_heard_of_it(space):
    source = Searching(Search(space, storage=InMemoryStorage()), torch.device("cpu"))
    run = asked_by(source)[0]
    late = run.train.num_steps - 1
    assert [source.hear(evaluated(run, step)) for step in (0, late)] == [(), (run.run_id,)]
    source.hear(Retried((run.run_id,), "its worker died"))
    assert source.hear(evaluated(run, late)) == (run.run_id,)


def all_pruned(folder, schedule, watch, on_event, source, slots):
    """Stands for training in which every run is pruned."""
    while runs := asked_by(source):
        for run in runs:
            source.hear(evaluated(run))
        source.hear(Pruned(tuple(run.run_id for run in runs)))


def one_fails(folder, schedule, watch, on_event, source, slots):
    run = asked_by(source)[0]
    source.hear(Failed((run.run_id,), "it is broken"))
    schedule.failed.append((run, "it is broken"))


def no_storage(*_):
    raise StorageInternalError("a long story") from ValueError("it is locked\nby others")


@pytest.mark.parametrize(
    ("trains", "code", "says"),
    [
        (all_pruned, 0, "runs, pruned or failed, which `zoorecall sweep"),
        (one_fails, 1, "1 of 3 runs failed, the first (delta_net) with: it is broken; see"),
        (no_storage, 2, "study.log cannot be used: it is locked; what was trained is kept"),
    ],
)
def test_how_a_search_ends_that_found_no_run(trains, code, says, path, monkeypatch, capsys):
    monkeypatch.setattr(tuner, "train_all", trains)
    folder = path.parent / "out"
    assert main(["tune", str(path), "--out", str(folder), "--device", "cpu"]) == code
    out, err = capsys.readouterr()
    assert says in (out if code == 0 else err.splitlines()[-1])
    assert ("mean accuracy" in out) == (code == 0)


def test_a_search_that_starts_nothing_says_what_others_have_found(path, space, capsys):
    folder, journal = path.parent / "out", path.parent / "study.log"
    words = ["--device", "cpu", "--time", "0", "--storage", str(journal)]
    assert main(["tune", str(path), "--out", str(folder), *words]) == 0
    assert "no run is over yet" in capsys.readouterr().out
    other = Search(space, storage=journal, folder="other")
    other.ended(other.ask(1)[0].run_id, 0.5)
    assert main(["tune", str(path), "--out", str(folder), *words]) == 0
    assert "0.50" in capsys.readouterr().out


def test_a_search_into_the_folder_of_a_sweep_leaves_its_order_and_what_its_grid_says(
    space, tmp_path
):
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("runs.parquet", "curves.parquet", "runs.csv", "grid.yaml"):
        shutil.copy(RESULTS / "tune_small" / name, folder)
    order = results.table_order(folder)
    more = small_run()  # that the sweep was to train, too
    merging.write_grid(folder, [more], "a sweep")
    tune(space, folder, device="cpu", seconds=0)
    assert results.table_order(folder) == order and sorted(order) != [*order]
    grid = load_grid(folder / "grid.yaml")
    assert grid.description == "a sweep"
    assert {run.run_id for run in grid.runs} == {*order, more.run_id}


EXAMPLES = "train.train_examples"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--sampler", "windw"], "invalid choice: 'windw'"),
        (["--pruner", "media"], "invalid choice: 'media'"),
        (["--set", f"{EXAMPLES}={{int: [40, 80]}}", "--sampler", "window"], "--sampler window"),
        (["--set", f"{EXAMPLES}={{int: [40, 4000000]}}"], "GiB at the least"),
    ],
)
def test_what_is_wrong_with_a_search_is_told_before_there_is_a_folder(
    words, says, path, monkeypatch, capsys
):
    monkeypatch.setattr(plan, "total_memory", lambda device: 10**8)
    folder = path.parent / "out"
    try:
        code = main(["tune", str(path), "--out", str(folder), "--device", "cpu", *words])
    except SystemExit as error:
        code = error.code
    assert code == 2 and says in capsys.readouterr().err and not folder.exists()


def test_names_of_samplers_and_pruners_are_those_of_the_code():
    assert arguments.SAMPLERS == SAMPLERS and [*arguments.PRUNERS] == [*PRUNERS]


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
    tmp_path, monkeypatch
):
    runs, events = [small_run(seed=seed) for seed in (1, 2)], []
    source = OfTwo(*runs)
    monkeypatch.setattr(sweeper.time, "sleep", source.look)
    watch = Watch(Workers(), None, events.append)
    train_all(tmp_path, Schedule((), Workers.places), watch, events.append, source)
    assert source.ended == [run.run_id for run in runs]
    (told,) = (event.text for event in events if isinstance(event, Warned))
    assert told.startswith("waiting for runs that another search")

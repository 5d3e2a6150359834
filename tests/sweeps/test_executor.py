"""What a worker does with a job, in this process: the same in whatever executor."""

import io
import itertools
import math
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import DOES, small_run

from zoorecall import checkpoints, load_results
from zoorecall.checkpoints import read_checkpoint
from zoorecall.config import RunConfig
from zoorecall.sweeps import executor
from zoorecall.sweeps.events import (
    Done,
    Finished,
    JobEvent,
    More,
    OutOfMemory,
    Progress,
    Prune,
    Pruned,
    Raised,
    Setup,
    Stop,
    Stopped,
    Train,
    Unwritable,
    Warned,
)
from zoorecall.sweeps.executor import Inbox, perform


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Performs a job of a mixer whose forward first does what it is given; returns its events."""
    (tmp_path / "does_in_executor.py").write_text(DOES)
    monkeypatch.syspath_prepend(tmp_path)

    def run(code: str, folder: Path = tmp_path):
        mixer = {"name": "does_in_executor:Does", "options": {"code": code}}
        run = small_run(epochs=1)
        model = {"d_model": 16, "num_layers": 1, "mixer": mixer}
        run = type(run).model_validate({**run.model_dump(), "model": model})
        return run, train([run], folder, 1)

    return run


def train(
    runs: list[RunConfig],
    folder: Path,
    slots: int,
    answer: Callable[[JobEvent, Inbox], None] = lambda event, inbox: None,
    checkpoint_seconds: float = math.inf,
) -> list[JobEvent]:
    """The events of training these runs, of which those beyond the slots wait. `answer` may put an
    order at any event."""
    waiting, heard, inbox = list(runs[slots:]), list[JobEvent](), Inbox()

    def emit(event: JobEvent) -> None:
        heard.append(event)
        answer(event, inbox)
        if isinstance(event, Finished | Pruned):
            count = min(len(event.run_ids), len(waiting))
            inbox.put(More(tuple(waiting.pop(0) for _ in range(count))))

    setup = Setup(folder, "cpu", 1, checkpoint_seconds)
    perform(Train(tuple(runs[:slots]), slots), setup, emit, inbox)
    return heard


def ids(*runs: RunConfig) -> tuple[str, ...]:
    return tuple(run.run_id for run in runs)


def test_a_run_is_trained_and_every_evaluation_told(tmp_path):
    run = small_run(epochs=1)
    *progress, finished, last = train([run], tmp_path, 1)
    assert all(isinstance(event, Progress) for event in progress)
    assert (finished, last) == (Finished(ids(run)), Done())
    told = [evaluation for event in progress for evaluation in event.evaluations]
    curve = load_results(tmp_path).curves
    assert [evaluation.step for evaluation in told] == list(curve["step"])
    assert [x.values["test_loss"] for x in told] == list(curve["test_loss"])
    assert progress[-1].steps == {run.run_id: run.train.num_steps}


def test_a_run_takes_the_slot_of_one_that_has_ended_while_its_neighbour_goes_on(tmp_path):
    long, short, third = small_run(epochs=4), small_run(epochs=1), small_run(epochs=1, seed=2)
    heard = train([long, short, third], tmp_path, 2)
    ends = [event.run_ids for event in heard if isinstance(event, Finished)]
    assert ends == [ids(short), ids(third), ids(long)] and heard[-1] == Done()
    together = [set(event.steps) for event in heard if isinstance(event, Progress)]
    assert {*ids(long, short)} in together and {*ids(long, third)} in together
    for run in (long, short, third):  # alone, to the same
        train([run], tmp_path / run.run_id, 1)
        alone = load_results(tmp_path / run.run_id).curves
        curves = load_results(tmp_path).curves.query("run_id == @run.run_id")
        assert alone["test_loss"].to_list() == pytest.approx(
            curves["test_loss"].to_list(), rel=1e-4
        )


def test_a_stop_saves_what_trains_and_a_job_goes_on_from_there(tmp_path):
    runs = [small_run(epochs=epochs) for epochs in (2, 3)]

    def stop(event: JobEvent, inbox: Inbox) -> None:
        if isinstance(event, Progress) and max(event.steps.values()) > 0:
            inbox.put(Stop())

    heard = train(runs, tmp_path / "broken", 2, stop)
    assert heard[-1] == Stopped() and not any(isinstance(event, Finished) for event in heard)
    saved = [read_checkpoint(tmp_path / "broken", run.run_id) for run in runs]
    assert [state["step"] for state in saved if state] == [*heard[-2].steps.values()]
    first, *_ = train(runs, tmp_path / "broken", 2)
    assert min(first.steps.values()) > 0 and not list(tmp_path.glob("broken/checkpoints/*"))
    train(runs, tmp_path / "whole", 2)
    broken, whole = (load_results(tmp_path / name).curves for name in ("broken", "whole"))
    assert broken.equals(whole)


def test_a_stop_between_two_evaluations_is_heeded_at_once(tmp_path):
    run, inbox = small_run(epochs=40, evaluations=1), Inbox()
    heard: list[JobEvent] = []
    inbox.put(Stop())
    perform(Train((run,), 1), Setup(tmp_path, "cpu", 1, math.inf), heard.append, inbox)
    assert [type(event) for event in heard] == [Progress, Stopped]


def test_a_stop_ends_the_waiting_for_more(tmp_path):
    """A sweep that has gone answers no `Finished`."""
    run, heard, inbox = small_run(epochs=1), list[JobEvent](), Inbox()

    def emit(event: JobEvent) -> None:
        heard.append(event)
        if isinstance(event, Finished):
            threading.Timer(0.05, inbox.put, (Stop(),)).start()

    perform(Train((run,), 1), Setup(tmp_path, "cpu", 1, math.inf), emit, inbox)
    assert heard[-2] == Finished(ids(run)) and heard[-1] == Done()


def test_a_run_that_is_pruned_is_saved_and_makes_room_for_another(tmp_path):
    runs = [small_run(epochs=2, seed=seed) for seed in (1, 2, 3)]
    first, *rest = runs

    def prune(event: JobEvent, inbox: Inbox) -> None:
        if isinstance(event, Progress) and event.steps.get(first.run_id):
            inbox.put(Prune((first.run_id, "of no run here")))

    heard = train(runs, tmp_path, 2, prune)
    assert heard.count(Pruned(ids(first))) == 1
    assert set(load_results(tmp_path).runs["run_id"]) == {*ids(*rest)}
    assert [path.stem for path in (tmp_path / "checkpoints").iterdir()] == [first.run_id]
    heard = train([first], tmp_path, 1)
    assert heard[0].steps[first.run_id] > 0 and heard[-1] == Done()


def test_runs_in_training_are_saved_as_often_as_asked(tmp_path):
    runs, saved = [small_run(seed=seed) for seed in (1, 2)], set()

    def look(event: JobEvent, inbox: Inbox) -> None:
        saved.update(path.stem for path in tmp_path.glob("checkpoints/*"))

    train(runs, tmp_path, 2, look, checkpoint_seconds=0)
    assert saved == {*ids(*runs)} and not list(tmp_path.glob("checkpoints/*"))


@pytest.fixture
def ticks(monkeypatch):
    """A clock of which every look takes a second."""
    ticks = itertools.count()
    monkeypatch.setattr(executor.time, "monotonic", lambda: next(ticks))
    return ticks


@pytest.mark.usefixtures("ticks")
def test_a_worker_tells_how_far_it_is_though_nothing_is_evaluated(tmp_path):
    run = small_run(epochs=2, evaluations=1)
    heard = train([run], tmp_path, 1)
    steps = [event.steps[run.run_id] for event in heard if isinstance(event, Progress)]
    assert steps == sorted(set(steps)) and steps[-1] == 10 and len(steps) > 4


def test_a_disk_that_is_slow_does_not_keep_a_run_from_training(ticks, tmp_path, monkeypatch):
    """Saving takes longer than it takes to be told of the next steps."""
    write = checkpoints.write_checkpoint

    def slowly(*arguments) -> None:
        write(*arguments)
        for _ in range(2 * executor.TELL_SECONDS):
            next(ticks)

    def look(event: JobEvent, inbox: Inbox) -> None:
        assert next(told) < 50

    told = itertools.count()
    monkeypatch.setattr(checkpoints, "write_checkpoint", slowly)
    heard = train([small_run(evaluations=1)], tmp_path, 1, look, checkpoint_seconds=0)
    assert heard[-1] == Done()


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        ("raise ValueError('no such\\nluck')", Raised, "ValueError: no such"),
        ("raise ValueError", Raised, "ValueError: "),
        ("sys.exit(0)", Raised, "SystemExit: 0"),
        ("raise torch.OutOfMemoryError('no more')", OutOfMemory, "OutOfMemoryError: no more"),
    ],
)
def test_whatever_a_mixer_raises_is_the_reason_of_its_job(code, kind, reason, told, capsys):
    _, heard = told(code)
    assert heard == [kind(reason)]
    assert "Traceback" in capsys.readouterr().err


def test_a_full_disk_is_reported_though_the_log_is_on_it(told, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(full, write_through=True))
        _, heard = told("pass", folder=tmp_path / "file" / "out")
    assert isinstance(heard[-1], Unwritable) and "cannot be written" in heard[-1].reason


def test_a_warning_names_the_runs_at_work_and_none_that_has_finished(tmp_path):
    runs = [small_run(seed=seed, epochs=0.2, evaluations=1) for seed in (1, 2)]

    def spoil(event: JobEvent, inbox: Inbox) -> None:
        if isinstance(event, Finished) and event.run_ids == ids(runs[0]):
            (tmp_path / "checkpoints").mkdir(exist_ok=True)
            (tmp_path / "checkpoints" / f"{runs[1].run_id}.pt").write_text("no checkpoint")

    heard = train(runs, tmp_path, 1, spoil)
    assert [event.run_ids for event in heard if isinstance(event, Warned)] == [ids(runs[1])]


def test_a_warning_of_the_package_is_an_event_and_another_is_none(told):
    code = "[warnings.warn(*w) for w in (('look\\n out', ZoorecallWarning), ('others',))]"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("default", "others")
        for _ in range(2):  # of each job, once
            run, heard = told(code)
            assert [e for e in heard if isinstance(e, Warned)] == [Warned(ids(run), "look out")]
    assert {str(warning.message) for warning in caught} == {"others"}

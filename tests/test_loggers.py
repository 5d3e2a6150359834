"""What is logged of a sweep, live and afterwards: the curves of its results, and nothing else."""

import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import finished_runs, small_run, train_into

from zoorecall import load_results
from zoorecall.cli import main
from zoorecall.config import RunConfig
from zoorecall.errors import ResultsError, UserError
from zoorecall.loggers import WRITERS, Logger, logger, title
from zoorecall.sweeps.events import (
    Evaluation,
    Failed,
    Finished,
    Progress,
    Pruned,
    Reduced,
    Retried,
    Started,
)
from zoorecall.sweeps.pack_job import STEPS_TO_PAY
from zoorecall.sweeps.plan import RunGroup
from zoorecall.sweeps.replay import replay

BOTH = {"name": "key_value_sum", "recall": "both"}
GRID = """
base:
  task: {name: mqar, vocab_size: 32, seq_len: 12, num_kv_pairs: 2}
  model: {d_model: 8, num_layers: 1}
  train: {batch_size: 8, train_examples: 40, test_examples: 24, epochs: 1, evaluations: 2}
axes:
  train.learning_rate: [1e-3, 1e-2]
"""


def trained(folder: Path, runs: list[RunConfig]) -> list:
    """The events of training these runs into a folder."""
    return [
        Started(folder, "cpu", (RunGroup(tuple(runs), len(runs)),), 0),
        *train_into(folder, runs),
    ]


def curves(events: list) -> dict[str, list[dict[str, float]]]:
    """What the events say of each run: its evaluations."""
    found: dict[str, list] = {}
    for event in events:
        for one in event.evaluations if isinstance(event, Progress) else ():
            found.setdefault(one.run_id, []).append({"step": one.step, **one.values})
    return found


def of_results(folder: Path) -> dict[str, list[dict[str, float]]]:
    """The same of the folder's table."""
    table = load_results(folder).curves.drop(columns="mixer")
    by_run = {run_id: rows.drop(columns="run_id") for run_id, rows in table.groupby("run_id")}
    return {
        run_id: [row.dropna().to_dict() for _, row in rows.iterrows()]
        for run_id, rows in by_run.items()
    }


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A folder whose runs end early, diverge and go on in a smaller pack; and its events."""
    folder = tmp_path_factory.mktemp("results") / "several"
    settings = {"epochs": 8, "evaluations": 8, "train_examples": 320, "batch_size": 16}
    rates = (1e-4, 1e-2, 3e-2, 1e30)
    runs = [small_run(learning_rate=r, stop_at_accuracy=0.25, **settings) for r in rates]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STEPS_TO_PAY, "cpu", 1)
        return folder, trained(folder, runs)


def test_the_events_say_of_every_run_what_its_curve_has(several):
    folder, events = several
    runs = load_results(folder).runs
    assert runs["stopped_at"].notna().any() and runs["diverged_at"].notna().any()
    assert curves(events) == of_results(folder)


def test_a_folder_is_told_again_as_it_was(several):
    folder, events = several
    again = list(replay(folder, folder))
    assert curves(again) == curves(events)
    assert {run.run_id for run in finished_runs(again)} == curves(events).keys()


def test_the_slices_of_a_task_are_told_too(tmp_path):
    events = trained(tmp_path, [small_run(task=BOTH)])
    assert curves(events) == curves(list(replay(tmp_path, tmp_path))) == of_results(tmp_path)
    (curve,) = curves(events).values()
    assert {"slice.AR.test_accuracy", "slice.non-AR.test_accuracy"} <= set(curve[-1])


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every tag of a TensorBoard folder, after what is purged: steps and values."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    accumulator.Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }


def test_tensorboard_has_the_curves_and_settings_of_a_sweep_and_an_export_is_the_same(
    tmp_path, monkeypatch
):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, out = tmp_path / "swept", tmp_path / "exported"
    events = trained(folder, [small_run(learning_rate=rate, epochs=1) for rate in (1e-3, 1e-2)])
    tell = lambda *_, on_event, **settings: [*map(on_event, events)]  # noqa: E731
    monkeypatch.setattr("zoorecall.sweeps.sweeper.sweep", tell)  # processes are tested elsewhere
    grid = tmp_path / "grid.yaml"
    grid.write_text(GRID)
    command = ["sweep", str(grid), "--out", str(folder), "--device", "cpu"]
    assert main([*command, "--log", "tensorboard"]) == 0
    for _ in range(2):  # again changes nothing
        assert main(["export", str(folder), "--out", str(out)]) == 0
    for run_id, rows in of_results(folder).items():
        (place,) = (folder / "tensorboard").glob(f"*{run_id}")
        logged = scalars(place)
        assert logged == scalars(out / "tensorboard" / place.name)
        for name in set().union(*rows) - {"step"}:
            expected = [(row["step"], pytest.approx(row[name])) for row in rows if name in row]
            assert logged.pop(name) == expected
        assert logged == {}
        accumulator = EventAccumulator(str(place))
        accumulator.Reload()
        text = str(accumulator.SummaryMetadata("_hparams_/session_start_info"))
        assert "train.learning_rate" in text and "task.num_kv_pairs" in text
    assert not [x.name for x in threading.enumerate() if "Event" in type(x).__name__]


def test_nothing_is_logged_unless_asked_for(tmp_path):
    events = trained(tmp_path, [small_run(epochs=1)])
    assert len(events) > 2 and {x.name for x in tmp_path.iterdir()} == {"shards"}


class Recorder:
    """A writer that notes what is called."""

    calls: list = []  # noqa: RUF012 - of the class, as the logger makes the instances

    def __init__(self, run, folder, step):
        self.run_id = run.run_id
        self.calls.append(("open", self.run_id, step))

    def write(self, evaluation):
        assert evaluation.run_id == self.run_id
        self.calls.append(("write", self.run_id, evaluation.step))

    def close(self):
        self.calls.append(("close", self.run_id))


@pytest.mark.parametrize(
    "end",
    [
        lambda ids: Finished(ids),
        lambda ids: Pruned(ids),
        lambda ids: Failed(ids, "why"),
        lambda ids: Retried(ids, "died"),
        lambda ids: Reduced(ids, 1),
    ],
)
def test_a_run_that_ends_or_is_begun_again_has_no_writer_and_its_neighbours_have(
    end, tmp_path, monkeypatch
):
    monkeypatch.setattr(Recorder, "calls", [])
    runs = (small_run(seed=1), small_run(seed=2))
    log, (a, b) = Logger(Recorder), (run.run_id for run in runs)

    def progress(run_id, step):
        log(Progress({a: step, b: step}, (Evaluation(run_id, step, {}),)))

    log(Started(tmp_path, "cpu", (RunGroup(runs, 2),), 0))
    log(end((a,)))  # which has not begun
    for run_id, step in ((a, 0), (b, 0), (a, 3)):
        progress(run_id, step)
    log(end((a,)))
    progress(b, 3)
    progress(a, 3)  # on from a checkpoint
    assert Recorder.calls == [
        ("open", a, 0), ("write", a, 0), ("open", b, 0), ("write", b, 0), ("write", a, 3),
        ("close", a), ("write", b, 3), ("open", a, 3), ("write", a, 3),
    ]  # fmt: skip


def test_tensorboard_forgets_what_a_run_that_goes_on_from_a_checkpoint_does_again(tmp_path):
    run = small_run()
    for steps in ((0, 5, 10), (5, 10, 15)):
        writer = WRITERS["tensorboard"](run, tmp_path, steps[0])
        for step in steps:
            writer.write(Evaluation(run.run_id, step, {"test_loss": float(step)}))
        writer.close()
    found = scalars(tmp_path / "tensorboard" / title(run))
    assert found == {"test_loss": [(step, float(step)) for step in (0, 5, 10, 15)]}


def test_wandb_is_given_the_curves_and_settings(several, tmp_path, monkeypatch):
    """A module in the place of wandb, which notes what it is called with."""
    folder, events = several
    logged: dict[str, list] = {}
    made: list[dict] = []

    def init(**settings):
        made.append(settings)
        rows = logged.setdefault(settings["config"]["train"]["learning_rate"], [])
        return SimpleNamespace(
            log=lambda values, step: rows.append({"step": step, **values}),
            finish=lambda: rows.append("end"),
        )

    fake = SimpleNamespace(
        init=init,
        Settings=lambda **x: x,
        errors=SimpleNamespace(Error=RuntimeError),
    )
    monkeypatch.setitem(sys.modules, "wandb", fake)
    log = Logger(WRITERS["wandb"])
    for event in events:
        log(event)
    runs = load_results(folder).runs.set_index("run_id")
    for run_id, rows in of_results(folder).items():
        assert logged[runs.loc[run_id, "train.learning_rate"]] == [*rows, "end"]
    assert {x["group"] for x in made} == {"several"} and {x["project"] for x in made} == {
        "zoorecall"
    }
    assert len({x["id"] for x in made}) == len(made) == len(runs)

    def refuse(**settings):
        raise RuntimeError("no key,\nnot logged in")

    monkeypatch.setattr(fake, "init", refuse)
    with pytest.raises(UserError, match="wandb: no key, not logged in; WANDB_MODE=offline needs"):
        for event in events:
            Logger(WRITERS["wandb"])(event) if isinstance(event, Started) else log(event)


def test_wandb_itself_takes_an_export_without_a_network(tmp_path, monkeypatch, capfd):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    trained(tmp_path / "results", [small_run(epochs=1, seed=seed) for seed in (1, 2)])
    assert main(["export", str(tmp_path / "results"), "--to", "wandb", "--out", str(tmp_path)]) == 0
    assert capfd.readouterr() == (f"{tmp_path / 'wandb'}\n", "")
    records, until = [b""], time.monotonic() + 20  # its own process writes them
    while time.monotonic() < until and not all(b"test_accuracy" in text for text in records):
        records = [x.read_bytes() for x in (tmp_path / "wandb").glob("offline-run-*/*.wandb")]
    assert len(records) == 2
    for text in records:
        assert b"test_accuracy" in text and b"max_grad_norm" in text and b"num_kv_pairs" in text


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_a_logger_that_is_not_installed_says_how_to_install_it(name, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("zoorecall.loggers.find_spec", lambda name: None)
    grid = tmp_path / "grid.yaml"
    grid.write_text(GRID)
    folder = tmp_path / "out"
    assert main(["sweep", str(grid), "--out", str(folder), "--log", name]) == 2
    assert f"pip install {name}, or zoorecall[{name}]" in capsys.readouterr().err
    assert not folder.exists()


def test_an_unknown_logger_and_a_folder_without_runs_cost_a_line(tmp_path, capsys):
    assert main(["export", str(tmp_path), "--to", "tensorbord"]) == 2
    assert main(["export", str(tmp_path)]) == 2
    unknown, empty = capsys.readouterr().err.splitlines()
    assert unknown == "there is no logger 'tensorbord', did you mean 'tensorboard'?"
    assert empty.startswith(f"{tmp_path}: no finished runs here")


def test_a_folder_that_cannot_be_logged_into_is_named(several, tmp_path):
    (tmp_path / "file").write_text("")
    log = logger("tensorboard")
    with pytest.raises(ResultsError, match=f"{tmp_path / 'file'}: cannot be logged into"):
        for event in replay(several[0], tmp_path / "file"):
            log(event)

"""Sweeps watched from outside: a logger is a function of a sweep's events.

    sweep(grid, on_event=logger("tensorboard"))

It writes each evaluation of each run as it happens, by the names of a curve's columns. Of a folder
that is trained, `sweeps.replay` tells the events again, so that what is exported afterwards is what
would have been logged. Each service is an optional package, imported when it is used.
"""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from . import columns
from .config import RunConfig
from .errors import ResultsError, UserError
from .grid.yaml_nodes import suggest
from .sweeps.events import (
    Asked,
    Evaluation,
    Failed,
    Finished,
    Progress,
    Pruned,
    Reduced,
    Retried,
    Started,
    SweepEvent,
)
from .words import rate


class Writer(Protocol):
    """Takes the evaluations of one run, the first of them after `step` steps. What it writes is in
    a folder of its service's name, in `folder`."""

    def __init__(self, run: RunConfig, folder: Path, step: int): ...

    def write(self, evaluation: Evaluation) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """An event file in `tensorboard/RUN`, whose settings are hyperparameters. A run that goes on
    from a checkpoint takes back what an earlier file says of later steps."""

    def __init__(self, run: RunConfig, folder: Path, step: int):
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        place = folder / "tensorboard" / title(run)
        self._writer = SummaryWriter(str(place), purge_step=step)
        file: Any = self._writer.file_writer  # which torch's types take to be None
        experiment, settings, _ = hparams(
            columns.flat(run.model_dump(mode="json")), {"test_accuracy": 0}
        )
        for summary in (experiment, settings):
            file.add_summary(summary)

    def write(self, evaluation: Evaluation) -> None:
        for name, value in evaluation.values.items():
            self._writer.add_scalar(name, value, evaluation.step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases, in the group of its results folder. Environment variables such as
    WANDB_MODE=offline and WANDB_PROJECT hold. Logged again, it is the same run."""

    def __init__(self, run: RunConfig, folder: Path, step: int):
        import wandb

        place = str(folder.resolve())
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "zoorecall"),
                id=columns.digest({"folder": place, "run": run.run_id}),
                name=title(run),
                group=folder.resolve().name,
                config=run.model_dump(mode="json"),
                dir=place,
                resume="allow",
                reinit="create_new",  # the runs of a pack are logged side by side
                settings=wandb.Settings(silent=True, console="off", x_disable_stats=True),
            )
        except wandb.errors.Error as error:
            reason = " ".join(str(error).split())
            raise UserError(f"wandb: {reason}; WANDB_MODE=offline needs no account") from error

    def write(self, evaluation: Evaluation) -> None:
        self._run.log(evaluation.values, step=evaluation.step)

    def close(self) -> None:
        self._run.finish()


WRITERS: dict[str, type[Writer]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}
"""The services, by the names of their packages."""


def logger(name: str) -> "Logger":
    """The logger of this name; raises UserError if there is none, or its package is missing."""
    if name not in WRITERS:
        raise UserError(f"there is no logger {name!r}, {suggest(name, WRITERS)}")
    if find_spec(name) is None:
        raise UserError(f"{name} is not installed; pip install {name}, or zoorecall[{name}]")
    return Logger(WRITERS[name])


class Logger:
    """Has a writer for each run, from its first evaluation to its end."""

    def __init__(self, writer: type[Writer]):
        self._make, self._writers = writer, dict[str, Writer]()

    def __call__(self, event: SweepEvent) -> None:
        try:
            self._take(event)
        except (OSError, UnicodeError) as error:
            raise ResultsError(f"{self._folder}: cannot be logged into: {error}") from error

    def _take(self, event: SweepEvent) -> None:
        match event:
            case Started(folder, _, groups):
                self._folder = folder
                self._runs = {run.run_id: run for group in groups for run in group.runs}
            case Asked(groups):
                self._runs |= {run.run_id: run for group in groups for run in group.runs}
            case Progress():
                for evaluation in event.evaluations:
                    self._writer(evaluation).write(evaluation)
            case (
                Finished(run_ids)
                | Pruned(run_ids)
                | Failed(run_ids)
                | Retried(run_ids)
                | Reduced(run_ids)
            ):
                for run_id in run_ids:
                    if run_id in self._writers:
                        self._writers.pop(run_id).close()

    def _writer(self, evaluation: Evaluation) -> Writer:
        run_id, step = evaluation.run_id, evaluation.step
        if run_id not in self._writers:
            self._writers[run_id] = self._make(self._runs[run_id], self._folder, step)
        return self._writers[run_id]


def title(run: RunConfig) -> str:
    """What a run is called among others: its mixer, learning rate, seed and id."""
    name, learning_rate = run.model.mixer.name, rate(run.train.learning_rate)
    return f"{name} {learning_rate} seed {run.seed} {run.run_id}"

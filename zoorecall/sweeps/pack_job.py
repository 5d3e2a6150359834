"""One pack, from its runs to their rows, in whatever process."""

import math
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from .. import files, results
from ..columns import slice_accuracy
from ..config import RunConfig
from ..errors import DamagedError, ZoorecallWarning
from ..model.cost import count_parameters, forward_flops, state_size
from ..tasks import sizes
from ..training.outcome import Curve, RunResult
from ..training.trainer import PackTrainer, UnusableState
from .events import Evaluation, Progress
from .plan import PlannedPack
from .provenance import provenance, user_code

Row = dict[str, Any]
Weights = dict[str, torch.Tensor]


class PackJob:
    """A pack in training; `state` is that of an earlier one, which it goes on from, and raises
    UnusableState if it cannot.

    Runs that end early leave the trainer once a smaller pack pays; their rows are kept here.
    """

    def __init__(
        self, pack: PlannedPack, device: torch.device, state: Mapping[str, Any] | None = None
    ):
        self.pack = pack
        if state and state.keys() != {"trainer", "left", "kept"}:
            raise UnusableState("has other names")
        self._left: dict[str, Row] = dict(state["left"]) if state else {}
        self._kept: dict[str, Weights] = dict(state["kept"]) if state else {}
        runs = [run for run in pack.runs if run.run_id not in self._left]
        self._trainer = PackTrainer(runs, device, state["trainer"] if state else None)
        self.evaluations: tuple[Evaluation, ...] = ()  # at this step

    @property
    def finished(self) -> bool:
        return self._trainer.finished

    @property
    def step(self) -> int:
        return self._trainer.step

    def advance(self) -> None:
        """Train up to the next evaluation, and evaluate."""
        self._trainer.advance()
        self.evaluations = tuple(
            Evaluation.of(run.run_id, {name: x[-1] for name, x in _columns(curve).items()})
            for run, curve in zip(self._trainer.runs, self._trainer.curves, strict=True)
            if curve.step[-1] == self.step
        )
        if self._trainer.half_empty:
            active = self._trainer.active.tolist()
            for result, goes_on in zip(self._trainer.results(), active, strict=True):
                if not goes_on:
                    self._left[result.run.run_id] = _row(result, self.pack, self._trainer)
                    self._keep(result.run)
            self._trainer = self._trainer.of_active()

    def best(self) -> list[float]:
        """The best accuracy so far of each run."""
        best = {run_id: row["best_test_accuracy"] for run_id, row in self._left.items()}
        for run, curve in zip(self._trainer.runs, self._trainer.curves, strict=True):
            best[run.run_id] = max(curve.test_accuracy)
        return [best[run.run_id] for run in self.pack.runs]

    def state(self) -> dict[str, Any]:
        """What another job needs to go on from here."""
        return {"trainer": self._trainer.state(), "left": self._left, "kept": self._kept}

    def weights(self) -> dict[str, Weights]:
        """The weights, by run id, of the runs that are to keep them."""
        for run in self._trainer.runs:
            self._keep(run)
        return self._kept

    def _keep(self, run: RunConfig) -> None:
        if run.train.keep == "weights":
            self._kept[run.run_id] = self._trainer.weights(run.run_id)

    def rows(self) -> list[Row]:
        """A row a run, as a shard has it."""
        found = [_row(result, self.pack, self._trainer) for result in self._trainer.results()]
        rows = self._left | {row["run_id"]: row for row in found}
        return [rows[run.run_id] for run in self.pack.runs]


def train_pack(
    pack: PlannedPack,
    folder: Path,
    device: torch.device,
    checkpoint_seconds: float,
    emit: Callable[[Progress], None],
    stopping: Callable[[], bool] = lambda: False,
) -> bool:
    """Train a pack to its shard, or to a checkpoint if `stopping`; says whether it finished. Each
    evaluation is emitted."""
    job = _job(pack, folder, device)
    saved = time.monotonic()
    while not job.finished:
        job.advance()
        emit(Progress(pack.pack_id, job.step, tuple(job.best()), job.evaluations))
        stop = stopping() and not job.finished
        if stop or time.monotonic() - saved > checkpoint_seconds:
            results.write_checkpoint(folder, pack.pack_id, job.state())
            saved = time.monotonic()
        if stop:
            return False
    for run_id, weights in job.weights().items():
        results.write_weights(folder, run_id, weights)
    results.write_shard(folder, pack.pack_id, job.rows())
    return True


def _job(pack: PlannedPack, folder: Path, device: torch.device) -> PackJob:
    """The job of a pack, from its checkpoint if there is one. One that cannot be used is set aside,
    and the user told."""
    try:
        return PackJob(pack, device, results.read_checkpoint(folder, pack.pack_id))
    except (DamagedError, UnusableState) as error:
        path = results.checkpoint_path(folder, pack.pack_id)
        reason = error.reason if isinstance(error, DamagedError) else error
        text = f"{path}: {reason}; it is now {files.set_aside(path).name}, its pack starts anew"
    warnings.warn(text, ZoorecallWarning, stacklevel=2)
    return PackJob(pack, device)


def _row(result: RunResult, pack: PlannedPack, trainer: PackTrainer) -> dict[str, Any]:
    """A run's row as it stands in a shard."""
    run = result.run
    measured = _columns(result)
    del measured["run"], measured["curve"]
    for name in ("steps_to_solve", "diverged_at", "stopped_at"):
        measured[name] = math.nan if measured[name] is None else float(measured[name])
    tokens = trainer.step * run.train.batch_size * run.task.seq_len
    return {
        "run_id": run.run_id,
        "mixer": run.model.mixer.label,
        "config": run.model_dump_json(),
        **sizes(run.task),
        **measured,
        "num_steps": run.train.num_steps,
        "parameters": count_parameters(run),
        "state_size": state_size(run),
        "forward_flops": forward_flops(run),
        "pack_id": pack.pack_id,
        "pack_size": len(pack.runs),
        "seconds": trainer.seconds,
        "tokens_per_second": tokens / max(trainer.seconds, 1e-9),
        **provenance(trainer.device),
        "kernels": trainer.kernels,
        "user_code": user_code(run.model.mixer),
        **{f"curve.{name}": values for name, values in _columns(result.curve).items()},
    }


def _columns(fields: RunResult | Curve) -> dict[str, Any]:
    """The fields by name, the accuracy of each slice in a column of its own."""
    columns = dict(vars(fields))
    by_slice = columns.pop("slice_test_accuracy")
    return columns | {slice_accuracy(name): value for name, value in by_slice.items()}

"""The runs of a pack key in the slots of a pack, from their checkpoints to their rows, in whatever
process."""

import gc
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from .. import checkpoints, files
from ..columns import slice_accuracy
from ..config import RunConfig
from ..errors import DamagedError, ZoorecallWarning
from ..model.cost import count_parameters, forward_flops, state_size
from ..tasks import sizes
from ..training.outcome import Curve, RunResult
from ..training.trainer import PackTrainer, Slot, UnusableState
from .events import Evaluation
from .provenance import provenance, user_code

Row = dict[str, Any]
Weights = dict[str, torch.Tensor]

STEPS_TO_PAY = {"cpu": 50, "cuda": 5000}
"""The steps that must remain for a smaller pack to pay. On a GPU it must be compiled and captured,
about 45 s, in which other workers have the GPU."""


class PackJob:
    """Runs of one pack key in training, in at most `slots` slots.

    Those of which `folder` has a checkpoint go on from it. When a run has ended, `take` hands out
    its row, and another may `enter`. Where none does, the rest go on in a smaller pack as soon as
    that pays: on a CPU an empty slot takes no time.
    """

    def __init__(
        self,
        runs: Sequence[RunConfig],
        slots: int,
        device: torch.device,
        folder: Path | None = None,
    ):
        self._device, self._folder, self._most = device, folder, slots
        # of the code that this process has imported, which may be edited while it trains
        self._provenance, self._user_code = provenance(device), user_code(runs[0].model.mixer)
        on_gpu = device.type == "cuda"
        self._trainer = PackTrainer(runs, device, slots if on_gpu else None)
        for slot in self._trainer.running:
            self._go_on(slot)

    @property
    def running(self) -> list[Slot]:
        """The runs in training."""
        return self._trainer.running

    @property
    def steps(self) -> dict[str, int]:
        """How many steps each run has behind it that was not taken yet."""
        return {slot.run.run_id: slot.step for slot in self._trainer.slots if slot}

    @property
    def free(self) -> int:
        """How many more runs may enter."""
        return self._most - len(self.steps)

    def advance(self, pause: Callable[[], bool] = lambda: False) -> tuple[Evaluation, ...]:
        """Train up to the next evaluation of any run, or until `pause` says so; returns the
        evaluations."""
        self._shrink()
        return tuple(
            Evaluation.of(
                slot.run.run_id, {name: x[-1] for name, x in _columns(slot.curve).items()}
            )
            for slot in self._trainer.advance(pause)
        )

    def take(self) -> list[tuple[Row, Weights | None]]:
        """The rows of the runs that have ended, as a shard has them, each with its weights if the
        run is to keep them; their slots are free."""
        taken = []
        for slot in self._trainer.ended:
            keep = slot.run.train.keep == "weights"
            weights = self._trainer.weights(slot) if keep else None
            taken.append((self._row(slot), weights))
            self._trainer.leave(slot)
        return taken

    def enter(self, runs: Sequence[RunConfig]) -> None:
        """Have free slots train these runs, at most `free`."""
        if len(runs) > self._trainer.free:
            self._resize(len(self.running) + len(runs), runs)
        else:
            for run in runs:
                self._go_on(self._trainer.enter(run))

    def prune(self, run_id: str) -> None:
        """Save a checkpoint of a run and train it no further."""
        (slot,) = (slot for slot in self.running if slot.run.run_id == run_id)
        self._save(slot)
        self._trainer.leave(slot)

    def save(self) -> None:
        """Save a checkpoint of each run in training."""
        for slot in self.running:
            self._save(slot)

    # ---- inside

    def _save(self, slot: Slot) -> None:
        assert self._folder is not None
        state = self._trainer.state(slot)
        checkpoints.write_checkpoint(self._folder, slot.run.run_id, state)

    def _go_on(self, slot: Slot) -> None:
        """Have a run go on from its checkpoint, if there is one. One that cannot be used is set
        aside, and the user told."""
        if self._folder is None:
            return
        run_id = slot.run.run_id
        try:
            if (state := checkpoints.read_checkpoint(self._folder, run_id)) is not None:
                self._trainer.restore(slot, state)
            return
        except (DamagedError, UnusableState) as error:
            path = checkpoints.checkpoint_path(self._folder, run_id)
            reason = error.reason if isinstance(error, DamagedError) else error
            text = f"{path}: {reason}; it is now {files.set_aside(path).name}, its run starts anew"
        warnings.warn(text, ZoorecallWarning, stacklevel=2)
        self._trainer.leave(slot)
        self._trainer.enter(slot.run)

    def _shrink(self) -> None:
        """Go on in a smaller pack, if that pays."""
        running, kind = self._trainer.running, self._device.type
        left = max(slot.run.train.num_steps - slot.step for slot in running)
        slots = len(self._trainer.slots)
        few = len(running) < slots if kind == "cpu" else 2 * len(running) <= slots
        if few and left >= STEPS_TO_PAY[kind]:
            self._resize(len(running))

    def _resize(self, slots: int, entering: Sequence[RunConfig] = ()) -> None:
        """Go on in a pack of so many slots."""
        runs = [slot.run for slot in self._trainer.running]
        states = [self._trainer.state(slot) for slot in self._trainer.running]
        del self._trainer  # two packs may not fit
        release_memory(self._device)
        self._trainer = PackTrainer([*runs, *entering], self._device, slots)
        for slot, state in zip(self._trainer.running, states, strict=False):
            self._trainer.restore(slot, state)
        for slot in self._trainer.running[len(states) :]:
            self._go_on(slot)

    def _row(self, slot: Slot) -> Row:
        """A run's row as it stands in a shard."""
        run, result, model = slot.run, self._trainer.result(slot), self._trainer.pack.model
        measured = _columns(result)
        del measured["run"], measured["curve"]
        for name in ("steps_to_solve", "diverged_at", "stopped_at"):
            measured[name] = math.nan if measured[name] is None else float(measured[name])
        tokens = slot.step * run.train.batch_size * run.task.seq_len
        return {
            "run_id": run.run_id,
            "mixer": run.model.mixer.label,
            "config": run.model_dump_json(),
            **sizes(run.task),
            **measured,
            "num_steps": run.train.num_steps,
            "parameters": count_parameters(run, model),
            "state_size": state_size(run, model),
            "forward_flops": forward_flops(run, model),
            "pack_id": run.pack_key,
            "pack_size": len(self._trainer.slots),
            "seconds": slot.seconds,
            "tokens_per_second": tokens / max(slot.seconds, 1e-9),
            **self._provenance,
            "kernels": self._trainer.kernels,
            "user_code": self._user_code,
            **{f"curve.{name}": values for name, values in _columns(result.curve).items()},
        }


def _columns(fields: RunResult | Curve) -> dict[str, Any]:
    """The fields by name, the accuracy of each slice in a column of its own."""
    columns = dict(vars(fields))
    by_slice = columns.pop("slice_test_accuracy")
    return columns | {slice_accuracy(name): value for name, value in by_slice.items()}


def release_memory(device: torch.device) -> None:
    """Give back what a trainer held that nothing refers to any more."""
    gc.collect()  # it refers to itself
    if device.type == "cuda":
        torch.cuda.empty_cache()

"""The one training loop: runs in the slots of a pack, from their initial weights to their results.

Shape letters: R slots, N slices of the task.
"""

import contextlib
import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..columns import SOLVED
from ..config import RunConfig, TrainConfig
from ..errors import ZoorecallWarning
from ..model.pack import Pack
from ..ops.forms import recording
from .data import Examples, Feed
from .evaluate import Evaluator
from .outcome import Curve, RunResult
from .step import Step


class UnusableState(ValueError):
    """A state that is not one of this run."""


@dataclass(eq=False)
class Slot:
    """A run in training, at a step of its own, and what is known of it so far."""

    place: int
    run: RunConfig
    curve: Curve
    step: int = 0
    steps_in_sum: int = 0
    """Since the evaluation before."""
    epoch: int = -1
    """That of the examples it has."""
    due: int = 0
    """The step of its next evaluation."""
    seconds: float = 0.0
    """Of its own: where k runs train, the k-th part of the time."""
    stopped_at: int | None = None
    ended: bool = False


class PackTrainer:
    """Trains runs of one pack key on one device, in slots.

    >>> trainer = PackTrainer(runs, torch.device("cpu"))
    >>> while not trainer.finished:
    ...     trainer.advance()
    >>> results = [trainer.result(slot) for slot in trainer.ended]

    Each run is at a step of its own and is evaluated alone, at steps of its own: what it comes to
    depends on none of its neighbours. One that has ended keeps its slot until it `leave`s; another
    may then `enter`, without a new program. `state(slot)` can be saved after any `advance`; a run
    that it is restored to goes on as if never stopped. There may be more slots than runs.
    """

    def __init__(
        self,
        runs: Sequence[RunConfig],
        device: torch.device,
        slots: int | None = None,
    ):
        if len({run.pack_key for run in runs}) != 1:
            raise ValueError("the runs of a pack may differ only in seed and optimizer settings")
        R, run = slots or len(runs), runs[0]
        self.device, self.task_slices = device, run.task.slices
        self.pack, self.feed = Pack(runs, device, R), Feed(run, R, device)
        self.do_step = Step(run, self.pack, self.feed, device)
        at_once = run.train.batch_size * (R if device.type == "cuda" else 1)
        dtype, slices = self.do_step.dtype, len(self.task_slices)
        self.evaluator = Evaluator(self.pack, at_once, dtype, slices)
        self._forms: set[str] = set()
        self._warned = False
        self.slots: list[Slot | None] = [None] * R
        for r, each in enumerate(runs):
            self._begin(r, each)

    # ---- what a job calls

    @property
    def running(self) -> list[Slot]:
        """The runs that still train."""
        return [slot for slot in self.slots if slot and not slot.ended]

    @property
    def ended(self) -> list[Slot]:
        """The runs that have ended and not yet left."""
        return [slot for slot in self.slots if slot and slot.ended]

    @property
    def free(self) -> int:
        """How many slots have no run."""
        return self.slots.count(None)

    @property
    def finished(self) -> bool:
        return not self.running

    @property
    def kernels(self) -> str:
        """The forms of the operations that ran, for the record of a run on a GPU."""
        if self.device.type == "cpu":
            return "torch"
        how = ["compiled, captured"] if self.pack.can_be_captured else []
        return ", ".join([*sorted(self._forms), *how])

    def enter(self, run: RunConfig) -> Slot:
        """Give a run a free slot, where it begins."""
        r = self.slots.index(None)
        self.pack.put(r, run)
        return self._begin(r, run)

    def leave(self, slot: Slot) -> None:
        """Take a run out of its slot."""
        self.do_step.active[slot.place] = False
        self.feed.release(slot.place)
        self.slots[slot.place] = None

    def advance(self, pause: Callable[[], bool] = lambda: False) -> list[Slot]:
        """Train up to the next evaluation of any run, or until `pause` says so; returns the runs
        that were evaluated."""
        started, running, due = time.perf_counter(), self.running, list[Slot]()
        if not self._warned:
            self._warn_of_looking_ahead(running[0])
        paused = False
        with recording(self._forms), _precision(running[0].run):
            while not due and not paused:
                count = min(self._feed(slot) for slot in running)
                done = 0
                while done < count and not (paused := pause()):
                    self.do_step()
                    done += 1
                for slot in running:
                    slot.step += done
                    slot.steps_in_sum += done
                due = [slot for slot in running if slot.step == slot.due]
            self._evaluate(due)
        for slot in running:
            slot.seconds += (time.perf_counter() - started) / len(running)
        return due

    def time_steps(self, count: int) -> list[float]:
        """Train the first step `count` times and return the seconds of each; for benchmarks, as
        it neither counts the steps nor evaluates."""
        seconds = []
        with _precision(self.running[0].run):
            for _ in range(count):
                self.feed.cursor.zero_()
                self.do_step.index.zero_()
                started = time.perf_counter()
                self.do_step()
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
                seconds.append(time.perf_counter() - started)
        return seconds

    def measure(self, slot: Slot, examples: Examples) -> Tensor:
        """Token accuracy, sequence accuracy, loss and the token accuracy of each slice of a run on
        examples of one place, float64 [3 + N] on the device."""
        with recording(self._forms), _precision(slot.run):
            return self.evaluator.measure(slot.place, examples)

    def weights(self, slot: Slot) -> dict[str, Tensor]:
        """The weights of a run by their names, on the CPU."""
        return self.pack.weights(slot.place)

    def state(self, slot: Slot) -> dict[str, Any]:
        """Everything of a run that is not a function of its config, on the CPU."""
        r = slot.place
        return {
            "run_id": slot.run.run_id,
            "step": slot.step,
            "steps_in_sum": slot.steps_in_sum,
            "seconds": slot.seconds,
            "curve": dataclasses.asdict(slot.curve),
            "modules": self.pack.states(r, torch.device("cpu")),
            **{name: rows[r].cpu().clone() for name, rows in self.do_step.of_runs().items()},
        }

    def restore(self, slot: Slot, state: Mapping[str, Any]) -> None:
        """Have a run go on from where it was; raises UnusableState where `state` is not one of it,
        after which the run should leave."""
        now, steps = self.state(slot), slot.run.train.evaluation_steps
        try:
            curve = Curve(**state["curve"])
            fits = _form(state) == _form(now) and state["run_id"] == slot.run.run_id
            fits &= curve.is_whole(self.task_slices) if curve.step else not state["step"]
            fits &= curve.step == steps[: len(curve.step)] and len(curve.step) < len(steps)
            slot.due = steps[len(curve.step)]
            fits &= curve.step[-1:] <= [state["step"]] <= [slot.due]
            fits &= 0 <= state["steps_in_sum"] <= state["step"]
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise UnusableState(f"is no state of this run ({error})") from error
        if not fits:
            raise UnusableState("is no state of this run")
        lost = int(state["diverged_at"]) >= 0
        for name, rows in self.do_step.of_runs().items():
            if bool(state[name].isnan().any()) and not lost:
                raise UnusableState(f"has NaN in {name} of a run that has not diverged")
            rows[slot.place].copy_(state[name])
        try:
            self.pack.restore(slot.place, state["modules"])
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a user's module may raise anything
            raise UnusableState(f"cannot be taken by a user's module ({error})") from error
        slot.curve, slot.step, slot.seconds = curve, state["step"], state["seconds"]
        slot.steps_in_sum, size = state["steps_in_sum"], slot.run.train.steps_per_epoch
        self._load(slot, max(slot.step - 1, 0) // size)
        self.feed.cursor[slot.place] = slot.step - slot.epoch * size

    def result(self, slot: Slot) -> RunResult:
        """What a run came to."""
        curve, diverged_at = slot.curve, int(self.do_step.diverged_at[slot.place])
        count = min(slot.run.train.test_examples, slot.run.train.train_examples)
        on_train = [0.0, 0.0, math.nan]
        if diverged_at < 0:
            examples = self.feed.of_slot(slot.place, count)
            on_train = self.measure(slot, examples)[:3].tolist()
        best = int(np.argmax(curve.test_accuracy))
        solved = [s for s, a in zip(curve.step, curve.test_accuracy, strict=True) if a >= SOLVED]
        return RunResult(
            run=slot.run,
            curve=curve,
            test_accuracy=curve.test_accuracy[-1],
            test_sequence_accuracy=curve.test_sequence_accuracy[-1],
            test_loss=curve.test_loss[-1],
            train_accuracy=on_train[0],
            train_sequence_accuracy=on_train[1],
            train_loss=on_train[2],
            best_test_accuracy=curve.test_accuracy[best],
            best_step=curve.step[best],
            steps_to_solve=solved[0] if solved else None,
            diverged_at=diverged_at if diverged_at >= 0 else None,
            stopped_at=slot.stopped_at,
            slice_test_accuracy={s: a[-1] for s, a in curve.slice_test_accuracy.items()},
        )

    # ---- inside

    def _begin(self, r: int, run: RunConfig) -> Slot:
        slot = Slot(r, run, Curve(slice_test_accuracy={s: [] for s in self.task_slices}))
        self.do_step.enter(r, run)
        self._load(slot, 0)
        self.slots[r] = slot
        return slot

    def _load(self, slot: Slot, epoch: int) -> None:
        """Have the examples, the order and the learning rates of an epoch."""
        self.feed.load(slot.place, slot.run, epoch)
        self.do_step.optimizer.load(slot.place, slot.run.train, epoch)
        slot.epoch = epoch

    def _feed(self, slot: Slot) -> int:
        """Have what a run's next step needs; returns for how many steps that is enough, at most up
        to its next evaluation."""
        size = slot.run.train.steps_per_epoch
        if slot.step == slot.due:
            return 0
        epoch, step = divmod(slot.step, size)
        if slot.epoch != epoch:
            self._load(slot, epoch)
        return min(slot.due - slot.step, size - step)

    def _warn_of_looking_ahead(self, slot: Slot) -> None:
        self._warned = True
        with self.pack.alone(slot.place) as model:
            mixers = model.user_mixers
            names = {mixer.config.name for mixer in mixers if mixer.looks_ahead(self.device)}
        for name in sorted(names):
            warnings.warn(
                f"{name} looks ahead: what it makes at a position changes with inputs after it, "
                "which a causal mixer does not see",
                ZoorecallWarning,
                stacklevel=3,
            )

    def _evaluate(self, due: Sequence[Slot]) -> None:
        """Write an evaluation of each of these runs; says of those that it ends that they ended."""
        if not due:
            return
        done, measured = self.do_step, []
        for slot in due:
            r = slot.place
            told = [done.loss_sum[r] / max(1, slot.steps_in_sum), done.max_loss[r]]
            told += [done.max_grad_norm[r], done.diverged_at[r].double()]
            on_tests = self.measure(slot, self.feed.tests(slot.run))
            measured.append(torch.cat([torch.stack(told), on_tests]))
        for slot, values in zip(due, torch.stack(measured).tolist(), strict=True):
            of_steps, diverged, by_slice = values[:3], values[3] >= 0, values[7:]
            accuracy, sequence_accuracy, test_loss = values[4:7]
            if not diverged and not math.isfinite(test_loss):  # the next step would find it
                diverged, done.diverged_at[slot.place] = True, slot.step
            if diverged:
                accuracy, sequence_accuracy, by_slice = 0.0, 0.0, [0.0] * len(by_slice)
                of_steps, test_loss = [math.nan] * 3, math.nan
            if not slot.steps_in_sum:
                of_steps = [math.nan] * 3
            curve, train = slot.curve, slot.run.train
            curve.step.append(slot.step)
            curve.train_loss.append(of_steps[0])
            curve.max_loss.append(of_steps[1])
            curve.max_grad_norm.append(of_steps[2])
            curve.test_loss.append(test_loss)
            curve.test_accuracy.append(accuracy)
            curve.test_sequence_accuracy.append(sequence_accuracy)
            for name, of_slice in zip(self.task_slices, by_slice, strict=True):
                curve.slice_test_accuracy[name].append(of_slice)
            if reached(train, accuracy):
                slot.stopped_at = slot.step
            slot.ended = diverged or slot.stopped_at is not None or slot.step == train.num_steps
            slot.due = next((s for s in train.evaluation_steps if s > slot.step), slot.step)
            slot.steps_in_sum = 0
            done.forget(slot.place)
            if slot.ended:
                done.active[slot.place] = False
                self.feed.cursor[slot.place] = 0  # steps go on, and look there


def reached(train: TrainConfig, accuracy: float) -> bool:
    """Whether a run of this test accuracy is to end."""
    at, above = train.stop_at_accuracy, train.stop_above_accuracy
    return (at is not None and accuracy >= at) or (above is not None and accuracy > above)


@contextlib.contextmanager
def _precision(run: RunConfig) -> Iterator[None]:
    """Float32 products as the run asks for them."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if run.train.precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _form(state: Mapping[str, Any]) -> dict[str, Any]:
    """Names, types and shapes: what all states of a run have in common."""
    return {
        name: (type(x), (x.shape, x.dtype) if isinstance(x, Tensor) else 0)
        for name, x in state.items()
    }

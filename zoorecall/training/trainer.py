"""The one training loop: a pack of runs, from its initial weights to its results.

Shape letters: R runs, N slices of the task.
"""

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..columns import SOLVED
from ..config import RunConfig
from ..errors import ZoorecallWarning
from ..model.pack import Pack
from ..ops.forms import recording
from .data import Examples, Feed
from .evaluate import measure
from .outcome import Curve, RunResult
from .step import Step

STEPS_TO_PAY = {"cpu": 50, "cuda": 5000}
"""The steps that must remain for a smaller pack to pay. On a GPU it must be compiled and captured,
about 45 s, in which other workers have the GPU."""


class UnusableState(ValueError):
    """A state that is not one of these runs."""


class PackTrainer:
    """Trains runs of one pack key on one device, evaluation by evaluation.

    >>> trainer = PackTrainer(runs, torch.device("cpu"))
    >>> while not trainer.finished:
    ...     trainer.advance()
    >>> results = trainer.results()

    `state()` can be saved after any `advance`; a trainer made with it goes on as if never stopped,
    one made with any other raises UnusableState.
    Where `half_empty`, `of_active()` goes on with fewer runs; the others have their results.
    `compiled=False` leaves out what makes the first step on a GPU long: for timing, not training.
    """

    def __init__(
        self,
        runs: Sequence[RunConfig],
        device: torch.device,
        state: Mapping[str, Any] | None = None,
        compiled: bool = True,
    ):
        if len({run.pack_key for run in runs}) != 1:
            raise ValueError("the runs of a pack may differ only in seed and optimizer settings")
        self.runs, self.device, self.train = tuple(runs), device, runs[0].train
        self.pack, self.feed = Pack(runs, device), Feed(runs, device)
        self.do_step = Step(runs, self.pack, self.feed, device, compiled)
        self.test_examples = self.feed.make(self.train.test_examples, "test")
        self.step, self.steps_in_sum = 0, 0
        self.seconds = 0.0  # of each run: of the pack's, as many as it has runs
        self.stopped_at: list[int | None] = [None] * len(runs)
        self.slices = runs[0].task.slices
        self.curves = [Curve(slice_test_accuracy={s: [] for s in self.slices}) for _ in runs]
        self._forms: set[str] = set()
        if state is not None:
            self._restore(state)

    # ---- what a sweep calls

    @property
    def finished(self) -> bool:
        evaluated = bool(self.curves[0].step) and self.step == self.train.num_steps
        return evaluated or not bool(self.active.any())

    @property
    def active(self) -> Tensor:
        """Which runs still train, bool [R]."""
        return self.do_step.active

    @property
    def kernels(self) -> str:
        """The forms of the operations that ran, for the record of a run on a GPU."""
        if self.device.type == "cpu":
            return "torch"
        how = ["compiled, captured"] if self.pack.can_be_captured else []
        return ", ".join([*sorted(self._forms), *how])

    @property
    def half_empty(self) -> bool:
        """Whether so few runs are active that a pack of those alone pays."""
        remaining = self.train.num_steps - self.step
        few = 0 < 2 * int(self.active.sum()) <= len(self.runs)
        return few and remaining >= STEPS_TO_PAY[self.device.type]

    def of_active(self) -> "PackTrainer":
        """A trainer of the active runs, where this one stands."""
        active = self.active.nonzero().flatten().tolist()
        return PackTrainer([self.runs[r] for r in active], self.device, self.state(active))

    def advance(self) -> None:
        """Train up to the next evaluation, and evaluate."""
        started = time.perf_counter()
        self._set_precision()
        first = not self.curves[0].step
        if first:
            self._warn_of_looking_ahead()
        until = next(s for s in self.train.evaluation_steps if s > self.step or first)
        with recording(self._forms):
            while self.step < until:
                self.feed.load(self.step)
                self.do_step()
                self.step += 1
                self.steps_in_sum += 1
            self._evaluate(until)
        self.seconds += (time.perf_counter() - started) / len(self.runs)

    def time_steps(self, count: int) -> list[float]:
        """Train the first step `count` times and return the seconds of each; for benchmarks, as
        it neither counts the steps nor evaluates."""
        self._set_precision()
        self.feed.load(0)
        seconds = []
        for _ in range(count):
            self.feed.cursor.zero_()
            self.do_step.index.zero_()
            started = time.perf_counter()
            self.do_step()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            seconds.append(time.perf_counter() - started)
        return seconds

    def measure(self, examples: Examples, count: int) -> Tensor:
        """Token accuracy, sequence accuracy, loss and the token accuracy of each slice on the first
        `count` examples, [3 + N, R] on the CPU."""
        with recording(self._forms), self.pack.evaluating():
            return measure(
                self.pack.model,
                examples,
                self.feed.seed_index,
                count,
                self.train.batch_size,
                self.do_step.dtype,
                len(self.slices),
            )

    def results(self) -> list[RunResult]:
        """One result a run, in order."""
        self.feed.load(max(self.step - 1, 0))
        count = min(self.train.test_examples, self.train.train_examples)
        on_train = self.measure(self.feed.examples, count)[:3].T.tolist()
        return [self._result(r, on_train[r]) for r in range(len(self.runs))]

    def weights(self, run_id: str) -> dict[str, Tensor]:
        """The weights of one run by their names, on the CPU."""
        return self.pack.weights([run.run_id for run in self.runs].index(run_id))

    def state(self, of: Sequence[int] | None = None) -> dict:
        """Everything that is not a function of the runs' configs; `of` some runs or of all."""
        of = range(len(self.runs)) if of is None else of
        return {
            "runs": [self.runs[r].run_id for r in of],
            "step": self.step,
            "steps_in_sum": self.steps_in_sum,
            "seconds": self.seconds,
            "stopped_at": [self.stopped_at[r] for r in of],
            "curves": [vars(self.curves[r]) for r in of],
            "modules": [self.pack.states(r, torch.device("cpu")) for r in of],
            **{name: tensor[list(of)].cpu() for name, tensor in self.do_step.of_runs().items()},
        }

    # ---- inside

    def _restore(self, state: Mapping[str, Any]) -> None:
        try:
            curves = [Curve(**curve) for curve in state["curves"]]
            now = self.state()
            fits = _form(state) == _form(now) and state["runs"] == now["runs"]
            fits &= state["step"] in self.train.evaluation_steps
            fits &= all(x is None or type(x) is int for x in state["stopped_at"])
            fits &= all(curve.is_whole(self.slices) for curve in curves)
        except (KeyError, TypeError, AttributeError) as error:
            raise UnusableState(f"is no state of these runs ({error})") from error
        if not fits:
            raise UnusableState("is no state of these runs")
        lost = torch.tensor([math.isnan(curve.test_loss[-1]) for curve in curves])
        for name, tensor in self.do_step.of_runs().items():
            if bool((state[name].reshape(len(lost), -1).isnan().any(1) & ~lost).any()):
                raise UnusableState(f"has NaN in {name} of a run whose loss is finite")
            tensor.copy_(state[name])
        try:
            for r, modules in enumerate(state["modules"]):
                self.pack.restore(r, modules, self.device)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a user's module may raise anything
            raise UnusableState(f"cannot be taken by a user's module ({error})") from error
        self.step, self.steps_in_sum, self.curves = state["step"], state["steps_in_sum"], curves
        self.seconds, self.stopped_at = state["seconds"], state["stopped_at"]
        self.do_step.index.fill_(self.step)

    def _warn_of_looking_ahead(self) -> None:
        with self.pack.evaluating():
            mixers = self.pack.model.user_mixers
            names = {mixer.config.name for mixer in mixers if mixer.looks_ahead(self.device)}
        for name in sorted(names):
            warnings.warn(
                f"{name} looks ahead: what it makes at a position changes with inputs after it, "
                "which a causal mixer does not see",
                ZoorecallWarning,
                stacklevel=3,
            )

    def _set_precision(self) -> None:
        torch.set_float32_matmul_precision("high" if self.train.precision == "tf32" else "highest")

    def _evaluate(self, step: int) -> None:
        measured, done = self.measure(self.test_examples, self.train.test_examples), self.do_step
        mean_loss = done.loss_sum / max(1, self.steps_in_sum)
        of_steps = torch.stack([mean_loss, done.max_loss, done.max_grad_norm]).cpu()
        active, diverged = self.active.tolist(), done.diverged_at.tolist()
        lost = [r for r, at in enumerate(diverged) if at >= 0]
        measured[:, lost], measured[2, lost], of_steps[:, lost] = 0.0, math.nan, math.nan
        accuracy, sequence_accuracy, test_loss, *slice_accuracy = measured.tolist()
        train_loss, max_loss, max_grad_norm = of_steps.tolist()
        if not self.steps_in_sum:
            train_loss = max_loss = max_grad_norm = [math.nan] * len(self.runs)
        for r, curve in enumerate(self.curves):
            if not active[r] and curve.step and (diverged[r] < 0 or curve.step[-1] > diverged[r]):
                continue  # its last evaluation is written
            curve.step.append(step)
            curve.train_loss.append(train_loss[r])
            curve.max_loss.append(max_loss[r])
            curve.max_grad_norm.append(max_grad_norm[r])
            curve.test_loss.append(test_loss[r])
            curve.test_accuracy.append(accuracy[r])
            curve.test_sequence_accuracy.append(sequence_accuracy[r])
            for name, of_runs in zip(self.slices, slice_accuracy, strict=True):
                curve.slice_test_accuracy[name].append(of_runs[r])
            if self._reached(accuracy[r]):
                self.stopped_at[r] = step
                self.active[r] = False
        for tensor in (done.loss_sum, done.max_loss, done.max_grad_norm):
            tensor.zero_()
        self.steps_in_sum = 0

    def _reached(self, accuracy: float) -> bool:
        """Whether a run of this test accuracy is to end."""
        at, above = self.train.stop_at_accuracy, self.train.stop_above_accuracy
        return (at is not None and accuracy >= at) or (above is not None and accuracy > above)

    def _result(self, r: int, on_train: list[float]) -> RunResult:
        curve, diverged_at = self.curves[r], int(self.do_step.diverged_at[r])
        best = int(np.argmax(curve.test_accuracy))
        solved = [s for s, a in zip(curve.step, curve.test_accuracy, strict=True) if a >= SOLVED]
        if diverged_at >= 0:
            on_train = [0.0, 0.0, math.nan]
        return RunResult(
            run=self.runs[r],
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
            stopped_at=self.stopped_at[r],
            slice_test_accuracy={s: a[-1] for s, a in curve.slice_test_accuracy.items()},
        )


def _form(state: Mapping[str, Any]) -> dict[str, Any]:
    """Names, types, lengths and shapes: what all states of the same runs have in common."""

    def of_one(x: Any) -> Any:
        return (x.shape, x.dtype) if isinstance(x, Tensor) else len(x) if isinstance(x, list) else 0

    return {name: (type(x), of_one(x)) for name, x in state.items()}

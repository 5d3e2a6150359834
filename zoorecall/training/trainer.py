"""The one training loop: a pack of runs, from its initial weights to its results.

Shape letters: R runs, S seeds, B batch, L length, Q queries, n examples, N slices of the task.

Runs with the same seed see the same examples in the same order. A step is a function of tensors
that stay where they are, so a GPU captures it once and replays it; nothing in it waits for the
host. Whatever the host wants to know it reads at an evaluation.
"""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..columns import SOLVED
from ..config import RunConfig
from ..model.pack import Pack
from ..ops.dropout import WORDS, mix
from ..ops.forms import forget_forms
from ..ops.linear_cross_entropy import linear_cross_entropy
from ..seeding import Stream, derive_seed
from ..tasks import make_task
from .data import Examples, make_examples
from .optim import AdamW
from .outcome import Curve, RunResult

STEPS_TO_PAY = {"cpu": 50, "cuda": 5000}
"""The steps that must remain for a smaller pack to pay. On a GPU it must be compiled and captured,
about 45 s, in which other workers have the GPU."""


class PackTrainer:
    """Trains runs of one pack key on one device, evaluation by evaluation.

    >>> trainer = PackTrainer(runs, torch.device("cpu"))
    >>> while not trainer.finished:
    ...     trainer.advance()
    >>> results = trainer.results()

    `state()` can be saved after any `advance`; a trainer made with it goes on as if never stopped.
    Where `half_empty`, `of_active()` goes on with fewer runs; the others have their results.
    `compiled=False` leaves out what makes the first step on a GPU long: for timing, not training.
    """

    def __init__(
        self,
        runs: Sequence[RunConfig],
        device: torch.device,
        state: dict | None = None,
        compiled: bool = True,
    ):
        if len({run.pack_key for run in runs}) != 1:
            raise ValueError("the runs of a pack may differ only in seed and optimizer settings")
        forget_forms()
        self.runs, self.device = tuple(runs), device
        self.train, self.task = runs[0].train, make_task(runs[0].task)
        self.dtype = torch.bfloat16 if self.train.precision == "bf16" else torch.float32
        self.seeds = sorted({run.seed for run in runs})
        self.seed_index = torch.tensor([self.seeds.index(r.seed) for r in runs], device=device)
        keys = [derive_seed(run.seed, "dropout") % WORDS for run in runs]
        self.dropout_keys = torch.tensor(keys, device=device)
        self.pack = Pack(runs, device)
        self.optimizer = AdamW([run.train for run in runs], self.pack.flat)
        self.test_examples = self._examples(self.train.test_examples, "test")
        self.train_examples: Examples | None = None
        self.epoch = -1

        R, batches = len(runs), (self.train.steps_per_epoch, self.train.batch_size)
        self.order = torch.zeros(len(self.seeds), *batches, dtype=torch.int64, device=device)
        self.cursor = torch.zeros(1, dtype=torch.int64, device=device)  # batch of the epoch
        self.step_index = torch.zeros((), dtype=torch.int64, device=device)
        self.active = torch.ones(R, dtype=torch.bool, device=device)
        self.diverged_at = torch.full((R,), -1, dtype=torch.int64, device=device)
        # since the evaluation before
        self.loss_sum, self.max_loss, self.max_grad_norm = (
            torch.zeros(R, dtype=torch.float64, device=device) for _ in range(3)
        )
        self.step, self.steps_in_sum = 0, 0
        self.seconds = 0.0  # of each run: of the pack's, as many as it has runs
        self.stopped_at: list[int | None] = [None] * R
        self.slices = runs[0].task.slices
        self.curves = [Curve(slice_test_accuracy={s: [] for s in self.slices}) for _ in runs]
        self._forward, self._update = self._mean_loss, self._update_runs
        self._step: Callable[[], None] = self._train_step
        if device.type == "cuda" and self.pack.can_be_captured:
            self._step = self._compile_and_capture if compiled else self._capture
        if state is not None:
            self._restore(state)

    # ---- what a sweep calls

    @property
    def finished(self) -> bool:
        evaluated = bool(self.curves[0].step) and self.step == self.train.num_steps
        return evaluated or not bool(self.active.any())

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
        while self.step < until:
            self._load_epoch(self.step // self.train.steps_per_epoch)
            self._step()
            self.step += 1
            self.steps_in_sum += 1
        self._evaluate(until)
        self.seconds += (time.perf_counter() - started) / len(self.runs)

    def time_steps(self, count: int) -> list[float]:
        """Train the first step `count` times and return the seconds of each; for benchmarks, as
        it neither counts the steps nor evaluates."""
        self._set_precision()
        self._load_epoch(0)
        seconds = []
        for _ in range(count):
            self.cursor.zero_()
            self.step_index.zero_()
            started = time.perf_counter()
            self._step()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            seconds.append(time.perf_counter() - started)
        return seconds

    @torch.no_grad()
    def measure(self, examples: Examples, count: int) -> Tensor:
        """Token accuracy, sequence accuracy, loss and the token accuracy of each slice on the first
        `count` examples, [3 + N, R] on the CPU."""
        R, size = len(self.runs), self.train.batch_size
        totals = torch.zeros(3, R, dtype=torch.float64, device=self.device)
        right, asked = totals.new_zeros(2, len(self.slices), R)
        with self.pack.evaluating():
            for start in range(0, count, size):
                index = torch.arange(start, min(start + size, count), device=self.device)
                batch = examples.batch(self.seed_index, index.expand(R, -1))
                loss, correct = self._losses(*batch)
                sequences = correct.view(R, len(index), -1).double()
                totals[0] += sequences.mean(-1).sum(-1)
                totals[1] += sequences.amin(-1).sum(-1)
                totals[2] += loss.double().view(sequences.shape).mean(-1).sum(-1)
                for i in range(len(self.slices)):
                    belongs = examples.slices[self.seed_index[:, None], index] == i  # [R, B, Q]
                    right[i] += (sequences * belongs).sum((1, 2))
                    asked[i] += belongs.sum((1, 2))
        return torch.cat([totals / count, right / asked]).cpu()

    def results(self) -> list[RunResult]:
        """One result a run, in order."""
        self._load_epoch(max(self.step - 1, 0) // self.train.steps_per_epoch)
        assert self.train_examples is not None
        count = min(self.train.test_examples, self.train.train_examples)
        on_train = self.measure(self.train_examples, count)[:3].T.tolist()
        return [self._result(r, on_train[r]) for r in range(len(self.runs))]

    def weights(self, run_id: str) -> dict[str, Tensor]:
        """The weights of one run by their names, on the CPU."""
        return self.pack.weights([run.run_id for run in self.runs].index(run_id))

    def state(self, of: Sequence[int] | None = None) -> dict:
        """Everything that is not a function of the runs' configs; `of` some runs or of all."""
        of = range(len(self.runs)) if of is None else of
        return {
            "step": self.step,
            "steps_in_sum": self.steps_in_sum,
            "seconds": self.seconds,
            "stopped_at": [self.stopped_at[r] for r in of],
            "curves": [vars(self.curves[r]) for r in of],
            "modules": [self.pack.states(r, torch.device("cpu")) for r in of],
            **{name: tensor[list(of)].cpu() for name, tensor in self._of_runs().items()},
        }

    # ---- inside

    def _restore(self, state: dict) -> None:
        self.step, self.steps_in_sum = state["step"], state["steps_in_sum"]
        self.seconds, self.stopped_at = state["seconds"], state["stopped_at"]
        self.curves = [Curve(**curve) for curve in state["curves"]]
        for name, tensor in self._of_runs().items():
            tensor.copy_(state[name])
        for r, modules in enumerate(state["modules"]):
            self.pack.restore(r, modules, self.device)
        self.step_index.fill_(self.step)

    def _of_runs(self) -> dict[str, Tensor]:
        """What training changes, a row a run."""
        return {
            "flat": self.pack.flat,
            "exp_avg": self.optimizer.exp_avg,
            "exp_avg_sq": self.optimizer.exp_avg_sq,
            "active": self.active,
            "diverged_at": self.diverged_at,
            "loss_sum": self.loss_sum,
            "max_loss": self.max_loss,
            "max_grad_norm": self.max_grad_norm,
        }

    def _warn_of_looking_ahead(self) -> None:
        with self.pack.evaluating():
            mixers = self.pack.model.user_mixers
            names = {mixer.name for mixer in mixers if mixer.looks_ahead(self.device)}
        for name in sorted(names):
            warnings.warn(
                f"{name} looks ahead: what it makes at a position changes with inputs after it, "
                "which a causal mixer does not see",
                stacklevel=3,
            )

    def _set_precision(self) -> None:
        torch.set_float32_matmul_precision("high" if self.train.precision == "tf32" else "highest")

    def _examples(self, n: int, split: str, block: int = 0) -> Examples:
        return make_examples(self.task, self.seeds, n, split, block, self.device)

    def _load_epoch(self, epoch: int) -> None:
        """Put the epoch's examples and their order where the step finds them."""
        if epoch == self.epoch:
            return
        fresh, n = self.train.data == "fresh", self.train.train_examples
        if self.train_examples is None:
            self.train_examples = self._examples(n, "train", epoch if fresh else 0)
        elif fresh:
            new = self._examples(n, "train", epoch)
            for name, values in vars(new).items():  # where a captured step looks for them
                getattr(self.train_examples, name).copy_(values)
        for s, seed in enumerate(self.seeds):
            order = np.arange(n) if fresh else Stream(seed, "order", epoch).permutation(n)
            batches = order[: self.order[s].numel()].reshape(self.order[s].shape)
            self.order[s].copy_(torch.from_numpy(batches), non_blocking=True)
        self.epoch = epoch
        self.cursor.fill_(self.step % self.train.steps_per_epoch)

    def _losses(
        self, tokens: Tensor, positions: Tensor, targets: Tensor, keys: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Loss (nats) and whether the most likely token is the target, both [R, B * Q]; with the
        keys of a step's dropout [R] as in training."""
        model = self.pack.model
        hidden = model.hidden(tokens, positions.long(), self.dtype, keys)
        head = model.embedding.weight.to(self.dtype)
        return linear_cross_entropy(hidden, head, targets.flatten(1).long())

    def _mean_loss(self, tokens: Tensor, positions: Tensor, targets: Tensor) -> Tensor:
        """What a run minimizes, [R]."""
        drops = self.pack.model.embed_dropout > 0
        keys = mix(self.dropout_keys ^ mix(self.step_index)) if drops else None
        return self._losses(tokens, positions, targets, keys)[0].mean(dim=1)

    def _train_step(self) -> None:
        assert self.train_examples is not None
        index = self.order.index_select(1, self.cursor).squeeze(1)[self.seed_index]  # [R, B]
        if not self.pack.can_be_captured:
            self.pack.activate(self.active.tolist())
        buffers = [(r, b, b.clone()) for r, b in self.pack.captured_buffers()]
        loss = self._forward(*self.train_examples.batch(self.seed_index, index))
        loss.sum().backward()
        for r, buffer, before in buffers:  # those of a run that has ended stay
            buffer.copy_(torch.where(self.active[r], buffer, before))
        self.pack.collect()
        self._update(loss.detach(), self.pack.take_gradients())

    def _compile_and_capture(self) -> None:
        """The first step on a GPU: compile what a step calls, and capture it."""
        torch.compiler.reset()  # what it compiled for the pack before would count as this one's
        self._forward = torch.compile(self._mean_loss, dynamic=False)
        self._update = torch.compile(self._update_runs, dynamic=False)
        self._capture()

    def _capture(self) -> None:
        """Capture a step as a CUDA graph, replay it, and do so from here on. Before it is captured
        it runs a few times, each of which is undone: no step after this one need exist."""
        changing = [*self._of_runs().values(), self.step_index, self.cursor]
        changing += [buffer for _, buffer in self.pack.captured_buffers()]
        before = [tensor.clone() for tensor in changing]
        stream = _side_stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._train_step()
                for tensor, values in zip(changing, before, strict=True):
                    tensor.copy_(values)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        torch.cuda.empty_cache()  # a graph has memory of its own
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self._train_step()
        self._step = graph.replay
        graph.replay()

    @torch.no_grad()
    def _update_runs(self, loss: Tensor, grads: list[Tensor]) -> None:
        grad, before = self.pack.join(grads), self.active.clone()
        ok = before & loss.isfinite()
        updated, norm = self.optimizer.step(self.pack.flat, grad, self.step_index, ok)
        diverged = before & ~updated
        self.diverged_at.copy_(torch.where(diverged, self.step_index, self.diverged_at))
        loss, norm = torch.where(updated, loss, 0.0), torch.where(updated, norm, 0.0)
        self.loss_sum.add_(loss)
        self.max_loss.copy_(torch.maximum(self.max_loss, loss))
        self.max_grad_norm.copy_(torch.maximum(self.max_grad_norm, norm))
        self.active.copy_(updated)
        self.step_index.add_(1)
        self.cursor.add_(1)

    def _evaluate(self, step: int) -> None:
        measured = self.measure(self.test_examples, self.train.test_examples)
        mean_loss = self.loss_sum / max(1, self.steps_in_sum)
        of_steps = torch.stack([mean_loss, self.max_loss, self.max_grad_norm]).cpu()
        active, diverged = self.active.tolist(), self.diverged_at.tolist()
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
            stop = self.train.stop_at_accuracy
            if stop is not None and accuracy[r] >= stop:
                self.stopped_at[r] = step
                self.active[r] = False
        for tensor in (self.loss_sum, self.max_loss, self.max_grad_norm):
            tensor.zero_()
        self.steps_in_sum = 0

    def _result(self, r: int, on_train: list[float]) -> RunResult:
        curve, diverged_at = self.curves[r], int(self.diverged_at[r])
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


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream on which packs are captured: one for all, as the matrix library keeps a workspace,
    tens of MiB, for each that it has seen."""
    return torch.cuda.Stream(device)

"""What carries out the orders of a sweep, and what any worker of it does with one."""

import contextlib
import queue
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self, TextIO

import torch

from .. import results
from ..checkpoints import write_weights
from ..config import RunConfig
from ..errors import ResultsError, ZoorecallWarning
from .events import (
    Done,
    Evaluation,
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
from .pack_job import PackJob, release_memory

TELL_SECONDS = 2
"""Between two times that a worker says how far it is, if nothing is evaluated meanwhile."""


class Executor(Protocol):
    """Workers, one a place. `with` ends them; those that train save checkpoints first."""

    places: Sequence[str]
    """The device of each."""

    def give(self, place: int, order: Train | More | Prune) -> None:
        """Give a worker an order: `Train` if it has none, `More` and `Prune` if it trains. One that
        is not there is started."""
        ...

    def event(self, seconds: float) -> tuple[int, JobEvent] | None:
        """Wait for the next event, no longer than this; which worker says so. `Died` says that the
        worker did."""
        ...

    def kill(self, place: int, reason: str) -> None:
        """End a worker that hangs; `Died` will say so, for this reason."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...


class Inbox:
    """The orders that reach a worker while it trains."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self._more: queue.SimpleQueue[More] = queue.SimpleQueue()
        self._pruned: queue.SimpleQueue[str] = queue.SimpleQueue()

    def put(self, order: More | Prune | Stop) -> None:
        """Have it read."""
        if isinstance(order, More):
            self._more.put(order)
        elif isinstance(order, Prune):
            for run_id in order.run_ids:
                self._pruned.put(run_id)
        else:
            self.stopped.set()
            self._more.put(More(()))  # who waits, waits no longer

    def more(self) -> tuple[RunConfig, ...]:
        """Wait for the answer to `Finished` or `Pruned`; nothing where it is to stop."""
        order = self._more.get()
        return () if self.stopped.is_set() else order.runs

    def pruned(self) -> set[str]:
        """The runs to prune, of which it is told for the first time."""
        found = set()
        with contextlib.suppress(queue.Empty):
            while True:
                found.add(self._pruned.get_nowait())
        return found


Emit = Callable[[JobEvent], None]


def perform(job: Train, setup: Setup, emit: Emit, inbox: Inbox) -> None:
    """Carry out a job in this process and emit its events; where runs cannot be trained, one says
    why."""
    device = torch.device(setup.device)
    try:
        emit(_ending(job, setup, device, emit, inbox))
    finally:
        release_memory(device)  # the next pack has other shapes


def _ending(job: Train, setup: Setup, device: torch.device, emit: Emit, inbox: Inbox) -> JobEvent:
    """Train; returns how that ended."""
    try:
        return _train(job, setup, device, emit, inbox)
    except (Exception, SystemExit) as error:  # a user's mixer may raise anything
        with contextlib.suppress(OSError):  # the log may be on the disk that is full
            traceback.print_exc()
        if isinstance(error, ResultsError):
            return Unwritable(str(error))
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        out_of_memory = isinstance(error, torch.OutOfMemoryError)
        return OutOfMemory(reason) if out_of_memory else Raised(reason)


def _train(job: Train, setup: Setup, device: torch.device, emit: Emit, inbox: Inbox) -> JobEvent:
    """Train runs until none is left and no more come, or a `Stop`."""
    at_work = {run.run_id for run in job.runs}
    saved = time.monotonic()

    def pause() -> bool:
        return inbox.stopped.is_set() or time.monotonic() - told > TELL_SECONDS

    with _warnings_told(lambda: tuple(sorted(at_work)), emit):
        pack = PackJob(job.runs, job.slots, device, setup.folder)
        while pack.running:
            told = time.monotonic()  # after what was saved: else a slow disk might end all training
            evaluations: tuple[Evaluation, ...] = pack.advance(pause)
            emit(Progress(pack.steps, evaluations))
            left: list[Finished | Pruned] = []
            if taken := pack.take():
                for row, weights in taken:
                    if weights is not None:
                        write_weights(setup.folder, row["run_id"], weights)
                results.write_shard(setup.folder, [row for row, _ in taken])
                left.append(Finished(tuple(row["run_id"] for row, _ in taken)))
            if pruned := inbox.pruned() & {slot.run.run_id for slot in pack.running}:
                for run_id in pruned:
                    pack.prune(run_id)
                left.append(Pruned(tuple(sorted(pruned))))
            for event in left:
                emit(event)
                entering = inbox.more()
                at_work -= set(event.run_ids)
                at_work |= {run.run_id for run in entering}
                pack.enter(entering)
            if inbox.stopped.is_set() and pack.running:
                pack.save()
                return Stopped()
            if time.monotonic() - saved > setup.checkpoint_seconds:
                pack.save()
                saved = time.monotonic()
    return Done()


@contextlib.contextmanager
def _warnings_told(run_ids: Callable[[], tuple[str, ...]], emit: Emit) -> Iterator[None]:
    """Emit this package's warnings, each once, as events of these runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("default", ZoorecallWarning)
        show_other = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, ZoorecallWarning):
                emit(Warned(run_ids(), " ".join(str(message).split())))
            else:
                show_other(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield

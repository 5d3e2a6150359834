"""What carries out the jobs of a sweep, and what any worker of it does with one."""

import contextlib
import traceback
import warnings
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol, Self, TextIO, TypeVar

import torch

from ..errors import ResultsError, ZoorecallWarning
from .events import (
    Failed,
    Finished,
    Job,
    JobEvent,
    Measure,
    Measured,
    OutOfMemory,
    Setup,
    Stopped,
    Train,
    Unwritable,
    Warned,
)
from .pack_job import train_pack
from .sizing import measured_size, release_memory

J = TypeVar("J", Train, Measure)


class Executor(Protocol):
    """Workers that carry out jobs. `with` ends them; one that trains saves a checkpoint first."""

    count: int
    """How many jobs may be at work at a time."""

    def carry_out(
        self, jobs: list[J], take: Callable[[list[J]], J]
    ) -> Iterator[tuple[J, JobEvent]]:
        """Give each job to a worker as soon as one is free and `take` takes it out of the list, and
        yield every event with its job. Any but an `Interim` is the last of its job; `Died` says
        that its worker did. Who reads the events may put more jobs into the list.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...


def perform(
    job: Job, setup: Setup, emit: Callable[[JobEvent], None], stopping: Callable[[], bool]
) -> None:
    """Carry out a job in this process and emit its events.

    Where a pack cannot be trained, an event says why. Where a run cannot be measured, this raises:
    the worker should end, so that the next one trains on a GPU in a known state.
    """
    device = torch.device(setup.device)
    try:
        if isinstance(job, Measure):
            with _warnings_told((job.run.run_id,), emit):
                emit(Measured(job.run.pack_key, measured_size(job.run, device)))
        else:
            with _warnings_told(tuple(run.run_id for run in job.pack.runs), emit):
                emit(_train(job, setup, device, emit, stopping))
    finally:
        release_memory(device)  # the next pack has other shapes


def _train(
    job: Train,
    setup: Setup,
    device: torch.device,
    emit: Callable[[JobEvent], None],
    stopping: Callable[[], bool],
) -> JobEvent:
    """Train the pack; returns how that ended."""
    pack_id, seconds = job.pack.pack_id, setup.checkpoint_seconds
    try:
        finished = train_pack(job.pack, setup.folder, device, seconds, emit, stopping)
        return Finished(pack_id) if finished else Stopped(pack_id)
    except (Exception, SystemExit) as error:  # a user's mixer may raise anything
        with contextlib.suppress(OSError):  # the log may be on the disk that is full
            traceback.print_exc()
        if isinstance(error, ResultsError):
            return Unwritable(str(error))
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        out_of_memory = isinstance(error, torch.OutOfMemoryError)
        return OutOfMemory(pack_id, reason) if out_of_memory else Failed(pack_id, reason)


@contextlib.contextmanager
def _warnings_told(run_ids: tuple[str, ...], emit: Callable[[JobEvent], None]) -> Iterator[None]:
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
                emit(Warned(run_ids, " ".join(str(message).split())))
            else:
                show_other(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield

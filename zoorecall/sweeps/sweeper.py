"""A sweep: the packs of a grid, trained by an executor, into one results folder.

The sweep itself does not train: workers are processes of their own, so that a crash or a kill of
either side costs at most what was trained since the last checkpoint.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from .. import files, results
from ..config import RunConfig
from ..errors import DeviceError, ResultsError, SweepFailed
from ..grid import Grid
from ..results import Results
from .events import (
    Died,
    Failed,
    Measure,
    Measured,
    Measuring,
    OutOfMemory,
    Retried,
    Split,
    Started,
    Stopped,
    SweepEvent,
    Train,
    Unwritable,
    Warned,
)
from .executor import Executor
from .local import LocalExecutor, places
from .merging import write_grid
from .plan import SAMPLE_SIZES, PlannedPack, check_fits, kept_and_groups, pack_size, plan


def default_folder(grid: Grid) -> Path:
    return Path("results") / grid.name


def resolve_device(device: str) -> str:
    """`auto`, `cpu` or `cuda` to one of the last two; raises DeviceError if there is no GPU."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("--device cuda: torch finds no GPU here; use --device cpu or auto")
    return device


def plan_packs(
    grid: Grid, device: str, folder: Path | None = None, sizes: Mapping[str, int] | None = None
) -> list[PlannedPack]:
    """The packs that a sweep of the grid would still train, given what `folder` holds.

    `sizes` are those measured, by pack key; others are estimated. Raises DeviceError where a run
    cannot train on the device.
    """
    todo, earlier = _missing(grid, folder)
    check_fits(todo, torch.device(device))
    known = sizes or {}

    def size(run: RunConfig) -> int:
        return known.get(run.pack_key) or pack_size(run, torch.device(device))

    return plan(todo, size, earlier, at_least=torch.cuda.device_count() if device == "cuda" else 1)


def _missing(
    grid: Grid, folder: Path | None
) -> tuple[list[RunConfig], Mapping[str, Sequence[str]]]:
    """The runs that `folder` does not hold, and the packs an earlier sweep planned."""
    done = results.finished_run_ids(folder) if folder else set()
    earlier = results.read_plan(folder) if folder else {}
    return [run for run in grid.runs if run.run_id not in done], earlier


def sweep(
    grid: Grid,
    folder: str | Path | None = None,
    *,
    device: str = "auto",
    resume: bool = True,
    checkpoint_seconds: float = 60,
    on_event: Callable[[SweepEvent], None] = lambda event: None,
) -> Results:
    """Train every run of the grid that `folder` (by default results/NAME) does not hold yet.

    Ctrl-C, a crash or a kill lose at most `checkpoint_seconds` of training; the same call goes on
    from there and ends with the same table. `resume=False` moves what the folder holds aside, to
    the first free of NAME.1, NAME.2, ... From the start the folder's grid.yaml states the runs, and
    once all are there they stand in two tables, see `merge`. Raises ResultsError where the folder
    cannot be read or written, DeviceError where a run cannot train on the device, SweepFailed where
    a pack could not be trained.
    """
    if folder == "":
        raise ResultsError("the name of the results folder is empty")
    folder = default_folder(grid) if folder is None else Path(folder)
    device = resolve_device(device)
    check_fits(grid.runs, torch.device(device))
    with contextlib.ExitStack() as locks:
        if not resume and folder.exists():
            locks.enter_context(files.locked(folder))  # held to the end: no one's to go on with
            _move_aside(folder)
        locks.enter_context(files.locked(folder))
        files.clear_temporaries(folder, results.SUBFOLDERS)
        damaged = results.set_aside_damaged(folder)
        for line in damaged:
            on_event(Warned((), line))
        write_grid(folder, grid.runs, grid.description, keep=bool(damaged))
        order = {run.run_id: i for i, run in enumerate(grid.runs)}
        try:
            with LocalExecutor(places(device), folder, checkpoint_seconds) as executor:
                sizes = _measure(grid, folder, device, executor, on_event)
                packs = plan_packs(grid, device, folder, sizes)
                if packs:
                    _remember(folder, packs)
                todo = sum(len(pack.runs) for pack in packs)
                on_event(Started(folder, device, tuple(packs), len(grid.runs) - todo))
                failed = _train(packs, folder, executor, on_event)
        finally:
            if results.finished_run_ids(folder):
                results.write_tables(folder, order)
        if failed:
            pack, reason = failed[0]
            raise SweepFailed(
                f"{len(failed)} of {len(packs)} packs failed, the first "
                f"({pack.runs[0].model.mixer.label}) with: {reason}; see {folder / 'worker.log'}"
            )
        results.merge(folder)
    return results.load_results(folder)


def _remember(folder: Path, packs: Sequence[PlannedPack], instead_of: str | None = None) -> None:
    """Write packs into the folder's plan."""
    known = results.read_plan(folder)
    known.pop(instead_of or "", None)
    results.write_plan(folder, known | {p.pack_id: [run.run_id for run in p.runs] for p in packs})


def _move_aside(folder: Path) -> None:
    if folder.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise ResultsError(f"{folder}: has the working folder in it, and is not moved aside")
    folder.rename(files.first_free(folder))


def _measure(
    grid: Grid,
    folder: Path,
    device: str,
    executor: Executor,
    on_event: Callable[[SweepEvent], None],
) -> dict[str, int]:
    """How many runs to train at once, by pack key: on a GPU, and where one pack might be too many.

    A group that cannot be measured is left out: what keeps it from it, training will report.
    """
    if device == "cpu":
        return {}
    _, groups = kept_and_groups(*_missing(grid, folder))
    jobs = [Measure(group[0]) for group in groups if len(group) > SAMPLE_SIZES[1]]
    if jobs:
        on_event(Measuring(len(jobs), device))
    sizes = {}
    for _, event in executor.carry_out(jobs, lambda jobs: jobs.pop(0)):
        if isinstance(event, Measured):
            sizes[event.pack_key] = event.size
        elif isinstance(event, Warned):
            on_event(event)
    return sizes


def _train(
    packs: Sequence[PlannedPack],
    folder: Path,
    executor: Executor,
    on_event: Callable[[SweepEvent], None],
) -> list[tuple[PlannedPack, str]]:
    """Have the packs trained and pass events on; returns those that failed, and why."""
    jobs, failed, retried = [Train(pack) for pack in packs], [], set()
    for job, event in executor.carry_out(jobs, lambda jobs: _next(jobs, executor.count)):
        pack, pack_id = job.pack, job.pack.pack_id
        if isinstance(event, Unwritable):
            raise ResultsError(
                event.reason + "; what was finished is kept, the same command goes on"
            )
        if isinstance(event, OutOfMemory) and len(pack.runs) > 1:
            halves = pack.halves()
            _remember(folder, halves, instead_of=pack_id)
            jobs[:0] = map(Train, halves)
            on_event(Split(pack_id, halves))
        elif isinstance(event, Died) and pack_id not in retried:
            retried.add(pack_id)
            jobs.insert(0, job)
            on_event(Retried(pack_id, event.reason))
        elif isinstance(event, OutOfMemory | Died | Failed):
            failed.append((pack, event.reason))
            on_event(Failed(pack_id, event.reason))
        elif not isinstance(event, Measured | Stopped):
            on_event(event)
    return failed


def _next(jobs: list[Train], workers: int) -> Train:
    """Take the next pack: in the order of the grid, but of the last two a worker the one that takes
    longest, so that at the end no worker is alone with a long one."""
    if len(jobs) > 2 * workers:
        return jobs.pop(0)
    return jobs.pop(max(range(len(jobs)), key=lambda i: jobs[i].pack.work))

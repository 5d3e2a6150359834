"""A sweep: the runs of a grid, trained by an executor, into one results folder.

The sweep itself does not train: workers are processes of their own, so that a crash or a kill of
either side costs at most what was trained since the last checkpoint.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from .. import files, results
from ..checkpoints import checkpoint_path
from ..config import RunConfig
from ..errors import DeviceError, ResultsError, SweepFailed, UserError, checked
from ..grid import Grid
from ..results import Results
from .events import (
    Asked,
    Died,
    Finished,
    Interim,
    More,
    Prune,
    Pruned,
    Started,
    SweepEvent,
    Unmerged,
    Unwritable,
    Warned,
)
from .executor import Executor
from .local import LOG, LocalExecutor, places
from .merging import write_grid
from .plan import RunGroup, check_fits, each_once, pack_size, plan, share
from .schedule import Schedule
from .watch import Watch

Device = Literal["auto", "cpu", "cuda"]

OTHERS_SECONDS = 2
"""Between two looks at what other searches into the same storage have found."""

OTHERS = (
    "waiting for runs that another search in the same storage has begun; if that was killed, begin "
    "it again with its results folder"
)


def default_folder(name: str) -> Path:
    """The results folder of a grid's name. Raises UserError for a name that leads elsewhere."""
    if name in ("", ".", "..") or Path(name).name != name:
        raise UserError(f"{name!r} is no name of a results folder; name one with --out")
    return Path("results") / name


def resolve_device(device: Device) -> Literal["cpu", "cuda"]:
    """`auto`, `cpu` or `cuda` to one of the last two; raises DeviceError if there is no GPU."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("--device cuda: torch finds no GPU here; use --device cpu or auto")
    return device


def plan_groups(grid: Grid, device: str, folder: Path | None = None) -> list[RunGroup]:
    """The runs that a sweep of the grid would still train, given what `folder` holds, in an
    estimated number of slots. Raises DeviceError where a run cannot train on the device."""
    done = results.finished_run_ids(folder) if folder else set()
    todo = [run for run in grid.runs if run.run_id not in done]
    check_fits(todo, torch.device(device))
    return plan(todo, lambda run: pack_size(run, torch.device(device)))


def part_of(grid: Grid, part: tuple[int, int] | None) -> Grid:
    """The grid of what part i of n trains; raises UserError where there is no such part, or fewer
    runs than parts."""
    if part is None:
        return grid
    if part[0] > part[1]:
        raise UserError(f"there is no part {part[0]} of {part[1]}")
    return dataclasses.replace(grid, runs=tuple(share(grid.runs, *part)))


@checked
def sweep(
    grid: Grid,
    folder: str | Path | None = None,
    *,
    device: Device = "auto",
    resume: bool = True,
    part: tuple[PositiveInt, PositiveInt] | None = None,
    executor: Literal["local", "ray"] = "local",
    address: str | None = None,
    checkpoint_seconds: NonNegativeFloat = 60,
    give_up_seconds: PositiveFloat | None = None,
    on_event: Callable[[SweepEvent], None] = lambda event: None,
) -> Results:
    """Train every run of the grid that `folder` (by default results/NAME) does not hold yet.

    Ctrl-C, a crash or a kill lose at most `checkpoint_seconds` of training; the same call goes on
    from there and ends with the same table. `resume=False` moves what the folder holds aside, to
    the first free of NAME.1, NAME.2, ... From the start the folder's grid.yaml states the runs, and
    once all are there they stand in two tables, see `merge`.

    `part=(i, n)` trains the i-th of n shares of the grid, with others at work in the same folder;
    the last of them merges it. `executor="ray"` trains on the devices of the Ray cluster at
    `address`; without one, on those of this machine. A worker that says nothing for
    `give_up_seconds` is ended, as if it had crashed.

    Raises ResultsError where the folder cannot be read or written, DeviceError where a run cannot
    train on the device, SweepFailed where a run could not be trained, UserError for arguments that
    fit neither their types nor one another. A KeyboardInterrupt has a note of what is kept.
    """
    if folder == "":
        raise ResultsError("the name of the results folder is empty")
    if not grid.runs:
        raise UserError("the grid has no runs")
    if part and not resume:
        raise UserError("a part cannot move aside what others write; move the folder yourself")
    if address and executor != "ray":
        raise UserError(f"the address {address} is of a Ray cluster; --executor ray trains there")
    folder = default_folder(grid.name) if folder is None else Path(folder)
    grid = dataclasses.replace(grid, runs=each_once(grid.runs))
    device, own = resolve_device(device), part_of(grid, part)
    check_fits(own.runs, torch.device(device))
    order = {run.run_id: i for i, run in enumerate(grid.runs)}
    with contextlib.ExitStack() as locks:
        if not resume and folder.exists():
            locks.enter_context(files.locked(folder))  # held to the end: no one's to go on with
            _move_aside(folder)
        setting_up = locks.enter_context(files.locked(folder, part))
        with setting_up() as alone:
            set_up(folder, grid, alone, on_event)
        log = f"worker.{part[0]}-of-{part[1]}.log" if part else LOG
        try:
            (folder / log).unlink(missing_ok=True)
            groups = plan_groups(own, device, folder)
            todo = sum(len(group.runs) for group in groups)
            where = (executor, address, todo, device)
            with make_workers(*where, folder, checkpoint_seconds, log) as each:
                watch = Watch(each, give_up_seconds, on_event)
                on_event(Started(folder, device, tuple(groups), len(own.runs) - todo))
                schedule = Schedule(groups, each.places)
                train_all(folder, schedule, watch, on_event)
                failed = schedule.failed
        except KeyboardInterrupt as error:
            error.add_note(what_is_kept(folder, own.runs))
            raise
        finally:
            if results.has_runs(folder):
                with setting_up():
                    results.write_tables(folder, order)
        if failed:
            raise failure(failed, todo, folder / log)
        with setting_up() as alone:
            missing = order.keys() - results.finished_run_ids(folder)
            if lost := missing & {run.run_id for run in own.runs}:
                raise ResultsError(
                    f"{folder}: has no longer what {len(lost)} runs came to; the same command "
                    "trains them again"
                )
            if missing or not alone:
                on_event(Unmerged(folder, len(missing)))
            else:
                results.merge(folder)
    return results.load_results(folder)


def failure(failed: Sequence[tuple[RunConfig, str]], todo: int, log: Path) -> SweepFailed:
    """What to say of runs that failed, each with the reason."""
    run, reason = failed[0]
    return SweepFailed(
        f"{len(failed)} of {todo} runs failed, the first ({run.model.mixer.label}) with: {reason}; "
        f"see {log}"
    )


def set_up(
    folder: Path,
    grid: Grid,
    alone: bool,
    on_event: Callable[[SweepEvent], None],
    keep: bool = False,
) -> None:
    """Clear away what an earlier sweep left half-written or someone damaged, and write down what
    is to be trained, `keep` beside what was. What other parts are writing stays."""
    if alone:
        files.clear_temporaries(folder, results.SUBFOLDERS)
    damaged = results.set_aside_damaged(folder)
    for line in damaged:
        on_event(Warned((), line))
    write_grid(folder, grid.runs, grid.description, keep=keep or bool(damaged))
    run_ids = [run.run_id for run in grid.runs]
    if not results.finished_run_ids(folder).issuperset(run_ids):
        results.write_plan(folder, run_ids)


def make_workers(
    executor: str,
    address: str | None,
    most: int,
    device: str,
    folder: Path,
    checkpoint_seconds: float,
    log: str,
) -> Executor:
    """At most so many of them; of no cluster, where there is nothing to do."""
    if executor == "ray" and most:
        from .ray_executor import RayExecutor

        return RayExecutor(address, device, most, folder, checkpoint_seconds, log)
    return LocalExecutor(places(device)[:most], folder, checkpoint_seconds, log)


def what_is_kept(folder: Path, runs: Iterable[RunConfig]) -> str:
    """What an interrupted sweep goes on from."""
    run_ids = {run.run_id for run in runs}
    finished = run_ids & results.finished_run_ids(folder)
    saved = [x for x in run_ids - finished if checkpoint_path(folder, x).exists()]
    return f"{len(finished)} of {len(run_ids)} runs are finished, {len(saved)} more are saved"


def _move_aside(folder: Path) -> None:
    if folder.resolve() in (Path.cwd(), *Path.cwd().parents):
        raise ResultsError(f"{folder}: has the working folder in it, and is not moved aside")
    folder.rename(files.first_free(folder))


class Source(Protocol):
    """Where a search's runs come from, while it is at work."""

    def ask(self, room: int) -> list[RunGroup]:
        """Runs to train now, at most so many."""
        ...

    def hear(self, event: SweepEvent) -> tuple[str, ...]:
        """Hear of an event; returns the runs that are to be trained no further."""
        ...

    @property
    def finished(self) -> bool:
        """Whether it will ask for no more."""
        ...


def train_all(
    folder: Path,
    schedule: Schedule,
    watch: Watch,
    on_event: Callable[[SweepEvent], None],
    source: Source | None = None,
    slots: int = 1,
) -> None:
    """Have all runs trained into a folder, also those that a source asks for, and pass events on.
    An idle worker is taken to have room for so many `slots`."""

    def tell(place: int, event: SweepEvent) -> None:
        on_event(event)
        if source and (pruned := source.hear(event)):
            watch.give(place, Prune(pruned))

    told = False
    while True:
        if source and (groups := source.ask(schedule.room(slots))):
            schedule.add(groups)
            on_event(Asked(tuple(groups)))
        hold = source is not None and not source.finished
        for held, runs in schedule.held(hold):
            watch.give(held, More(runs))
        for idle, job in schedule.jobs():
            watch.give(idle, job)
        if not schedule.busy and schedule.waiting:
            raise DeviceError("no worker is left; what is finished is kept, the command goes on")
        if not schedule.busy and not hold:
            return
        if schedule.waits:  # for runs of another search into the same storage
            if not told:
                on_event(Warned((), OTHERS))
            told = True
            time.sleep(OTHERS_SECONDS)
            continue
        place, event = watch.event()
        if isinstance(event, Unwritable):
            raise ResultsError(
                event.reason + "; what was finished is kept, the same command goes on"
            )
        if isinstance(event, Interim):
            tell(place, event)
        if isinstance(event, Finished | Pruned):
            more = schedule.more(place, event.run_ids, isinstance(event, Finished), hold)
            if more is not None:
                watch.give(place, More(more))
        if isinstance(event, Died) and (
            done := schedule.at_work(place) & results.finished_run_ids(folder)
        ):  # it could not say any more that their rows are on disk
            schedule.leave(place, done, finished=True)
            tell(place, Finished(tuple(sorted(done))))
        if not isinstance(event, Interim):
            for meaning in schedule.end(place, event):
                tell(place, meaning)

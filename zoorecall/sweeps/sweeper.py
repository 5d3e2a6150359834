"""A sweep: the packs of a grid, trained by workers, into one results folder.

The sweep itself does not train: workers are processes of their own, so that a crash or a kill of
either side costs at most what was trained since the last checkpoint.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import files, results
from ..config import RunConfig
from ..errors import DeviceError, ResultsError, SweepFailed
from ..grid import Grid
from ..results import Results
from .local import Workers, places
from .merging import write_grid
from .plan import SAMPLE_SIZES, PlannedPack, kept_and_groups, pack_size, plan


@dataclass(frozen=True)
class Sizing:
    """Before anything is planned: of so many groups of runs, how many to train at once is
    measured on the device."""

    groups: int
    device: str


@dataclass(frozen=True)
class Started:
    """What is to be done: the packs to train, and how many runs an earlier sweep finished."""

    folder: Path
    device: str
    packs: tuple[PlannedPack, ...]
    finished_runs: int


@dataclass(frozen=True)
class Progress:
    """A pack was evaluated after `step` steps; `accuracy` is the best so far of each run."""

    pack: PlannedPack
    step: int
    accuracy: tuple[float, ...]


@dataclass(frozen=True)
class Finished:
    """A pack's rows are on disk."""

    pack: PlannedPack


@dataclass(frozen=True)
class Failed:
    """A pack could not be trained; the sweep goes on without it."""

    pack: PlannedPack
    reason: str


@dataclass(frozen=True)
class Split:
    """A pack did not fit into memory; its runs go on as two packs."""

    pack: PlannedPack
    halves: tuple[PlannedPack, PlannedPack]


@dataclass(frozen=True)
class Retried:
    """A pack's worker died, the first time; the pack goes on from its last checkpoint."""

    pack: PlannedPack
    reason: str


Event = Sizing | Started | Progress | Finished | Failed | Split | Retried


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

    `sizes` are those measured, by pack key; others are estimated.
    """
    todo, earlier = _missing(grid, folder)
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
    on_event: Callable[[Event], None] = lambda event: None,
) -> Results:
    """Train every run of the grid that `folder` (by default results/NAME) does not hold yet.

    Ctrl-C, a crash or a kill lose at most `checkpoint_seconds` of training; the same call goes on
    from there and ends with the same table. `resume=False` moves what the folder holds aside, to
    the first free of NAME.1, NAME.2, ... From the start the folder's grid.yaml states the runs, and
    once all are there they stand in two tables, see `merge`. Raises ResultsError where the folder
    cannot be read or written, SweepFailed where a pack could not be trained.
    """
    folder = Path(folder) if folder else default_folder(grid)
    device = resolve_device(device)
    if not resume and folder.exists():
        _move_aside(folder)
    with files.locked(folder):
        files.clear_temporaries(folder)
        write_grid(folder, grid.runs, grid.description)
        order = {run.run_id: i for i, run in enumerate(grid.runs)}
        try:
            with Workers(places(device), folder, checkpoint_seconds) as workers:
                sizes = _measure(grid, folder, device, workers, on_event)
                packs = plan_packs(grid, device, folder, sizes)
                if packs:
                    _remember(folder, packs)
                todo = sum(len(pack.runs) for pack in packs)
                on_event(Started(folder, device, tuple(packs), len(grid.runs) - todo))
                failed = _train(packs, folder, workers, on_event)
        finally:
            if results.finished_run_ids(folder):
                results.write_tables(folder, order)
        if failed:
            first, label = failed[0], failed[0].pack.runs[0].model.mixer.label
            raise SweepFailed(
                f"{len(failed)} of {len(packs)} packs failed, the first ({label}) with: "
                f"{first.reason}; see {folder / 'worker.log'}"
            )
        results.merge(folder)
    return results.load_results(folder)


def _remember(folder: Path, packs: Sequence[PlannedPack], instead_of: str | None = None) -> None:
    """Write packs into the folder's plan."""
    known = results.read_plan(folder)
    known.pop(instead_of or "", None)
    results.write_plan(folder, known | {p.pack_id: [run.run_id for run in p.runs] for p in packs})


def _move_aside(folder: Path) -> None:
    number = 1
    while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    folder.rename(aside)


def _measure(
    grid: Grid,
    folder: Path,
    device: str,
    workers: Workers,
    on_event: Callable[[Event], None],
) -> dict[str, int]:
    """How many runs to train at once, by pack key: on a GPU, and where one pack might be too many.

    A group that cannot be measured is left out: what keeps it from it, training will report.
    """
    if device == "cpu":
        return {}
    _, groups = kept_and_groups(*_missing(grid, folder))
    tasks = [group[0] for group in groups if len(group) > SAMPLE_SIZES[1]]
    if tasks:
        on_event(Sizing(len(tasks), device))
    answers = workers.carry_out(
        tasks, lambda tasks: tasks.pop(0), lambda run: {"size": run.model_dump_json()}
    )
    return {run.pack_key: event["size"] for run, event in answers if event["event"] == "sized"}


def _train(
    packs: Sequence[PlannedPack],
    folder: Path,
    workers: Workers,
    on_event: Callable[[Event], None],
) -> list[Failed]:
    """Hand the packs to workers and pass their events on; returns the failures."""
    waiting, failed, retried = list(packs), [], set()
    events = workers.carry_out(
        waiting,
        lambda waiting: _next(waiting, workers.count),
        lambda pack: {"train": [run.model_dump_json() for run in pack.runs]},
    )
    for pack, event in events:
        kind = event["event"]
        if kind == "progress":
            on_event(Progress(pack, event["step"], tuple(event["accuracy"])))
        elif kind == "finished":
            on_event(Finished(pack))
        elif kind == "disk":
            raise ResultsError(
                event["reason"] + "; what was finished is kept, the same command goes on"
            )
        elif kind == "out of memory" and len(pack.runs) > 1:
            halves = pack.halves()
            _remember(folder, halves, instead_of=pack.pack_id)
            waiting[:0] = halves
            on_event(Split(pack, halves))
        elif kind == "died" and pack.pack_id not in retried:
            retried.add(pack.pack_id)
            waiting.insert(0, pack)
            on_event(Retried(pack, event["reason"]))
        else:
            failed.append(Failed(pack, event["reason"]))
            on_event(failed[-1])
    return failed


def _next(waiting: list[PlannedPack], workers: int) -> PlannedPack:
    """Take the next pack: in the order of the grid, but of the last two a worker the one that takes
    longest, so that at the end no worker is alone with a long one."""
    if len(waiting) > 2 * workers:
        return waiting.pop(0)
    return waiting.pop(max(range(len(waiting)), key=lambda i: waiting[i].work))

"""A sweep: the packs of a grid, trained by workers, into one results folder.

The sweep itself imports neither model nor training: workers are processes of their own, one a GPU
or one a CPU core, so that a crash or a kill of either side costs at most what was trained since
the last checkpoint.
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from . import results
from .errors import DeviceError, ResultsError, SweepFailed
from .grid import Grid
from .plan import PlannedPack, pack_size, plan
from .results import Results


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


Event = Started | Progress | Finished | Failed | Split


def default_folder(grid: Grid) -> Path:
    return Path("results") / grid.name


def resolve_device(device: str) -> str:
    """`auto`, `cpu` or `cuda` to one of the last two; raises DeviceError if there is no GPU."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("--device cuda: torch finds no GPU here; use --device cpu or auto")
    return device


def plan_packs(grid: Grid, device: str, folder: Path | None = None) -> list[PlannedPack]:
    """The packs that a sweep of the grid would still train, given what `folder` holds."""
    done = results.finished_run_ids(folder) if folder else set()
    earlier = results.read_plan(folder) if folder else {}
    todo = [run for run in grid.runs if run.run_id not in done]
    return plan(todo, lambda run: pack_size(run, torch.device(device)), earlier)


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
    the first free of NAME.1, NAME.2, ... Raises ResultsError where the folder cannot be read or
    written, SweepFailed where a pack could not be trained.
    """
    folder = Path(folder) if folder else default_folder(grid)
    device = resolve_device(device)
    if not resume and folder.exists():
        _move_aside(folder)
    with results.locked(folder):
        results.clear_temporaries(folder)
        packs = plan_packs(grid, device, folder)
        if packs:
            _remember(folder, packs)
        todo = sum(len(pack.runs) for pack in packs)
        on_event(Started(folder, device, tuple(packs), len(grid.runs) - todo))
        order = {run.run_id: i for i, run in enumerate(grid.runs)}
        try:
            failed = _train(packs, folder, device, checkpoint_seconds, on_event)
        finally:
            if results.finished_run_ids(folder):
                results.write_tables(folder, order)
    if failed:
        first, label = failed[0], failed[0].pack.runs[0].model.mixer.label
        raise SweepFailed(
            f"{len(failed)} of {len(packs)} packs failed, the first ({label}) with: "
            f"{first.reason}; see {folder / 'worker.log'}"
        )
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


def _train(
    packs: Sequence[PlannedPack],
    folder: Path,
    device: str,
    checkpoint_seconds: float,
    on_event: Callable[[Event], None],
) -> list[Failed]:
    """Hand the packs to workers and pass their events on; returns the failures."""
    if not packs:
        return []
    by_id = {pack.pack_id: pack for pack in packs}
    waiting, failed = list(packs), []
    events: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()
    places = _places(device, len(packs))
    with (folder / "worker.log").open("w") as log:

        def start(place: str) -> _Worker:
            return _Worker(place, folder, checkpoint_seconds, len(places), log, events)

        workers = [start(place) for place in places]
        try:
            for worker in workers:
                worker.train(_next(waiting, len(places)))
            while any(worker.pack for worker in workers):
                worker, event = events.get()
                kind = event["event"] if event else "died"
                if event and kind == "progress":
                    pack = by_id[event["pack_id"]]
                    on_event(Progress(pack, event["step"], tuple(event["accuracy"])))
                    continue
                trained = worker.pack
                if trained is None:
                    continue  # it ended because it was told to
                worker.pack = None
                if event and kind == "disk":
                    raise ResultsError(
                        event["reason"] + "; what was finished is kept, the same command goes on"
                    )
                if kind == "finished":
                    on_event(Finished(trained))
                elif kind == "out of memory" and len(trained.runs) > 1:
                    halves = trained.halves()
                    _remember(folder, halves, instead_of=trained.pack_id)
                    by_id |= {half.pack_id: half for half in halves}
                    waiting[:0] = halves
                    on_event(Split(trained, halves))
                else:
                    reason = event["reason"] if event else "its worker died (out of memory?)"
                    failed.append(Failed(trained, reason))
                    on_event(failed[-1])
                if kind == "died":
                    worker = start(worker.place)
                    workers.append(worker)
                if waiting:
                    worker.train(_next(waiting, len(places)))
        finally:
            for worker in workers:
                worker.stop()
            for worker in workers:
                worker.wait()
    return failed


def _next(waiting: list[PlannedPack], workers: int) -> PlannedPack:
    """Take the next pack: in the order of the grid, but of the last two a worker the one that takes
    longest, so that at the end no worker is alone with a long one."""
    if len(waiting) > 2 * workers:
        return waiting.pop(0)
    return waiting.pop(max(range(len(waiting)), key=lambda i: waiting[i].flops))


WORKERS_PER_GPU = 3
"""While some compile and capture their packs, which takes longer than a small model trains, others
have the GPU."""


def _places(device: str, packs: int) -> list[str]:
    """The device of each worker."""
    if device == "cuda":
        places = [f"cuda:{i}" for i in range(torch.cuda.device_count())] * WORKERS_PER_GPU
    else:
        places = ["cpu"] * _cores()
    return places[:packs]


def _cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(2**26),
}
"""glibc keeps freed memory instead of returning it, so that a step on a CPU does not fault in new
pages for every activation: 1.6 times faster there. Elsewhere these are ignored."""


class _Worker:
    """The sweep's end of a worker process."""

    def __init__(
        self,
        place: str,
        folder: Path,
        checkpoint_seconds: float,
        count: int,
        log: IO[str],
        events: "queue.Queue[tuple[_Worker, dict[str, Any] | None]]",
    ):
        self.place, self.pack = place, None
        self.process = subprocess.Popen(
            [sys.executable, "-m", "zoorecall.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | ALLOCATOR | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # a Ctrl-C is for the sweep to handle
        )
        setup = {
            "device": place,
            "folder": str(folder),
            "checkpoint_seconds": checkpoint_seconds,
            "threads": max(1, _cores() // count),
        }
        self._send(setup)
        self._listener = threading.Thread(target=self._listen, args=(events,), daemon=True)
        self._listener.start()

    pack: PlannedPack | None

    def train(self, pack: PlannedPack) -> None:
        self.pack = pack
        self._send({"runs": [run.model_dump_json() for run in pack.runs]})

    def stop(self) -> None:
        """Ask it to save a checkpoint and go."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def wait(self, seconds: float = 30) -> None:
        try:
            self.process.wait(seconds)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self.process.kill()
            self.process.wait()
        self._listener.join()

    def _send(self, order: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the listener reports that it died
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()

    def _listen(self, events: "queue.Queue[tuple[_Worker, dict[str, Any] | None]]") -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                events.put((self, json.loads(line)))
        events.put((self, None))

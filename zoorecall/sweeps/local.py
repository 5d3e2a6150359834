"""The executor on this machine: worker processes, one a CPU core, or some a GPU.

It gives them orders and hears of events; `child` is the other end.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import torch

from ..search_path import working_folder_last
from .events import (
    Died,
    JobEvent,
    More,
    Order,
    Prune,
    Setup,
    Stop,
    Train,
    event_from,
    to_line,
)

LOG = "worker.log"

WORKERS_PER_GPU = 3
"""While some compile and capture their packs, which takes longer than a small model trains, others
have the GPU."""

STOP_SECONDS = 20
"""For so long workers may save checkpoints before they are killed; Slurm leaves 30 to a job."""

CLOSING_SECONDS = 2
"""Between the ends of a process and of its channel, whichever comes first."""


def places(device: str) -> list[str]:
    """The device of each worker that there may be."""
    if device == "cuda":
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())] * WORKERS_PER_GPU
    return ["cpu"] * cores()


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class LocalExecutor:
    """An `Executor` whose workers are processes, one a place; each starts when first needed.

    By default they share the cores of this machine. Their output is added to `folder / log`.
    """

    def __init__(
        self,
        places: Sequence[str],
        folder: Path,
        checkpoint_seconds: float,
        log: str = LOG,
        threads: int | None = None,
    ):
        self.places = places
        self._folder, self._checkpoint_seconds = folder, checkpoint_seconds
        self._threads = threads or max(1, cores() // max(1, len(places)))
        self._log = folder / log
        self._workers: dict[int, _Worker] = {}  # by place, those that live
        self._events: _Events = queue.Queue()

    def __enter__(self) -> "LocalExecutor":
        return self

    def __exit__(self, *_: object) -> None:
        """Have all save checkpoints and end; after a while, or at a second Ctrl-C, kill them."""
        workers = [*self._workers.values()]  # another thread may hear meanwhile that one has died
        try:
            for worker in workers:
                worker.send(Stop())
            end = time.monotonic() + STOP_SECONDS
            with contextlib.suppress(subprocess.TimeoutExpired):
                for worker in workers:
                    worker.process.wait(max(0, end - time.monotonic()))
        finally:
            for worker in workers:
                worker.close()

    def give(self, place: int, order: Train | More | Prune) -> None:
        if place not in self._workers:
            self._workers[place] = self._start(self.places[place])
        self._workers[place].send(order)

    def event(self, seconds: float) -> tuple[int, JobEvent] | None:
        end = time.monotonic() + seconds
        while True:
            try:
                worker, event = self._events.get(timeout=max(0, end - time.monotonic()))
            except queue.Empty:
                return None
            place = next((p for p, x in self._workers.items() if x is worker), None)
            if place is None:
                continue  # what a process that it forked may say
            if isinstance(event, Died):
                self._workers.pop(place).close()
            return place, event

    def kill(self, place: int, reason: str) -> None:
        if place in self._workers:
            self._workers[place].kill(reason)

    def _start(self, device: str) -> "_Worker":
        setup = Setup(self._folder, device, self._threads, self._checkpoint_seconds)
        with self._log.open("a") as log:
            return _Worker(setup, log, self._events)


ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(2**26),
}
"""glibc keeps freed memory instead of returning it, so that a step on a CPU does not fault in new
pages for every activation: 1.6 times faster there. Elsewhere these are ignored."""

CHILD = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import zoorecall
del sys.path[0]
from zoorecall.sweeps.lifeline import hold
hold()
from zoorecall.sweeps.child import main
main()
"""
"""Runs `child` of this very package, wherever it lies on the search path."""


class _Worker:
    """One process, and the threads that tell it orders and hear what it says and when it ends."""

    def __init__(self, setup: Setup, log: IO[str], events: "_Events"):
        self._fault = ""
        theirs, orders = os.pipe()
        heard, told = os.pipe()
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join(working_folder_last(sys.path))
        self.process = subprocess.Popen(
            # -P: without the working folder in front; -u: what a mixer prints is logged at once
            [sys.executable, "-P", "-u", "-c", CHILD, package, str(theirs), str(told)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(theirs, told),
            env=os.environ | ALLOCATOR | {"PYTHONPATH": path},
            start_new_session=True,  # a Ctrl-C is for the sweep to handle
        )
        os.close(theirs)
        os.close(told)
        self._orders, self._heard = os.fdopen(orders, "wb"), os.fdopen(heard, "rb")
        self._waiting: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self.send(setup)
        threading.Thread(target=self._tell, daemon=True).start()
        self._listener = threading.Thread(target=self._listen, args=(events,), daemon=True)
        self._watcher = threading.Thread(target=self._watch, args=(events,), daemon=True)
        self._listener.start()
        self._watcher.start()

    def send(self, order: Order) -> None:
        """Have it told; it may listen only after a while, as once it has imported torch."""
        self._waiting.put(order)

    def kill(self, reason: str) -> None:
        """End it; what the watcher reports has this reason."""
        self._fault = reason
        self.process.kill()

    def close(self) -> None:
        """End it, if it has not ended, and let go of what belongs to it."""
        self.process.kill()
        self._watcher.join()
        self._waiting.put(None)

    def _tell(self) -> None:
        """Pass orders on, until there are no more."""
        with contextlib.suppress(BrokenPipeError), self._orders:  # the watcher reports a death
            while order := self._waiting.get():
                self._orders.write(to_line(order))
                self._orders.flush()

    def _listen(self, events: "_Events") -> None:
        """Pass its events on; it ends where they do."""
        with self._heard:
            for line in self._heard:
                if not line.endswith(b"\n"):
                    break  # it died while it wrote
                try:
                    events.put((self, event_from(line)))
                except ValueError as error:
                    self._fault = f"its worker wrote into the channel of events: {error}"
                    break
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0 if self._fault else CLOSING_SECONDS)
        self.process.kill()

    def _watch(self, events: "_Events") -> None:
        """Report that it died, after all that it said."""
        code = self.process.wait()
        self._listener.join(CLOSING_SECONDS)  # a process that it forked may keep the pipe open
        events.put((self, Died(self._fault or _ending(code))))


_Events = queue.Queue[tuple[_Worker, JobEvent]]


def _ending(code: int) -> str:
    """How a process with this exit code ended, in words."""
    if code >= 0:
        return f"its worker ended with exit code {code}"
    guess = " (SIGKILL: out of memory?)" if -code == signal.SIGKILL else ""
    return f"its worker was killed by signal {-code}{guess}"

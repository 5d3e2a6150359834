"""The worker processes of a sweep, seen from the sweep: one a CPU core, or some a GPU.

A sweep gives them orders, one at a time each, and hears of events; `child` is the other end.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import torch

T = TypeVar("T")
Event = dict[str, Any]

WORKERS_PER_GPU = 3
"""While some compile and capture their packs, which takes longer than a small model trains, others
have the GPU."""


def places(device: str) -> list[str]:
    """The device of each worker that there may be."""
    if device == "cuda":
        return [f"cuda:{i}" for i in range(torch.cuda.device_count())] * WORKERS_PER_GPU
    return ["cpu"] * _cores()


def _cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Workers:
    """Processes that carry out orders, one a place; each starts when it is first needed.

    `with` ends them all; one that trains saves a checkpoint first.
    """

    def __init__(self, places: Sequence[str], folder: Path, checkpoint_seconds: float):
        self.count = len(places)
        self._free = list(places)  # those without a worker
        self._setup = {"folder": str(folder), "checkpoint_seconds": checkpoint_seconds}
        self._log = folder / "worker.log"
        self._started: list[_Worker] = []
        self._idle: list[_Worker] = []
        self._events: queue.Queue[tuple[_Worker, Event]] = queue.Queue()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._started:
            worker.stop()
        for worker in self._started:
            worker.wait()

    def carry_out(
        self,
        tasks: list[T],
        take: Callable[[list[T]], T],
        order: Callable[[T], dict[str, Any]],
    ) -> Iterator[tuple[T, Event]]:
        """Give the orders of all tasks, each as soon as `take` takes it out of the list, and yield
        every event with its task. Any but "progress" is the last of its task; "died" says that the
        worker did. Who reads the events may put more tasks into the list.
        """
        threads = max(1, _cores() // max(1, min(self.count, len(tasks))))
        at_work: dict[_Worker, T] = {}
        while True:
            while tasks and (self._idle or self._free):
                worker = self._idle.pop(0) if self._idle else self._start(threads)
                at_work[worker] = take(tasks)
                worker.send(order(at_work[worker]))
            if not at_work:
                return
            worker, event = self._events.get()
            if worker in at_work and event["event"] == "progress":
                yield at_work[worker], event
                continue
            if event["event"] == "died":
                self._free.append(worker.place)
                if worker in self._idle:
                    self._idle.remove(worker)
            else:
                self._idle.append(worker)
            if worker in at_work:
                yield at_work.pop(worker), event

    def _start(self, threads: int) -> "_Worker":
        if not self._started:
            self._log.write_text("")
        setup = {"device": self._free.pop(0), "threads": threads, **self._setup}
        with self._log.open("a") as log:
            self._started.append(_Worker(setup, log, self._events))
        return self._started[-1]


ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(2**26),
}
"""glibc keeps freed memory instead of returning it, so that a step on a CPU does not fault in new
pages for every activation: 1.6 times faster there. Elsewhere these are ignored."""


class _Worker:
    """One process, and the thread that listens to it."""

    def __init__(
        self,
        setup: dict[str, Any],
        log: IO[str],
        events: "queue.Queue[tuple[_Worker, Event]]",
    ):
        self.place: str = setup["device"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "zoorecall.sweeps.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | ALLOCATOR | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # a Ctrl-C is for the sweep to handle
        )
        self.send(setup)
        self._listener = threading.Thread(target=self._listen, args=(events,), daemon=True)
        self._listener.start()

    def send(self, order: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the listener reports that it died
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()

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

    def _listen(self, events: "queue.Queue[tuple[_Worker, Event]]") -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                events.put((self, json.loads(line)))
        events.put((self, {"event": "died", "reason": self._end()}))

    def _end(self) -> str:
        """How it ended, in words."""
        code = self.process.wait()
        if code >= 0:
            return f"its worker ended with exit code {code}"
        guess = " (SIGKILL: out of memory?)" if -code == signal.SIGKILL else ""
        return f"its worker was killed by signal {-code}{guess}"

"""The executor of a Ray cluster: an actor a GPU, or a CPU, with workers as `local` has them.

An actor runs a `LocalExecutor` on its node, so that a worker that crashes or hangs is that one's to
handle. An actor is lost with its node: its places are gone, its runs go on at others.
"""

import contextlib
import queue
import signal
import sys
import threading
from collections import deque
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import DeviceError, UserError
from .events import Died, Interim, JobEvent, More, Prune, Train
from .local import STOP_SECONDS, WORKERS_PER_GPU, LocalExecutor

START_SECONDS = 120
"""An actor that has not started by then has no device that is free."""

OBJECT_STORE_BYTES = 2**27
"""Only orders and events go through it."""

POLL_SECONDS = 5
"""For so long an actor waits for an event before it says that there is none."""

LISTENING = "listening"
"""The calls of an actor that have a thread of their own."""

Heard = list[tuple[int, JobEvent]]


class RayExecutor:
    """An `Executor` whose places are the devices that are free in a Ray cluster when it starts, at
    most so many. Of GPUs each is as many places as on one machine.

    The folder must be one that all nodes see by the same path. Raises UserError where Ray is not
    installed or the cluster cannot be reached, DeviceError where no device is free.
    """

    def __init__(
        self,
        address: str | None,
        device: str,
        most: int,
        folder: Path,
        checkpoint_seconds: float,
        log: str,
    ):
        if find_spec("ray") is None:
            raise UserError("ray is not installed; pip install ray, or zoorecall[ray]")
        import ray

        self._ray, self._began = ray, not ray.is_initialized()
        if self._began:
            _connect(ray, address)
        on_gpu = device == "cuda"
        inner = [f"{device}:0"] * WORKERS_PER_GPU if on_gpu else [device]
        count = -(-most // len(inner))
        given = (inner, folder.resolve(), checkpoint_seconds, log)
        self._actors = self._that_start(on_gpu, count, given)
        devices = [f"cuda:{i}" if on_gpu else "cpu" for i in range(len(self._actors))]
        self.places: Sequence[str] = devices * len(inner)
        self._busy: set[int] = set()
        self._lost: dict[int, str] = {}  # why, by actor
        self._due: deque[tuple[int, JobEvent]] = deque()  # events to be handed out
        self._heard: queue.Queue[tuple[int, Heard | str]] = queue.Queue()
        for number in range(len(self._actors)):
            threading.Thread(target=self._listen, args=(number,), daemon=True).start()
        if not self._actors:
            self.__exit__()
            raise DeviceError(f"the Ray cluster has no {'GPU' if on_gpu else 'CPU'} that is free")

    def __enter__(self) -> "RayExecutor":
        return self

    def __exit__(self, *_: object) -> None:
        """Have all workers save checkpoints and end, and let go of the cluster."""
        try:
            ending = [actor.end.remote() for actor in self._actors]
            if ending:
                self._ray.wait(ending, num_returns=len(ending), timeout=STOP_SECONDS + 10)
        finally:
            for actor in self._actors:
                self._ray.kill(actor)
            if self._began:
                self._ray.shutdown()

    def give(self, place: int, order: Train | More | Prune) -> None:
        number, inner = self._at(place)
        if isinstance(order, Train):
            self._busy.add(place)
        if isinstance(order, Train) and number in self._lost:
            self._due.append((place, Died(self._lost[number], gone=True)))
        self._actors[number].give.remote(inner, order)

    def event(self, seconds: float) -> tuple[int, JobEvent] | None:
        if not self._due:
            try:
                number, heard = self._heard.get(timeout=seconds)
            except queue.Empty:
                return None
            if isinstance(heard, str):
                self._lose(number, heard)
            else:
                self._due += ((number + inner * len(self._actors), x) for inner, x in heard)
        if not self._due:
            return None
        place, event = self._due.popleft()
        if not isinstance(event, Interim):
            self._busy.discard(place)
        return place, event

    def kill(self, place: int, reason: str) -> None:
        number, inner = self._at(place)
        self._actors[number].kill.remote(inner, reason)

    # ---- inside

    def _at(self, place: int) -> tuple[int, int]:
        """The actor of a place, and which of its own places that is."""
        inner, number = divmod(place, len(self._actors))
        return number, inner

    def _that_start(self, on_gpu: bool, most: int, given: tuple[Any, ...]) -> list[Any]:
        """An actor for each device that is free, at most so many; one that does not start ends."""
        resource, needs = (
            ("GPU", {"num_cpus": 0, "num_gpus": 1}) if on_gpu else ("CPU", {"num_cpus": 1})
        )
        free = int(self._ray.available_resources().get(resource, 0))
        node = self._ray.remote(concurrency_groups={LISTENING: 1}, **needs)(_Node)
        actors = [node.remote(sys.path, *given) for _ in range(min(free, most))]
        ready = {actor.ready.remote(): actor for actor in actors}
        if not ready:
            return []
        started, not_yet = self._ray.wait([*ready], num_returns=len(ready), timeout=START_SECONDS)
        for reference in not_yet:
            self._ray.kill(ready[reference])
        return [ready[reference] for reference in started]

    def _listen(self, number: int) -> None:
        """Pass on what an actor says, until it is lost."""
        events = self._actors[number].events.options(concurrency_group=LISTENING)
        while True:
            try:
                self._heard.put((number, self._ray.get(events.remote())))
            except Exception as error:  # of the actor, the cluster, or the connection to it
                reason = f"its node is lost ({type(error).__name__})"
                self._heard.put((number, reason))
                return

    def _lose(self, number: int, reason: str) -> None:
        """End an actor, should it be there yet, and say of each of its places that it is gone:
        those with nothing to do first, so that none gets runs of the others."""
        self._lost[number] = reason
        with contextlib.suppress(Exception):  # of the cluster, or the connection to it
            self._ray.kill(self._actors[number])
        places = range(number, len(self.places), len(self._actors))
        self._due += (
            (place, Died(reason, gone=True))
            for place in sorted(places, key=self._busy.__contains__)
        )


def _connect(ray: Any, address: str | None) -> None:
    """Connect to the cluster at an address; without one, start one of this machine."""
    ours = signal.getsignal(signal.SIGTERM)
    small = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        if address is None:
            ray.init("local", log_to_driver=False, logging_level="ERROR", **small)
        else:
            ray.init(address, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the Ray cluster {address or ''} cannot be reached: {reason}") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, ours)  # Ray's own ends the cluster before workers can save


class _Node:
    """What an actor does: it has a `LocalExecutor`, and passes calls on to it."""

    def __init__(self, path: list[str], *given: Any):
        sys.path += [entry for entry in path if entry not in sys.path]  # of a user's mixers
        places, folder, checkpoint_seconds, log = given
        self._executor = LocalExecutor(places, folder, checkpoint_seconds, log, threads=1)
        self._not_started: deque[tuple[int, JobEvent]] = deque()

    def ready(self) -> None:
        """Returns as soon as the actor has started."""

    def give(self, place: int, order: Train | More | Prune) -> None:
        """As of the executor; no one waits for what this might raise."""
        try:
            self._executor.give(place, order)
        except OSError as error:
            reason = f"its worker cannot be started: {error}"
            self._not_started.append((place, Died(reason)))

    def kill(self, place: int, reason: str) -> None:
        """As of the executor."""
        self._executor.kill(place, reason)

    def events(self) -> Heard:
        """Some events, or none for a while."""
        found, seconds = Heard(), float(POLL_SECONDS)
        while heard := self._executor.event(seconds):
            found.append(heard)
            seconds = 0
        while self._not_started:
            found.append(self._not_started.popleft())
        return found

    def end(self) -> None:
        """As at the end of the executor's `with`."""
        self._executor.__exit__()

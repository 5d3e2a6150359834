"""Which worker trains which runs: queues of runs by pack key, and what becomes of runs whose worker
fails.

A worker has one job at a time, runs of one queue in as many slots; whenever some end it takes more
of them, until the queue is empty. On a GPU a queue has one job at most, as a second would have to
compile the same program once more.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..config import RunConfig
from .events import (
    Died,
    Failed,
    JobEvent,
    OutOfMemory,
    Raised,
    Reduced,
    Retried,
    SweepEvent,
    Train,
)
from .plan import RunGroup

HOPELESS = 3
"""So many runs of a pack key that fail alone, with no other finished, stand for all of them."""


@dataclass(eq=False)
class Queue:
    """Runs of one pack key that wait, and how many of them a job trains at once."""

    key: str
    slots: int
    waiting: deque[RunConfig]
    alone: bool = False
    """Whether they failed together, and one of them is to blame."""

    @property
    def work(self) -> int:
        """What tells which of two queues takes longer."""
        return RunGroup(tuple(self.waiting), self.slots).work if self.waiting else 0


@dataclass(eq=False)
class _Work:
    """What a worker has to do."""

    queue: Queue
    slots: int
    runs: dict[str, RunConfig] = field(default_factory=dict)
    """Those in training, by id."""

    def take(self) -> tuple[RunConfig, ...]:
        """As many of the waiting runs as have room."""
        count = min(self.slots - len(self.runs), len(self.queue.waiting))
        runs = tuple(self.queue.waiting.popleft() for _ in range(count))
        self.runs |= {run.run_id: run for run in runs}
        return runs


class Schedule:
    """Hands out the runs of groups to workers, of which `places` has the devices."""

    def __init__(self, groups: Iterable[RunGroup], places: Sequence[str]):
        self._places = places
        self._queues = [
            Queue(group.runs[0].pack_key, group.slots, deque(group.runs)) for group in groups
        ]
        self._work: dict[int, _Work] = {}  # by place
        self._deaths: Counter[str] = Counter()  # by run
        self._alone: Counter[tuple[str, str]] = Counter()  # failed alone, by pack key and reason
        self._finished_keys: set[str] = set()
        self._gone: set[int] = set()  # places
        self._held: set[int] = set()  # places
        self.failed: list[tuple[RunConfig, str]] = []

    @property
    def busy(self) -> bool:
        """Whether any worker has something to do."""
        return bool(self._work)

    @property
    def waits(self) -> bool:
        """Whether no worker trains: each that has a job is held, and says nothing until it gets
        more."""
        return self._work.keys() <= self._held

    @property
    def waiting(self) -> int:
        """How many runs no worker has."""
        return sum(len(queue.waiting) for queue in self._queues)

    def add(self, groups: Iterable[RunGroup]) -> None:
        """More runs, of which as many are trained at once as there are slots."""
        for group in groups:
            key = group.runs[0].pack_key
            queue = next((x for x in self._queues if x.key == key and not x.alone), None)
            if queue is None:
                queue = Queue(key, group.slots, deque())
                self._queues.append(queue)
            queue.waiting.extend(group.runs)

    def room(self, slots: int) -> int:
        """How many more runs could be trained now, if an idle worker trains so many at once."""
        of_jobs = sum(work.slots - len(work.runs) for work in self._work.values())
        return max(0, of_jobs + slots * len(self._idle()) - self.waiting)

    def held(self, more_may_come: bool) -> list[tuple[int, tuple[RunConfig, ...]]]:
        """The workers that had no run left and were kept for others to come, with the runs that
        they get now: none where no more may come, or where some wait that only they could train."""
        given = []
        for place in sorted(self._held):
            work = self._work[place]
            runs = work.take()
            if runs or not more_may_come or (self.waiting and not self._idle()):
                self._held.discard(place)
                given.append((place, runs))
        return given

    def jobs(self) -> list[tuple[int, Train]]:
        """A job for each worker that has none and can have one."""
        given = []
        for place in self._idle():
            if queue := self._next(place):
                slots = min(queue.slots, -(-len(queue.waiting) // self._sharing(queue, place)))
                work = self._work[place] = _Work(queue, slots)
                given.append((place, Train(work.take(), slots)))
        return given

    def at_work(self, place: int) -> set[str]:
        """The runs that a worker has in training."""
        return set(self._work[place].runs) if place in self._work else set()

    def leave(self, place: int, left: Iterable[str], finished: bool) -> None:
        """Runs have left a worker's slots."""
        work = self._work[place]
        for run_id in left:
            del work.runs[run_id]
        if finished:
            self._finished_keys.add(work.queue.key)

    def more(
        self, place: int, left: Iterable[str], finished: bool, hold: bool = False
    ) -> tuple[RunConfig, ...] | None:
        """The runs that go into the slots of those that have left. None where the worker has no
        other and is to be held until there are some, as its program is made."""
        work = self._work[place]
        self.leave(place, left, finished)
        runs = work.take()
        if hold and not work.runs:
            self._held.add(place)
            return None
        return runs

    def end(self, place: int, event: JobEvent) -> list[SweepEvent]:
        """A worker's job has ended; returns what that means for the runs it had."""
        if isinstance(event, Died) and event.gone:
            self._gone.add(place)
        work = self._work.pop(place, None)
        self._held.discard(place)
        if work is None or not work.runs:
            return []
        runs, run_ids = list(work.runs.values()), tuple(work.runs)
        if isinstance(event, OutOfMemory) and work.slots > 1:
            work.queue.slots = min(work.queue.slots, work.slots // 2)
            work.queue.waiting.extendleft(reversed(runs))
            return [Reduced(run_ids, work.queue.slots)]
        if isinstance(event, Died) and event.gone:  # which none of the runs is to blame for
            work.queue.waiting.extendleft(reversed(runs))
            return [Retried(run_ids, event.reason)]
        if isinstance(event, Died | Raised) and (len(runs) > 1 or isinstance(event, Died)):
            self._deaths.update(run_ids)
            if isinstance(event, Died) and max(self._deaths[x] for x in run_ids) == 1:
                work.queue.waiting.extendleft(reversed(runs))
                return [Retried(run_ids, event.reason)]
            if len(runs) > 1:  # one of them is to blame
                self._queues.insert(0, Queue(work.queue.key, 1, deque(runs), alone=True))
                return [Retried(run_ids, event.reason)]
        if isinstance(event, OutOfMemory | Died | Raised):
            return [self._fail(runs, event.reason, work.queue.key)]
        return []

    # ---- inside

    def _idle(self) -> list[int]:
        """The places whose workers have nothing to do."""
        return [x for x in range(len(self._places)) if x not in self._work and x not in self._gone]

    def _fail(self, runs: list[RunConfig], reason: str, key: str) -> Failed:
        """These runs failed; and if others of their key did likewise, and none went well, so do
        those that wait."""
        self._alone[key, reason] += 1
        if self._alone[key, reason] >= HOPELESS and key not in self._finished_keys:
            for queue in self._queues:
                if queue.key == key:
                    runs = [*runs, *queue.waiting]
                    queue.waiting.clear()
        self.failed += [(run, reason) for run in runs]
        return Failed(tuple(run.run_id for run in runs), reason)

    def _next(self, place: int) -> Queue | None:
        """The queue whose runs a worker should train: in the order of the grid, but once there are
        no more than two a worker the one that takes longest, so that at the end none is alone with
        a long one; one that others train last."""
        able = [x for x in self._queues if x.waiting and self._may_have(x, place)]
        if not able:
            return None
        fresh = [queue for queue in able if not self._jobs_of(queue)]
        if len(fresh) > 2 * len(self._places):
            return fresh[0]
        return max(fresh or able, key=lambda queue: queue.work)

    def _may_have(self, queue: Queue, place: int) -> bool:
        """Whether a worker may train runs of a queue."""
        device = self._places[place]
        same = [x for x in self._jobs_of(queue) if self._places[x] == device]
        return device == "cpu" or not same

    def _jobs_of(self, queue: Queue) -> list[int]:
        """The places whose workers train runs of a queue."""
        return [place for place, work in self._work.items() if work.queue is queue]

    def _sharing(self, queue: Queue, place: int) -> int:
        """Among how many workers a queue is to be shared: all that could train its runs and would
        otherwise have nothing to do."""
        others = [x for x in self._queues if x.waiting and x is not queue]
        idle = {
            (other if self._places[other] == "cpu" else self._places[other])
            for other in self._idle()
            if self._may_have(queue, other)
        }
        return max(1, len(idle) - len(others))

"""Workers that say nothing for long: the user is told, and they are ended if so asked."""

import time
from collections.abc import Callable

from .events import (
    Finished,
    JobEvent,
    More,
    Progress,
    Prune,
    Pruned,
    Train,
    Warned,
)
from .executor import Executor

QUIET_SECONDS = 300
"""After so long without a word the user is told. A worker that trains says something every few
seconds; to compile a pack on a GPU takes it a minute, longer where other workers compile too."""

LOOK_SECONDS = 1
"""Between two looks at the workers, at most."""


class Watch:
    """Passes orders and events of an executor on, and knows how long each worker is silent while
    somebody listens: what a sweep spends otherwise, or suspended, is no silence.

    One that is silent for `give_up_seconds` is ended: its last event is `Died`.
    """

    def __init__(
        self,
        executor: Executor,
        give_up_seconds: float | None,
        on_event: Callable[[Warned], None],
    ):
        self._executor, self._on_event = executor, on_event
        self._give_up_seconds = give_up_seconds
        # for how long, by place; of those who should say something
        self._silent: dict[int, float] = {}
        self._runs: dict[int, set[str]] = {}
        self._told: set[int] = set()

    def give(self, place: int, order: Train | More | Prune) -> None:
        """As of the executor."""
        if isinstance(order, Train):
            self._runs[place] = {run.run_id for run in order.runs}
        elif isinstance(order, More):
            self._runs[place] |= {run.run_id for run in order.runs}
        self._silent[place] = 0
        self._executor.give(place, order)

    def event(self) -> tuple[int, JobEvent]:
        """As of the executor, however long it takes."""
        while True:
            started = time.monotonic()
            heard = self._executor.event(LOOK_SECONDS)
            waited = min(time.monotonic() - started, LOOK_SECONDS)
            if heard:
                self._hear(*heard)
            for place in self._silent:
                if not heard or place != heard[0]:
                    self._silent[place] += waited
                    self._look_at(place)
            if heard:
                return heard

    def _hear(self, place: int, event: JobEvent) -> None:
        self._told.discard(place)
        if isinstance(event, Progress | Warned):
            self._silent[place] = 0
        else:  # its job is over, or it is silent until it gets `More`
            self._silent.pop(place, None)
        if isinstance(event, Finished | Pruned):
            self._runs[place] -= set(event.run_ids)

    def _look_at(self, place: int) -> None:
        silent, limit = self._silent[place], self._give_up_seconds
        if limit is not None and silent > limit:
            self._silent[place] = 0
            self._executor.kill(place, f"its worker said nothing for {limit:.0f} s")
        elif silent > QUIET_SECONDS and place not in self._told:
            self._told.add(place)
            run_ids = tuple(sorted(self._runs[place]))
            more = f" and {len(run_ids) - 3} more" if len(run_ids) > 3 else ""
            text = (
                f"no word for {silent:.0f} s from the worker of {', '.join(run_ids[:3])}{more}; "
                "--give-up-seconds ends one that hangs"
            )
            self._on_event(Warned(run_ids, text))

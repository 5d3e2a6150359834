"""What a sweep, its executor and its workers tell each other: orders one way, events the other.

Between processes a message is a line: its class's name and its fields as JSON.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from ..config import RunConfig
from .plan import RunGroup

# ---- orders, to a worker


@dataclass(frozen=True)
class Setup:
    """The first order: where to work, with how many CPU threads, and how often to save."""

    folder: Path
    device: str
    threads: int
    checkpoint_seconds: float


@dataclass(frozen=True)
class Train:
    """Train runs of one pack key in so many slots, each from its checkpoint if it has one."""

    runs: tuple[RunConfig, ...]
    slots: int


@dataclass(frozen=True)
class More:
    """Runs for the slots of those that have left; the answer to `Finished` and `Pruned`."""

    runs: tuple[RunConfig, ...]


@dataclass(frozen=True)
class Prune:
    """Save a checkpoint of these runs, and train them no further."""

    run_ids: tuple[str, ...]


@dataclass(frozen=True)
class Stop:
    """Save checkpoints at once, and go."""


Order = Setup | Train | More | Prune | Stop

# ---- events of a worker; any but an `Interim` is the last of its job


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a run: losses, accuracies, ... by the names of a curve's columns."""

    run_id: str
    step: int
    values: dict[str, float]

    @classmethod
    def of(cls, run_id: str, curve: Mapping[str, float]) -> "Evaluation":
        """What a row of a curve says. No number that is not finite: training has no loss before
        its first step, and a run that diverged none any more."""
        values = {name: float(x) for name, x in curve.items() if math.isfinite(x)}
        return cls(run_id, int(values.pop("step")), values)


@dataclass(frozen=True)
class Progress:
    """How many steps each run in training has behind it, and the evaluations since it was told."""

    steps: dict[str, int]
    evaluations: tuple[Evaluation, ...]


@dataclass(frozen=True)
class Warned:
    """The user should know this line about these runs, which go on."""

    run_ids: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Finished:
    """The rows of these runs are on disk."""

    run_ids: tuple[str, ...]


@dataclass(frozen=True)
class Pruned:
    """These runs train no further; their checkpoints are on disk."""

    run_ids: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """No run is left."""


@dataclass(frozen=True)
class Stopped:
    """The checkpoints of all runs are on disk, as a `Stop` asked for."""


@dataclass(frozen=True)
class Raised:
    """Training raised an error."""

    reason: str


@dataclass(frozen=True)
class OutOfMemory:
    """The pack did not fit."""

    reason: str


@dataclass(frozen=True)
class Unwritable:
    """The results folder does not take what was trained."""

    reason: str


@dataclass(frozen=True)
class Died:
    """A worker ended in the middle of its job; its executor says so, or it does with its last
    breath."""

    reason: str
    gone: bool = False
    """Whether there will be no other in its place."""


Interim = Progress | Warned | Finished | Pruned
JobEvent = Interim | Done | Stopped | Raised | OutOfMemory | Unwritable | Died

# ---- events of the sweep


@dataclass(frozen=True)
class Started:
    """What is to be done: the runs to train, by pack key, and how many an earlier sweep
    finished. Those of a search are `Asked` for later."""

    folder: Path
    device: str
    groups: tuple[RunGroup, ...]
    finished_runs: int
    is_search: bool = False


@dataclass(frozen=True)
class Asked:
    """More runs are to be trained: a search has asked for them."""

    groups: tuple[RunGroup, ...]


@dataclass(frozen=True)
class Reduced:
    """These runs did not fit into memory together; they go on, so many at once."""

    run_ids: tuple[str, ...]
    slots: int


@dataclass(frozen=True)
class Retried:
    """The worker of these runs died, or one of them failed; they go on from their checkpoints."""

    run_ids: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Failed:
    """These runs could not be trained; the sweep goes on without them."""

    run_ids: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Unmerged:
    """A part of a sweep is done, and so many runs of the grid are not: or none, but another part
    is at work. The last part merges the folder."""

    folder: Path
    missing: int


SweepEvent = Started | Asked | Interim | Reduced | Retried | Failed | Unmerged
"""What `sweep` reports."""

# ---- as lines


def to_line(message: Order | JobEvent) -> bytes:
    """A message as a line of text."""
    kind: type = type(message)
    return b"%s %s\n" % (kind.__name__.encode(), _adapter(kind).dump_json(message))


def order_from(line: bytes) -> Order:
    """The order that a line is; raises ValueError where it is none."""
    return _from(line, get_args(Order))


def event_from(line: bytes) -> JobEvent:
    """The event that a line is; raises ValueError where it is none."""
    return _from(line, get_args(JobEvent))


def _from(line: bytes, kinds: tuple[type, ...]) -> Any:
    name, _, fields = line.partition(b" ")
    try:
        (kind,) = (kind for kind in kinds if kind.__name__.encode() == name)
        return _adapter(kind).validate_json(fields)
    except ValueError as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "of no kind"
        raise ValueError(f"{line.rstrip()[:60]!r} is no message ({why})") from error


@functools.cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)

"""What a sweep, its executor and its workers tell each other: orders one way, events the other.

Between processes a message is a line: its class's name and its fields as JSON.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter

from ..config import RunConfig
from .plan import PlannedPack

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
    """Train a pack to its shard, from its checkpoint if it has one."""

    pack: PlannedPack


@dataclass(frozen=True)
class Measure:
    """Measure how many runs like this one make a pack."""

    run: RunConfig


@dataclass(frozen=True)
class Stop:
    """Save a checkpoint at the next evaluation, and go."""


Job = Train | Measure
Order = Setup | Job | Stop

# ---- events of a worker; any but the first two is the last of its job


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
    """A pack was evaluated after `step` steps; `accuracy` is the best so far of each run, and
    `evaluations` are those of the runs that trained up to here."""

    pack_id: str
    step: int
    accuracy: tuple[float, ...]
    evaluations: tuple[Evaluation, ...]


@dataclass(frozen=True)
class Warned:
    """The user should know this line about these runs, which go on."""

    run_ids: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Measured:
    """So many runs of a pack key make a pack."""

    pack_key: str
    size: int


@dataclass(frozen=True)
class Finished:
    """A pack's rows are on disk."""

    pack_id: str


@dataclass(frozen=True)
class Stopped:
    """A pack's checkpoint is on disk, as a `Stop` asked for."""

    pack_id: str


@dataclass(frozen=True)
class Failed:
    """A pack could not be trained; the sweep goes on without it."""

    pack_id: str
    reason: str


@dataclass(frozen=True)
class OutOfMemory:
    """A pack did not fit."""

    pack_id: str
    reason: str


@dataclass(frozen=True)
class Unwritable:
    """The results folder does not take what was trained."""

    reason: str


@dataclass(frozen=True)
class Died:
    """A worker ended in the middle of its job; its executor says so."""

    reason: str


Interim = Progress | Warned
JobEvent = Interim | Measured | Finished | Stopped | Failed | OutOfMemory | Unwritable | Died

# ---- events of the sweep


@dataclass(frozen=True)
class Measuring:
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
class Split:
    """A pack did not fit into memory; its runs go on as two packs."""

    pack_id: str
    halves: tuple[PlannedPack, PlannedPack]


@dataclass(frozen=True)
class Retried:
    """A pack's worker died, the first time; the pack goes on from its last checkpoint."""

    pack_id: str
    reason: str


SweepEvent = Measuring | Started | Progress | Warned | Finished | Split | Retried | Failed
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
        raise ValueError(f"{line.rstrip()[:60]!r} is no message") from error


@functools.cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)

"""A search: the runs that it asks for, trained as a sweep's are, into one results folder."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch
from optuna.storages import InMemoryStorage
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from .. import columns, files, results
from ..config import RunConfig
from ..errors import ResultsError, checked
from ..grid import Grid, Space
from ..results import Results
from ..search import JOURNAL, Answer, Search
from ..search.samplers import make_sampler
from ..search.storage import naming
from .events import Failed, Finished, Progress, Pruned, Started, SweepEvent
from .local import LOG, places
from .merging import write_grid
from .plan import RunGroup, check_fits, pack_size, plan
from .schedule import Schedule
from .sweeper import (
    Device,
    default_folder,
    failure,
    make_workers,
    resolve_device,
    set_up,
    train_all,
    what_is_kept,
)
from .watch import Watch


class Searching:
    """A search as the source of a sweep's runs."""

    def __init__(self, search: Search, device: torch.device):
        self.runs: dict[str, RunConfig] = {}  # all that it asked for
        self._search, self._device = search, device
        self._accuracy: dict[str, float] = {}  # at the last evaluation

    def ask(self, room: int) -> list[RunGroup]:
        """See `sweeper.Source`."""
        asked = self._search.ask(room)
        self.runs |= {run.run_id: run for run in asked}
        groups = plan(asked, lambda run: len(asked))
        return [RunGroup(each.runs, pack_size(each.runs[0], self._device)) for each in groups]

    def hear(self, event: SweepEvent) -> tuple[str, ...]:
        """See `sweeper.Source`."""
        pruned = []
        match event:
            case Progress(_, evaluations):
                for each in evaluations:
                    run_id, accuracy = each.run_id, each.values["test_accuracy"]
                    self._accuracy[run_id] = accuracy
                    ends = self._search.evaluated(run_id, each.step, each.values)
                    last = each.step == self.runs[run_id].train.num_steps
                    if ends and not last:  # told anew each time: a worker may die before it hears
                        pruned.append(run_id)
            case Finished(run_ids) | Pruned(run_ids):
                for run_id in run_ids:
                    ended_early = isinstance(event, Pruned)
                    self._search.ended(run_id, self._accuracy[run_id], ended_early)
            case Failed(run_ids):
                for run_id in run_ids:
                    self._search.ended(run_id, None)
        return tuple(pruned)

    @property
    def finished(self) -> bool:
        """See `sweeper.Source`."""
        return self._search.finished


def plan_search(
    space: Space, device: Device, *, sampler: str | None, pruner: str, runs: int | None
) -> tuple[Grid, list[RunGroup], str]:
    """About what a search would train: so many runs of each setting, all like its first; and the
    device. Nothing is written."""
    device = resolve_device(device)
    place = torch.device(device)
    check_fits(_ends(space), place)
    search = Search(space, storage=InMemoryStorage(), sampler=sampler, pruner=pruner, runs=runs)
    each = zip(space.settings, search.expected_runs, strict=True)
    every = [setting.first for setting, count in each for _ in range(count)]
    groups = plan(every, lambda run: pack_size(run, place))
    return Grid(space.name, tuple(every), space.description), groups, device


def _ends(space: Space) -> list[RunConfig]:
    return [run for setting in space.settings for run in setting.ends]


@checked
def tune(
    space: Space,
    folder: str | Path | None = None,
    *,
    device: Device = "auto",
    sampler: str | None = None,
    pruner: str = "plateau",
    runs: PositiveInt | None = None,
    seconds: NonNegativeFloat | None = None,
    storage: str | None = None,
    checkpoint_seconds: NonNegativeFloat = 60,
    give_up_seconds: PositiveFloat | None = None,
    on_event: Callable[[SweepEvent], None] = lambda event: None,
) -> tuple[Results, list[Answer]]:
    """Search each setting of a space, into `folder` (by default results/NAME); returns the finished
    runs, and what was found of each setting. See `search.Search` for the options.

    Interrupted in any way, the same call goes on from there. A run that is pruned has no row; its
    checkpoint stays, from which a sweep or another search may go on. Raises as `sweep` does.
    """
    if folder == "":
        raise ResultsError("the name of the results folder is empty")
    folder = default_folder(space.name) if folder is None else Path(folder)
    device = resolve_device(device)
    place = torch.device(device)
    check_fits(_ends(space), place)
    make_sampler(sampler, space.settings, runs)  # a wrong one is told before there is a folder
    with files.locked(folder) as setting_up, naming(storage or folder / JOURNAL):
        with setting_up() as alone:
            set_up(folder, Grid(space.name, (), space.description), alone, on_event, keep=True)
        known = known_accuracies(folder)
        search = Search(
            space,
            storage=storage or folder / JOURNAL,
            folder=folder if storage else None,  # the journal is in the folder, which has a lock
            sampler=sampler,
            pruner=pruner,
            runs=runs,
            seconds=seconds,
            known=known,
        )
        source = Searching(search, place)
        slots = max(pack_size(run, place) for run in _ends(space))
        try:
            (folder / LOG).unlink(missing_ok=True)
            where = ("local", None, len(places(device)), device)
            with make_workers(*where, folder, checkpoint_seconds, LOG) as each:
                watch = Watch(each, give_up_seconds, on_event)
                on_event(Started(folder, device, (), len(known), is_search=True))
                schedule = Schedule((), each.places)
                train_all(folder, schedule, watch, on_event, source, slots)
        except KeyboardInterrupt as error:
            error.add_note(what_is_kept(folder, source.runs.values()))
            raise
        finally:
            if results.finished_run_ids(folder):
                results.write_tables(folder, results.table_order(folder))
            write_grid(folder, search.runs(), space.description, keep=True)
        if schedule.failed:
            raise failure(schedule.failed, len(source.runs), folder / LOG)
        answers = search.answers()
        if not results.finished_run_ids(folder):
            return Results(pd.DataFrame(), pd.DataFrame()), answers
        results.merge(folder)
    return results.load_results(folder), answers


def known_accuracies(folder: Path) -> dict[str, float]:
    """The test accuracy of each run that a folder holds, by run id."""
    if not results.has_runs(folder):
        return {}
    rows = results.read_rows(folder)
    return dict(zip(rows[columns.RUN_ID], rows.test_accuracy.astype(float), strict=True))


def table_of(answers: Sequence[Answer]) -> pd.DataFrame:
    """A row a setting: the best values, their accuracy over seeds, the window of all runs that are
    over, as `summary` has it, and how many these are. `attrs["settings"]` names the columns of
    values."""
    found = pd.DataFrame(
        {
            "setting": answer.setting.rpartition(", ")[0],
            **{f"best {columns.name(path)}": value for path, value in answer.values.items()},
            "mean accuracy": answer.accuracy,
            **_window(answer),
            "runs": answer.runs,
        }
        for answer in answers
    )
    found.attrs["settings"] = [name for name in map(str, found) if name.startswith("best ")]
    return found


def _window(answer: Answer) -> dict[str, object]:
    found = answer.window
    if found is None:
        return {}
    inner, outer = (found.inner, found.outer) if found.islands else (math.nan, math.nan)
    return {"inner": inner, "outer": outer, "edge": found.edge}

"""What a results folder holds, as the sweep that trained it would tell it."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from .. import columns
from ..config import RunConfig
from ..errors import ResultsError
from ..grid.faults import in_words
from ..results import load_results, read_rows
from .events import Evaluation, Finished, Progress, Started, SweepEvent
from .plan import plan


def replay(folder: Path, into: Path) -> Iterator[SweepEvent]:
    """The events of a folder's finished runs, as of a sweep into another folder, one after the
    other.

    Raises ResultsError where the folder cannot be read, or has a run that cannot be made again.
    """
    curves = dict(iter(load_results(folder).curves.groupby(columns.RUN_ID)))
    runs = [_run(text, folder) for text in read_rows(folder)[columns.CONFIG]]
    yield Started(into, "", tuple(plan(runs, lambda run: 1)), 0)
    for run_id in (run.run_id for run in runs):
        curve = curves[run_id].drop(columns=[columns.RUN_ID, columns.MIXER])
        for row in curve.to_dict("records"):
            evaluation = Evaluation.of(run_id, {str(name): x for name, x in row.items()})
            yield Progress({run_id: evaluation.step}, (evaluation,))
        yield Finished((run_id,))


def _run(config: str, folder: Path) -> RunConfig:
    """The run of a row; without the code of a mixer of the user's own there is none."""
    try:
        return RunConfig.model_validate_json(config)
    except ValidationError as error:
        raise ResultsError(f"{folder}: has a run of which {in_words(error)}") from error

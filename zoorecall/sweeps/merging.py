"""A results folder as data: its runs in two tables, and the grid that says which they are."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

from .. import files, results
from ..columns import CONFIG
from ..config import RunConfig
from ..errors import ResultsError, UserError, ZoorecallWarning
from ..grid import Grid, load_grid
from ..grid.dump import dump_grid

HEADER = """\
# Written by zoorecall: the runs of this folder. To train them again:
# zoorecall sweep grid.yaml --out ANOTHER_FOLDER
"""


def merge(folder: str | Path, others: Sequence[str | Path] = ()) -> None:
    """Put a folder's finished runs, and those of other folders, into its runs.parquet and
    curves.parquet, and state them in its grid.yaml.

    The shards that are then in the tables go. Of a sweep that is unfinished all stays that it goes
    on from. The other folders stay as they are. Raises ResultsError where a folder cannot be read
    or two of them disagree on what a run came to.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ResultsError(f"{folder}: no such results folder")
    with files.locked(folder):
        grid = _stated(folder)
        new = results.merge(folder, [Path(other) for other in others])
        write_grid(folder, grid.runs if grid else (), grid.description if grid else "")
        if new:
            results.write_tables(folder, results.table_order(folder))


def write_grid(
    folder: Path, asked: Sequence[RunConfig], description: str, keep: bool = False
) -> None:
    """Write the folder's grid.yaml: the runs that are finished there and those asked for; `keep`
    those that it states, too, and what it says of them. One that was cut short is set aside, and
    the user told.

    Raises ResultsError where one stands there that no sweep has written.
    """
    path = folder / results.GRID
    if path.exists() and not _is_ours(path):
        raise ResultsError(
            f"{path}: is a grid of your own where a sweep writes what it runs; move it elsewhere, "
            "or choose another results folder"
        )
    finished = results.read_rows(folder)[CONFIG] if results.has_runs(folder) else ()
    configs = [json.loads(text) for text in finished]
    configs += [run.model_dump(mode="json") for run in asked]
    if keep and (stated := _stated(folder)):
        configs += [run.model_dump(mode="json") for run in stated.runs]
        description = stated.description or description
    if not configs:
        return  # a search knows no run before it asks for one
    with files.replacing(path) as temporary:
        temporary.write_text(HEADER + dump_grid(configs, description), encoding="utf-8")


def _stated(folder: Path) -> Grid | None:
    """The folder's grid.yaml; None where there is none, or one that was cut short, which is set
    aside."""
    path = folder / results.GRID
    if not path.exists():
        return None
    try:
        return load_grid(path)
    except UserError as error:
        if not _is_ours(path):
            raise
        text = f"{error}; it is now {files.set_aside(path).name}, and written anew"
        warnings.warn(text, ZoorecallWarning, stacklevel=2)
        return None


def _is_ours(path: Path) -> bool:
    """Whether a sweep has written a grid, as far as there is any of it."""
    begin = HEADER.encode()
    return begin.startswith(path.read_bytes()[: len(begin)])

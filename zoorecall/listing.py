"""What there is to look at: results folders and grids."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet
import yaml

from . import words
from .errors import UserError
from .results import GRID, RUNS, SHARDS, has_runs


def listing(folders: Sequence[Path]) -> list[str]:
    """A line a results folder or grid in these folders: where it is, how many finished runs it has,
    what its grid says of it. Raises UserError where there is none."""
    rows = [row for folder in folders for row in _rows(folder)]
    if not rows:
        places = " and ".join(map(str, folders))
        raise UserError(f"{places}: no results folders or grids here; name a folder that has them")
    width = max(len(path) for path, _, _ in rows)
    return [f"{path:{width}}  {runs:>12}  {text}".rstrip() for path, runs, text in rows]


def _rows(folder: Path) -> Iterator[tuple[str, str, str]]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix == ".yaml":
            yield str(path), "grid", _description(path)
        elif path.is_dir() and has_runs(path):
            yield str(path), _count(path), _description(path / GRID)


def _count(folder: Path) -> str:
    """How many finished runs there are, by the sizes of the files that hold them."""
    files = [path for path in (folder / RUNS, *folder.glob(f"{SHARDS}/*.parquet")) if path.exists()]
    try:
        return words.count(sum(pyarrow.parquet.read_metadata(x).num_rows for x in files), "run")
    except (OSError, ValueError):
        return "unreadable"


def _description(grid: Path) -> str:
    """The first sentence of a grid's description; empty where there is none to be read."""
    if not grid.is_file():  # of a pipe that nobody writes to one would wait for ever
        return ""
    try:
        sections: Any = yaml.safe_load(grid.read_text(encoding="utf-8"))
        text = " ".join(sections["description"].split())
        return re.split(r"(?<! et al)\. ", text)[0].rstrip(".")
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return ""

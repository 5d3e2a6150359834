"""A report: one HTML page of a sweep, complete in itself, that opens from a disk without a network.

`words.py` says what the tables show, `charts.py` takes from them what the charts draw, `page.py`
puts both into `page.html`.
"""

from collections.abc import Sequence
from pathlib import Path

from ..files import replacing
from ..results import Results, load_folders, read_plan
from ..words import listing
from .page import render

__all__ = ["report"]


def report(results: Results | str | Path | Sequence[str | Path], path: str | Path) -> Path:
    """Write the report of a results folder, of several, or of results in memory, to `path`; returns
    the path.

    Of one folder it also says how many runs were planned and are not finished. Raises ResultsError
    where a folder cannot be read or the page cannot be written.
    """
    title, unfinished = "Results", None
    if not isinstance(results, Results):
        folders = [results] if isinstance(results, str | Path) else list(results)
        results = load_folders(folders)
        title = listing(Path(folder).resolve().name for folder in folders)
        if len(folders) == 1:
            planned = read_plan(Path(folders[0]))
            unfinished = len(planned - set(results.runs["run_id"])) if planned else None
    page = render(results, title, unfinished)
    with replacing(Path(path)) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)

"""A report: one HTML page of a sweep, complete in itself, that opens from a disk without a network.

`words.py` says what the tables show, `charts.py` takes from them what the charts draw, `page.py`
puts both into `page.html`.
"""

from pathlib import Path

from ..files import replacing
from ..results import Results, load_results, read_plan
from .page import render

__all__ = ["report"]


def report(results: Results | str | Path, path: str | Path) -> Path:
    """Write the report of a results folder, or of results in memory, to `path`; returns the path.

    Of a folder it also says how many runs were planned and are not finished. Raises ResultsError
    where the folder cannot be read or the page cannot be written.
    """
    title, unfinished = "Results", None
    if not isinstance(results, Results):
        folder, results = Path(results), load_results(results)
        planned = {run_id for pack in read_plan(folder).values() for run_id in pack}
        title = folder.resolve().name
        unfinished = len(planned - set(results.runs["run_id"])) if planned else None
    page = render(results, title, unfinished)
    with replacing(Path(path)) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)

"""A study: the grid of a published figure or table, what is trained of it, and its figures.

The folders grids/ and results/ are looked for where the command runs: at the repository's top.
"""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from .errors import UserError
from .plots import save
from .results import Results, has_runs, load_results


def trained_studies() -> dict[str, Results]:
    """What every folder of results/ with finished runs holds, by the folder's name; but for
    results/quick, which is not kept. Raises UserError where there is no results/."""
    if not Path("results").is_dir():
        raise UserError(f"{Path.cwd()} has no results/: run this at the repository's top")
    names = {path.name for path in Path("results").iterdir() if has_runs(path)}
    return {name: load_results(Path("results", name)) for name in sorted(names - {"quick"})}


def is_trained(name: str) -> bool:
    """Whether results/NAME holds any finished run."""
    return has_runs(Path("results", name))


def load_study(name: str) -> Results:
    """The runs of grids/NAME.yaml that results/NAME holds; trains the grid first if there are
    none."""
    if is_trained(name):
        return load_results(Path("results", name))
    from .display import SweepDisplay  # and torch: a script that only draws starts without
    from .grid import load_grid
    from .sweeps.sweeper import sweep

    with SweepDisplay() as shown:
        return sweep(load_grid(f"grids/{name}.yaml"), on_event=shown.show)


def draw(name: str, figures: Mapping[str, Figure]) -> None:
    """Write figures to results/NAME under their names, as .png and as .pdf."""
    for title, figure in figures.items():
        for ending in ("png", "pdf"):
            save(figure, Path("results", name, f"{title}.{ending}"))


def missing_runs(name: str, results: Results) -> str:
    """How many runs of grids/NAME.yaml are not trained yet, in words."""
    from .grid import load_grid

    runs = {run.run_id for run in load_grid(f"grids/{name}.yaml").runs}
    missing = len(runs - set(results.runs["run_id"]))
    return f"\n{missing} of {len(runs)} runs of grids/{name}.yaml are not trained yet"

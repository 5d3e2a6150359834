"""The kinds of figures that any results can be drawn as, by name: `zoorecall plot --kind NAME`."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from matplotlib.figure import Figure

from ..columns import MIXER, MIXER_NAME, MIXER_TITLE
from ..errors import UserError
from ..results import Results
from ..words import count, listing
from .ablations import against_baseline
from .dynamics import training_dynamics
from .errors import what_runs_came_to
from .learning_rates import accuracy_by_learning_rate
from .scaling import (
    accuracy_by_depth,
    accuracy_by_parameters,
    accuracy_by_state_size,
    accuracy_by_width,
)
from .style import WIDTH


def _ablations(found: Results, width: float) -> Figure:
    """Against the first mixer by label, such as `attention` before `attention (conv=k)`."""
    return against_baseline(found.runs, min(found.runs[MIXER]), width)


KINDS: dict[str, Callable[[Results, float], Figure]] = {
    "rates": lambda found, width: accuracy_by_learning_rate(found.runs, width),
    "width": lambda found, width: accuracy_by_width(found.runs, width=width),
    "depth": lambda found, width: accuracy_by_depth(found.runs, width),
    "parameters": lambda found, width: accuracy_by_parameters(found.runs, width),
    "state_size": lambda found, width: accuracy_by_state_size(found.runs, width),
    "dynamics": lambda found, width: training_dynamics(found.runs, found.curves, width),
    "ablations": _ablations,
    "errors": lambda found, width: what_runs_came_to(found.runs, found.curves, width),
}


def figure(kind: str, results: Results, width: float = WIDTH) -> Figure:
    """Results as a figure of one of the `KINDS`, so many inches wide."""
    return KINDS[kind](results, width)


def selected(results: Results, mixers: Sequence[str] = (), titles: Sequence[str] = ()) -> Results:
    """The runs of some mixers, named as a grid names them: by `gla` its variants, too, by
    `gla (conv=True)` the one. `titles` says what figures call them, in the order of `mixers`, or of
    their labels. Raises UserError where there is no such mixer, or not a title for each."""
    runs = results.runs
    names = runs.drop_duplicates(MIXER).set_index(MIXER)[MIXER_NAME].sort_index()
    chosen: list[str] = []
    for wanted in mixers or names.index:
        found = [wanted] if wanted in names.index else names.index[names == wanted].tolist()
        if not found:
            raise UserError(f"no runs of '{wanted}'; there are {listing(names.index)}")
        chosen += [label for label in found if label not in chosen]
    runs = runs[runs[MIXER].isin(chosen)]
    if titles:
        if len(titles) != len(chosen) or len(set(titles)) != len(titles):
            given, wanted = count(len(titles), "label"), count(len(chosen), "mixer")
            raise UserError(f"{given} for {wanted}; give {listing(chosen)} one each, all different")
        runs = runs.assign(**{MIXER_TITLE: runs[MIXER].map(dict(zip(chosen, titles, strict=True)))})
    curves = results.curves[results.curves["run_id"].isin(runs["run_id"])]
    return replace(results, runs=runs, curves=curves)

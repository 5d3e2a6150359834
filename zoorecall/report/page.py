"""The page: words, charts' data and tables, put into `page.html` with its style and script.

All text is escaped by Jinja; a Content-Security-Policy lets the page load nothing and run only
its own script, so that it stays complete in itself whatever a label or a setting says.
"""

import base64
import hashlib
import math
import re
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from ..analysis.accuracy import CONFIG_PREFIXES, SOLVED, setting_columns
from ..analysis.bumps import classify, transitions
from ..plots.style import TITLES, panel_title
from ..results import PROVENANCE, Results
from . import charts, words

HERE = Path(__file__).parent
NUMBER = re.compile(r"\d[\d.]*(e-?\d+| %)")
NOTHING = "\N{EN DASH}"
"""Where a mixer has no such setting, nothing is set, or a thing did not happen."""

BY_RUN = ("pack_id", "pack_size", "seconds", "tokens_per_second")
"""Provenance that belongs to a run or its pack, not to the whole."""

MEASURED = {
    "test_accuracy": ("accuracy, %", 100.0, ".2f"),
    "test_loss": ("test loss", 1.0, ".4f"),
    "train_loss": ("train loss", 1.0, ".4f"),
    "steps_to_solve": ("solved at", 1.0, ".0f"),
    "diverged_at": ("diverged at", 1.0, ".0f"),
}
"""Columns of results in the table of runs: heading, scale, format; the last two are steps."""


def render(results: Results, title: str, unfinished: int | None = None) -> str:
    """The whole page; `unfinished` of the planned runs are not there, None where unknown."""
    runs, curves = _ordered(results.runs), results.curves
    kinds = classify(runs, curves).set_index("run_id")["kind"]
    found, looks = words.findings(runs), charts.looks(runs["mixer"])
    table = _table(runs, kinds)
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["unbroken"] = unbroken
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment.get_template("page.html").render(
        title=title,
        mixers=words.count(len(looks), "mixer"),
        style=style,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        overview=words.overview(runs, found, kinds, unfinished),
        places=words.places(found),
        looks=looks,
        columns=[(name, bool(values.map(_numeric).all())) for name, values in table.items()],
        rows=list(zip(runs["run_id"], table.to_numpy().tolist(), strict=True)),
        settings=_shared(runs),
        provenance=_provenance(runs),
        data={
            "looks": [
                {name: look[name] for name in ("mixer", "marker", "dashes")} for look in looks
            ],
            "panels": charts.panels(runs),
            "solved": SOLVED,
            "best": runs["run_id"][runs["test_accuracy"].argmax()],
            **_chosen(runs, curves, kinds),
        },
    )


def unbroken(sentence: str) -> Markup:
    """A sentence as HTML that has no line break within a number such as 1e-3 or 95 %."""
    return Markup(NUMBER.sub(r'<span class="unbroken">\g<0></span>', str(escape(sentence))))


def _ordered(runs: pd.DataFrame) -> pd.DataFrame:
    return runs.sort_values(
        [*setting_columns(runs), "train.learning_rate", "seed"], ignore_index=True
    )


def _table(runs: pd.DataFrame, kinds: pd.Series) -> pd.DataFrame:
    """The table of runs, as text; what all runs share is told elsewhere."""
    names = (*setting_columns(runs)[1:], "seed")
    table = pd.DataFrame({"mixer": runs["mixer"]})
    for name in [name for name in names if runs[name].nunique(dropna=False) > 1]:
        table[_heading(name)] = runs[name].map(text)
    table["learning rate"] = runs["train.learning_rate"].map(words.rate)
    for name, (heading, scale, style) in MEASURED.items():
        if name in runs:
            values = scale * runs[name].astype(float)
            table[heading] = values.map(f"{{:{style}}}".format).where(values.notna(), NOTHING)
    return table.assign(training=runs["run_id"].map(kinds))


def _heading(column: str) -> str:
    if column == "model.num_layers":
        return "layers"
    return TITLES.get(column, column)


def _numeric(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell == NOTHING
    return True


def _config(runs: pd.DataFrame) -> tuple[list[str], list[str]]:
    """The columns of the configs that all runs share, and those that differ."""
    columns = [
        name for name in map(str, runs) if name == "seed" or name.startswith(CONFIG_PREFIXES)
    ]
    differs = {name: runs[name].astype(str).nunique(dropna=False) > 1 for name in columns}
    return [n for n in columns if not differs[n]], [n for n in columns if differs[n]]


def _shared(runs: pd.DataFrame) -> list[tuple[str, str]]:
    return [(name, text(runs[name].iloc[0])) for name in _config(runs)[0]]


def _provenance(runs: pd.DataFrame) -> list[tuple[str, str]]:
    """What trained the runs: each value, and of how many runs where there are several."""
    rows = []
    for name in [name for name in PROVENANCE if name in runs and name not in BY_RUN]:
        numbers = runs[name].map(text).replace({"": "not recorded"}).value_counts()
        several = len(numbers) > 1
        values = [
            f"{v} ({words.count(n, 'run')})" if several else str(v) for v, n in numbers.items()
        ]
        rows.append((name.replace("_", " "), ", ".join(values)))
    if "seconds" in runs:
        rows.append(("seconds, all runs", f"{runs['seconds'].sum():,.0f}"))
    return rows


def _chosen(runs: pd.DataFrame, curves: pd.DataFrame, kinds: pd.Series) -> dict[str, Any]:
    """What is shown of a run when it is chosen: `settings` are the names of each run's values."""
    names = _config(runs)[1]
    names += [name for name in ("run_id", "parameters", "state_size", *PROVENANCE) if name in runs]
    places = {look["mixer"]: place for place, look in enumerate(charts.looks(runs["mixer"]))}
    falls = dict(iter(transitions(runs, curves).groupby("run_id")))
    of_run = charts.run_curves(curves)
    place = setting_columns(runs)[1:]
    chosen = {}
    for run in runs.to_dict("records"):
        run_id, kind = run["run_id"], kinds[run["run_id"]]
        fallen = falls[run_id].to_dict("records") if run_id in falls else []
        values = [text(run[name]) for name in names]
        chosen[run_id] = {
            "look": places[run["mixer"]],
            "title": f"{run['mixer']}, {panel_title({name: run[name] for name in place})}, "
            f"learning rate {words.rate(run['train.learning_rate'])}, seed {run['seed']}",
            "kind": f"{kind[0].upper()}{kind[1:]}: {words.KINDS[kind]}.",
            "notes": [words.transition(fall) for fall in fallen],
            "falls": [[fall["start"], fall["end"]] for fall in fallen],
            "values": [None if value in ("", NOTHING) else value for value in values],
            **of_run[run_id],
        }
    return {"settings": names, "runs": chosen}


def text(value: object) -> str:
    """A setting as people write it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NOTHING
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1e4 else f"{value:g}"
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    return str(value)

"""The page: words, charts' data and tables, put into `page.html` with its style and script.

All text is escaped by Jinja; a Content-Security-Policy lets the page load nothing and run only
its own script, so that it stays complete in itself whatever a label or a setting says.
"""

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from ..analysis import outcomes
from ..analysis.summary import Summary, summarize
from ..columns import (
    CONFIG_PREFIXES,
    MIXER,
    MIXER_OPTIONS,
    MIXER_SOURCE,
    NAMES,
    PROVENANCE,
    RATE,
    RUN_ID,
    SEED,
    SOLVED,
    slices,
)
from ..plots.style import mixer_looks
from ..results import Results
from ..words import count, missing, rate, setting, value
from . import charts, words

HERE = Path(__file__).parent
NUMBER = re.compile(r"\d[\d.]*(e-?\d+| %)")
NOTHING = "\N{EN DASH}"
"""Where a mixer has no such setting, nothing is set, or a thing did not happen."""

BY_RUN = ("pack_id", "pack_size", "seconds", "tokens_per_second")
"""Provenance that belongs to a run or its pack, not to the whole."""

MEASURED = {
    "test_accuracy": ("accuracy, %", 100.0, ".2f"),
    "train_accuracy": ("training accuracy, %", 100.0, ".2f"),
    "test_loss": ("test loss", 1.0, ".4f"),
    "train_loss": ("train loss", 1.0, ".4f"),
    "steps_to_solve": ("solved at", 1.0, ".0f"),
    "diverged_at": ("diverged at", 1.0, ".0f"),
}
"""Columns of results in the table of runs: heading, scale, format; the last two are steps."""


def render(results: Results, title: str, unfinished: int | None = None) -> str:
    """The whole page; `unfinished` of the planned runs are not there, None where unknown."""
    found = summarize(results)
    runs, looks, table = found.runs, charts.looks(found), _table(found)
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
        mixers=count(len(looks), "mixer"),
        style=style,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        overview=words.overview(found, found.kinds, unfinished),
        places=words.places(found.settings),
        looks=looks,
        columns=[(name, _class(str(name), values)) for name, values in table.items()],
        rows=list(zip(runs[RUN_ID], table.to_numpy().tolist(), strict=True)),
        settings=_shared(runs),
        provenance=_provenance(runs),
        data={
            "looks": [
                {name: look[name] for name in ("mixer", "light", "marker", "dashes")}
                for look in looks
            ],
            "panels": charts.panels(found),
            "solved": SOLVED,
            "best": runs[RUN_ID][runs["test_accuracy"].argmax()],
            **_chosen(found),
        },
    )


def unbroken(sentence: str) -> Markup:
    """A sentence as HTML that has no line break within a number such as 1e-3 or 95 %."""
    return Markup(NUMBER.sub(r'<span class="unbroken">\g<0></span>', str(escape(sentence))))


def _table(found: Summary) -> pd.DataFrame:
    """The table of runs, as text; what all runs share is told elsewhere."""
    runs = found.runs
    table = pd.DataFrame({"mixer": runs[MIXER].map(found.titles)})
    for column in (*found.columns[1:], SEED):
        if runs[column].nunique(dropna=False) > 1:
            table[NAMES.get(column, column)] = runs[column].map(text)
    table["learning rate"] = runs[RATE].map(rate)
    parts = {column: (f"{x}, %", 100.0, ".2f") for x, column in slices(runs).items()}
    for column, (heading, scale, style) in (MEASURED | parts).items():
        if column in runs:
            values = scale * runs[column].astype(float)
            table[heading] = values.map(f"{{:{style}}}".format).where(values.notna(), NOTHING)
    return table.assign(
        outcome=runs[RUN_ID].map(found.outcomes), training=runs[RUN_ID].map(found.kinds)
    )


def _class(name: str, values: pd.Series) -> str:
    """How a column of the table of runs is shown: `key` is that which a narrow page keeps."""
    number = "number" if values.map(_numeric).all() else ""
    return f"{number} key" if name == MEASURED["test_accuracy"][0] else number


def _numeric(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell == NOTHING
    return True


def _config(runs: pd.DataFrame) -> tuple[list[str], list[str]]:
    """The columns of the configs that all runs share, and those that differ."""
    columns = [
        name
        for name in map(str, runs)
        if name in (SEED, MIXER_OPTIONS, MIXER_SOURCE) or name.startswith(CONFIG_PREFIXES)
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
        values = [f"{v} ({count(n, 'run')})" if several else str(v) for v, n in numbers.items()]
        rows.append((name.replace("_", " "), ", ".join(values)))
    if "seconds" in runs:
        rows.append(("seconds, all runs", f"{runs['seconds'].sum():,.0f}"))
    return rows


def _chosen(found: Summary) -> dict[str, Any]:
    """What is shown of a run when it is chosen: `settings` are the names of each run's values."""
    runs = found.runs
    names = _config(runs)[1]
    names += [name for name in (RUN_ID, "parameters", "state_size", *PROVENANCE) if name in runs]
    places = {mixer: place for place, mixer in enumerate(mixer_looks(runs))}
    falls = dict(iter(found.transitions.groupby(RUN_ID)))
    of_run = charts.run_curves(found.curves)
    chosen = {}
    for run in runs.to_dict("records"):
        run_id, kind, outcome = run[RUN_ID], found.kinds[run[RUN_ID]], found.outcomes[run[RUN_ID]]
        fallen = falls[run_id].to_dict("records") if run_id in falls else []
        place = setting({column: run[column] for column in found.columns[1:]})
        values = [text(run[name]) for name in names]
        chosen[run_id] = {
            "look": places[run[MIXER]],
            "title": f"{found.titles[run[MIXER]]}, {place}, "
            f"learning rate {rate(run[RATE])}, seed {run[SEED]}",
            "kind": f"{outcome[0].upper()}{outcome[1:]}: {outcomes.KINDS[outcome]}. "
            f"Course of the loss, {kind}: {words.KINDS[kind]}.",
            "notes": [words.transition(fall) for fall in fallen],
            "falls": [[fall["start"], fall["end"]] for fall in fallen],
            "values": [None if value in ("", NOTHING) else value for value in values],
            **of_run[run_id],
        }
    return {"settings": names, "runs": chosen}


def text(x: object) -> str:
    """A cell as people write it."""
    return NOTHING if missing(x) else value(x)

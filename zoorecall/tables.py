"""Tables for people: on a terminal and as Markdown."""

import shutil
from collections.abc import Hashable, Iterable
from typing import Any, Literal

import pandas as pd
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from . import words
from .columns import CONFIG_PREFIXES, RATE
from .words import missing

NOTES = {
    "accuracy": "each seed's at the rate that is best for the other seeds, the mean",
    "full": "the same of all rates",
    "floor": "the accuracy of the best answers that recall nothing",
    "runs there": "what those at the best learning rate came to",
    "inner": "the window in decades, from its first to its last rate that solves",
    "outer": "up to the rates that fail on either side",
    "islands": "of rates that solve, with failing ones between",
    "decades": "the width of a seed's own window, the mean",
}
"""What a column holds, where its name does not say it."""

ONE_SEED = {"accuracy": "at the best rate, chosen by the same seed"}
"""The same, where no setting has seeds to choose a rate for one another."""

T_INTERVAL = "95 % t interval over seeds; covers less where seeds either solve or fail"

BRACKETS = {
    **dict.fromkeys(("accuracy", "full", "difference", "gain", "lost"), T_INTERVAL),
    "solved": "seeds that end with 95 % or more, each at that rate; 95 % Wilson interval",
    "decades": "95 % t interval over seeds, with the room that the steps of the grid leave; inf: a "
    "window goes to the grid's end",
    "wider": "95 % t interval over seeds, with the room that the steps of the grid leave",
    "width": "the smallest that is not ruled out, the smallest that solves for sure",
}
"""What [a, b] is behind the number of a column."""


def interval(name: str) -> list[str]:
    """A column and the ends of its interval, which `readable` shows as one."""
    return [name, f"{name}_low", f"{name}_high"]


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table with its numbers as a person wants to read them, a column and the ends of its
    interval as one: `0.97 [0.95, 0.99]`. What columns and brackets are stands in `attrs["notes"]`,
    which `print_table` and `markdown` put below. Settings are told in full: what a config names
    so, and the columns in the table's `attrs["settings"]`."""
    columns = {str(name): table[name] for name in table}
    settings = {name for name in columns if name.startswith(CONFIG_PREFIXES)}
    settings.update(table.attrs.get("settings", ()))
    ends = {name: interval(name)[1:] for name in columns if f"{name}_low" in columns}
    hidden = {end for pair in ends.values() for end in pair}
    cells = {
        name: [text(name, x, name in settings) for x in column]
        for name, column in columns.items()
        if name not in hidden
    }
    if "solved" in ends:
        of = cells.pop("seeds")
        cells["solved"] = [f"{k} of {n}" for k, n in zip(cells["solved"], of, strict=True)]
    for name, pair in ends.items():
        limits = table[pair].itertuples(index=False)
        cells[name] = [
            cell
            if missing(low) and missing(high)
            else f"{cell} [{text(name, low)}, {text(name, high)}]"
            for cell, (low, high) in zip(cells[name], limits, strict=True)
        ]
    found = pd.DataFrame(cells)
    alone = "accuracy" in ends and columns["accuracy_low"].isna().all()
    told = NOTES | ONE_SEED if alone else NOTES
    brackets = {name: f"[{BRACKETS[name]}]" for name in ends}
    notes = {name: [x[name] for x in (told, brackets) if name in x] for name in cells}
    found.attrs["notes"] = [f"{name}: {'; '.join(parts)}" for name, parts in notes.items() if parts]
    return found


def text(column: str, value: Any, setting: bool = False) -> str:
    """A cell as a person wants to read it: a setting in full, a measurement to two decimals."""
    if missing(value):
        return "-"
    if column in ("best learning rate", RATE):
        return f"{value:.1e}"
    if setting:
        return words.value(value)
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def plain_console(stderr: bool = False) -> Console:
    """A console on which text is text: no markup, no emoji, no colours of numbers. It is as wide as
    the terminal, or as `COLUMNS` says; elsewhere, in a pipe or a file, lines may have any length.
    """
    width = shutil.get_terminal_size((ENDLESS, 24)).columns
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, width=width)


ENDLESS = 100_000

PROSE = 40
"""Characters of a cell that stand in one line at the least."""


def print_table(table: pd.DataFrame) -> None:
    """A table on the terminal, and its notes; numbers to the right.

    What is the same in all rows stands above. What does not fit beside one another then stands
    below one another, each part with the columns that tell the rows apart.
    """
    console = plain_console()
    cells = table.astype(str)
    same = [name for name in cells if len(cells) > 1 and cells[name].nunique() == 1]
    same = same[len(same) == len(cells.columns) :]  # something is left to be a table
    if same:
        values = cells[same].iloc[0].items()
        told = (
            f"{name} {value}" if value not in ("", "-") else f"no {name}" for name, value in values
        )
        console.print(f"in all rows: {', '.join(told)}")
    cells = cells.drop(columns=same)
    for i, names in enumerate(_parts(cells, console.width)):
        if i:
            console.print()
        console.print(_shown(cells[names], broken=_width(cells[names]) > console.width))
    for note in table.attrs.get("notes", ()):
        console.print(note, style="dim")


def _parts(cells: pd.DataFrame, width: int) -> list[list[Hashable]]:
    """The columns in parts that fit into the width, if their names are broken, each with those
    that tell the rows apart."""
    names = list(cells)
    telling = (names[:end] for end in range(1, len(names) + 1))
    keys = next((x for x in telling if not cells.duplicated(x).any()), names[:1])
    parts = [keys]
    for name in names[len(keys) :]:
        if _width(cells[[*parts[-1], name]], broken=True) > width and parts[-1] != keys:
            parts.append(keys)
        parts[-1] = [*parts[-1], name]
    return parts


def _width(cells: pd.DataFrame, broken: bool = False) -> int:
    """Characters of a line; with names that are broken between words, and so is prose."""

    def width(name: Hashable) -> int:
        words = str(name).split() if broken else [str(name)]
        column = max(map(cell_len, cells[name]), default=0)
        return max(*map(cell_len, words), min(column, PROSE) if broken else column)

    return sum(map(width, cells)) + 2 * (len(cells.columns) - 1)


def _shown(cells: pd.DataFrame, broken: bool) -> Table:
    shown = Table(header_style="bold", box=None, pad_edge=False)
    titles = {name: str(name).split() if broken else [str(name)] for name in cells}
    height = max(map(len, titles.values()))
    for name in cells:
        numeric = all(_is_number(value) for value in cells[name])
        words = titles[name]
        title = "\n".join([*[""] * (height - len(words)), *words])
        justify: Literal["left", "right"] = "right" if numeric else "left"
        shown.add_column(title, justify=justify, no_wrap=numeric, overflow="fold")
    for row in cells.itertuples(index=False):
        shown.add_row(*row)
    return shown


def markdown(table: pd.DataFrame) -> str:
    """A table as GitHub-flavoured Markdown, and its notes."""

    def line(cells: Iterable[object]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    lines = [line(table), line("---" for _ in table), *map(line, table.to_numpy())]
    return "\n".join([*lines, *(f"\n{note}" for note in table.attrs.get("notes", ()))])


def latex(table: pd.DataFrame) -> str:
    """A table as LaTeX with booktabs' rules, and its notes as comments."""
    shown = readable(table)
    numeric = [all(_is_number(value) for value in table[name]) for name in shown]
    text = shown.to_latex(
        index=False, escape=True, column_format="".join("lr"[number] for number in numeric)
    )
    notes = [f"% {note}\n" for note in shown.attrs["notes"]]
    return "".join(["% \\usepackage{booktabs}\n", *notes, text])


def _is_number(value: object) -> bool:
    try:
        float(str(value).rstrip("*<>"))
    except ValueError:
        return str(value) == "-"
    return True

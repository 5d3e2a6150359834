"""Tables for people: on a terminal and as Markdown."""

from collections.abc import Iterable
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from .columns import RATE
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

T_INTERVAL = "95 % t interval over seeds; covers less where seeds either solve or fail"

BRACKETS = {
    **dict.fromkeys(("accuracy", "full", "difference", "gain", "lost"), T_INTERVAL),
    "solved": "seeds that end with 95 % or more, each at that rate; 95 % Wilson interval",
    "decades": "95 % t interval over seeds, with the room that the steps of the grid leave",
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
    which `print_table` and `markdown` put below."""
    columns = {str(name): table[name] for name in table}
    ends = {name: interval(name)[1:] for name in columns if f"{name}_low" in columns}
    hidden = {end for pair in ends.values() for end in pair}
    cells = {
        name: [text(name, x) for x in column]
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
    brackets = {name: f"[{BRACKETS[name]}]" for name in ends}
    notes = {name: [x[name] for x in (NOTES, brackets) if name in x] for name in cells}
    found.attrs["notes"] = [f"{name}: {'; '.join(parts)}" for name, parts in notes.items() if parts]
    return found


def text(column: str, value: Any) -> str:
    """A cell as a person wants to read it."""
    if missing(value):
        return "-"
    if column in ("best learning rate", RATE):
        return f"{value:.1e}"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def print_table(table: pd.DataFrame) -> None:
    """A table on the terminal, and its notes; numbers to the right."""
    shown = Table(header_style="bold", box=None, pad_edge=False)
    for name in table:
        numeric = all(_is_number(value) for value in table[name])
        shown.add_column(str(name), justify="right" if numeric else "left", no_wrap=not numeric)
    for row in table.itertuples(index=False):
        shown.add_row(*(str(value) for value in row))
    console = Console(markup=False)  # a cell may have brackets
    if not console.is_terminal:
        console = Console(markup=False, width=200)
    console.print(shown)
    for note in table.attrs.get("notes", ()):
        console.print(note, style="dim", markup=False, highlight=False)


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

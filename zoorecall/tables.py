"""Tables for people: on a terminal and as Markdown."""

from collections.abc import Iterable
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from .columns import RATE
from .words import missing


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A summary with its numbers as a person wants to read them."""

    def text(name: str, value: Any) -> str:
        if missing(value):
            return "-"
        if name in ("best learning rate", RATE):
            return f"{value:.1e}"
        return f"{value:.2f}" if isinstance(value, float) else str(value)

    return pd.DataFrame({name: [text(str(name), v) for v in table[name]] for name in table})


def print_table(table: pd.DataFrame) -> None:
    """A table on the terminal; numbers to the right."""
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


def markdown(table: pd.DataFrame) -> str:
    """A table as GitHub-flavoured Markdown."""

    def line(cells: Iterable[object]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(table), line("---" for _ in table), *map(line, table.to_numpy())])


def _is_number(value: object) -> bool:
    try:
        float(str(value).rstrip("*<>"))
    except ValueError:
        return str(value) == "-"
    return True

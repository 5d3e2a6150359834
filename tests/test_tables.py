"""Tables on a terminal of any width, and in a pipe."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from zoorecall import load_results
from zoorecall.analysis.summary import summarize
from zoorecall.tables import print_table, readable

RESULTS = Path(__file__).parents[1] / "results"


def printed(table: pd.DataFrame, columns: int | None, monkeypatch, capsys) -> list[str]:
    """The lines of a table on a terminal of so many columns, or in a pipe."""
    if columns:
        monkeypatch.setenv("COLUMNS", str(columns))
    else:
        monkeypatch.delenv("COLUMNS", raising=False)
    print_table(table)
    return capsys.readouterr().out.splitlines()


@pytest.fixture(scope="module", params=["lr_fine", "key_value_sum", "ablations"])
def table(request) -> pd.DataFrame:
    return readable(summarize(load_results(RESULTS / request.param)).table())


@pytest.mark.parametrize("columns", [80, 120, None])
def test_every_number_of_a_table_is_shown_at_any_width(table, columns, monkeypatch, capsys):
    lines = printed(table, columns, monkeypatch, capsys)
    assert columns is None or max(map(len, lines)) <= columns
    shown = "\n".join(lines)
    assert "…" not in shown
    words = set(shown.replace(",", " ").split())
    assert [x for x in np.unique(table.astype(str)) if x and not set(x.split()) <= words] == []


def test_what_is_the_same_in_all_rows_stands_above(monkeypatch, capsys):
    table = pd.DataFrame({"mixer": ["a", "b"], "layers": [2, 2], "edge": ["", ""], "x": [1, 22]})
    assert [line.rstrip() for line in printed(table, 80, monkeypatch, capsys)] == [
        "in all rows: layers 2, no edge",
        "mixer   x",
        "a       1",
        "b      22",
    ]
    assert printed(table.head(1), 80, monkeypatch, capsys)[0].split() == [*table]


def test_what_does_not_fit_stands_below_with_what_tells_the_rows_apart(monkeypatch, capsys):
    wide = {f"a long name {i}": [10**9 + i, 2 * 10**9 + i] for i in range(3)}
    table = pd.DataFrame({"mixer": ["a", "a"], "layers": [1, 2], "kind": ["x", "y"], **wide})
    lines = [line.split() for line in printed(table, 31, monkeypatch, capsys)]
    assert lines[0] == ["in", "all", "rows:", "mixer", "a"]
    assert [line[:1] for line in lines].count(["1"]) == 2
    assert [cell for line in lines for cell in line if cell.startswith("100")] == [
        str(10**9 + i) for i in range(3)
    ]


@pytest.mark.parametrize("text", ["[b]", "[/usr/lib]", ":100:", "[red]x[/red]", "a[/]"])
def test_text_is_text(text, monkeypatch, capsys):
    table = pd.DataFrame({text: [text, "x"], "y": [text, text]})
    shown = printed(table, 80, monkeypatch, capsys)
    assert shown[0] == f"in all rows: y {text}" and shown[1].strip() == text == shown[2].strip()

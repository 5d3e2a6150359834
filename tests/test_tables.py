"""Tables for people: on a terminal of any width and in a pipe; numbers with their intervals, and
what stands in brackets said below."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import made_up_runs

from zoorecall import load_results
from zoorecall.analysis.summary import Summary, summarize
from zoorecall.columns import RATE
from zoorecall.search.search import Answer
from zoorecall.sweeps.tuner import table_of
from zoorecall.tables import interval, latex, markdown, print_table, readable

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
    cells = (x.replace(",", " ").split() for x in np.unique(table.astype(str)))
    assert [x for x in cells if not set(x) <= words] == []


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


TABLE = pd.DataFrame(
    {
        "mixer": ["a", "b"],
        "accuracy": [0.5, 0.975],
        "accuracy_low": [0.25, np.nan],
        "accuracy_high": [0.75, np.nan],
        "solved": [1, 1],
        "solved_low": [0.06, 0.21],
        "solved_high": [0.79, 1.0],
        "seeds": [3, 1],
    }
)


def test_a_number_and_the_ends_of_its_interval_are_one_cell():
    found = readable(TABLE)
    assert found.columns.tolist() == ["mixer", "accuracy", "solved"]
    assert found["accuracy"].tolist() == ["0.50 [0.25, 0.75]", "0.97"]
    assert found["solved"].tolist() == ["1 of 3 [0.06, 0.79]", "1 of 1 [0.21, 1.00]"]
    assert interval("accuracy") == ["accuracy", "accuracy_low", "accuracy_high"]


def test_what_is_in_brackets_is_said_below_on_a_terminal_and_in_markdown(capsys):
    print_table(readable(TABLE))
    printed = capsys.readouterr().out
    for text in (printed, markdown(readable(TABLE))):
        shown = " ".join(text.split())
        assert "accuracy: " in shown and "[95 % t interval over seeds" in shown
        assert "solved: " in shown and "95 % Wilson interval" in shown
    assert readable(TABLE[["mixer", "seeds"]]).attrs["notes"] == []


DECAYS = ["0.0001", "0.001"]


def decayed(**axes) -> Summary:
    """Made-up runs with the two values of weight decay that `DECAYS` tells."""
    made = made_up_runs(lambda *_: 0.123456, rates=(1e-3, 1e-2), **axes)
    both = [made.assign(**{"train.weight_decay": float(x)}) for x in DECAYS]
    runs = pd.concat(both, ignore_index=True)
    return Summary(runs.assign(run_id=runs.index.astype(str)), pd.DataFrame())


def test_settings_that_differ_read_so_and_measurements_have_two_decimals(monkeypatch, capsys):
    found = decayed()
    for table in (found.table(), found.for_paper()):
        shown = readable(table)
        assert shown["weight_decay"].tolist() == DECAYS
        assert shown["accuracy"].unique().tolist() == ["0.12 [0.12, 0.12]"]
    assert all(f"& {x} &" in latex(found.for_paper()) for x in DECAYS)
    values = {RATE: 1e-3, "train.weight_decay": 1e-4}
    answers = table_of([Answer("a, learning rate", values, 0.123456, 3, None)])
    of_config = pd.DataFrame({"train.weight_decay": [1e-4], "without_recall": 0.123456})
    assert [*readable(answers).iloc[0]] == ["a", "1.0e-03", "0.0001", "0.12", "3"]
    assert [*readable(of_config).iloc[0]] == ["0.0001", "0.12"]
    same = readable(found.table().assign(weight_decay=1e-4, inner=[1.0, 2.0]))
    assert "weight_decay 0.0001" in printed(same, None, monkeypatch, capsys)[0]


@pytest.mark.parametrize("seeds", [(42,), (42, 123)])
def test_an_accuracy_is_not_called_held_out_where_no_other_seed_chose_its_rate(seeds):
    note = {1: "at the best rate, chosen by the same seed", 2: "best for the other seeds"}
    notes = readable(decayed(seeds=seeds).table()).attrs["notes"]
    (told,) = [x for x in notes if x.startswith("accuracy: ")]
    assert note[len(seeds)] in told


def test_brackets_that_nobody_explains_are_an_error():
    table = TABLE.rename(columns=lambda name: name.replace("accuracy", "speed"))
    with pytest.raises(KeyError, match="speed"):
        readable(table)


def test_columns_may_be_numbers():
    assert readable(pd.DataFrame({0.1: ["2 of 3"]})).columns.tolist() == ["0.1"]

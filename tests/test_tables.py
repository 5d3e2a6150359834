"""Tables for people: numbers with their intervals, and what stands in brackets said below."""

import numpy as np
import pandas as pd
import pytest

from zoorecall.tables import interval, markdown, print_table, readable

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
    for shown in (printed, markdown(readable(TABLE))):
        assert "accuracy: " in shown and "[95 % t interval over seeds" in shown
        assert "solved: " in shown and "95 % Wilson interval" in shown
    assert readable(TABLE[["mixer", "seeds"]]).attrs["notes"] == []


def test_brackets_that_nobody_explains_are_an_error():
    table = TABLE.rename(columns=lambda name: name.replace("accuracy", "speed"))
    with pytest.raises(KeyError, match="speed"):
        readable(table)


def test_columns_may_be_numbers():
    assert readable(pd.DataFrame({0.1: ["2 of 3"]})).columns.tolist() == ["0.1"]

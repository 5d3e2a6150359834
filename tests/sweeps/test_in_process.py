"""Training without a sweep: the numbers of one, and none of its files."""

import pandas as pd
import pytest
from conftest import small_run, train_into

from zoorecall import Results, load_results, train
from zoorecall.analysis.summary import summarize
from zoorecall.sweeps import in_process

CLOCKS = ["seconds", "tokens_per_second"]


@pytest.mark.parametrize("slots", [2, 8])
def test_it_comes_to_the_same_table_and_curves_as_a_sweep(slots, tmp_path, monkeypatch):
    """Runs of one key, one of which diverges and makes room for another, and a run beside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(in_process, "pack_size", lambda run, device: slots)
    rates = [small_run(learning_rate=rate) for rate in (1e-3, 1e30, 1e-2)]
    runs = [rates[0], small_run("hyena"), *rates[1:]]
    found = train(runs, device="cpu")
    assert isinstance(found, Results) and not list(tmp_path.iterdir())
    train_into(tmp_path, runs, slots)
    swept = load_results(tmp_path)
    pd.testing.assert_frame_equal(found.runs.drop(columns=CLOCKS), swept.runs.drop(columns=CLOCKS))
    pd.testing.assert_frame_equal(found.curves, swept.curves)
    assert len(summarize(found).table()) == 2
    assert found.runs["pack_size"].max() == min(slots, 3)


def test_one_run_needs_no_list_and_is_one_if_given_twice():
    run = small_run(epochs=1)
    for given in (run, [run, run]):
        (row,) = train(given, device="cpu").runs.to_dict("records")
        assert row["run_id"] == run.run_id

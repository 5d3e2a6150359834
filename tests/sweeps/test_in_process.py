"""Training without a sweep: the numbers of one, and none of its files."""

import pandas as pd
import pytest
import torch
from conftest import small_run

from zoorecall import Results, load_results, train
from zoorecall.analysis.summary import summarize
from zoorecall.sweeps.pack_job import train_pack
from zoorecall.sweeps.plan import PlannedPack

CLOCKS = ["seconds", "tokens_per_second"]


def test_it_comes_to_the_same_table_and_curves_as_a_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rates = [small_run(learning_rate=rate) for rate in (1e-3, 1e-2)]
    runs = [*rates, small_run("hyena")]
    found = train(runs, device="cpu")
    assert isinstance(found, Results) and not list(tmp_path.iterdir())
    for pack in (rates, runs[2:]):
        train_pack(PlannedPack(tuple(pack)), tmp_path, torch.device("cpu"), 60, lambda *_: None)
    swept = load_results(tmp_path)
    pd.testing.assert_frame_equal(found.runs.drop(columns=CLOCKS), swept.runs.drop(columns=CLOCKS))
    pd.testing.assert_frame_equal(found.curves, swept.curves)
    assert len(summarize(found).table()) == 2


def test_one_run_needs_no_list():
    (row,) = train(small_run(epochs=1), device="cpu").runs.to_dict("records")
    assert row["run_id"] == small_run(epochs=1).run_id


def test_no_runs_are_refused():
    with pytest.raises(ValueError, match="no runs"):
        train([])

"""The slots of a pack: runs leave, enter and go on from checkpoints, to the same numbers."""

import gc
import math
import weakref

import pandas as pd
import pytest
import torch
from conftest import small_run, train_into

from zoorecall import load_results
from zoorecall.results import finished_run_ids
from zoorecall.sweeps import pack_job, provenance
from zoorecall.sweeps.pack_job import STEPS_TO_PAY, PackJob
from zoorecall.training.trainer import PackTrainer

CPU = torch.device("cpu")
CLOCKS = ["seconds", "tokens_per_second", "pack_size"]


@pytest.fixture
def sizes(monkeypatch) -> list[int]:
    """How many slots each pack has that is made."""
    made = []

    class Recorded(PackTrainer):
        def __init__(self, runs, device, slots=None):
            super().__init__(runs, device, slots)
            made.append(len(self.slots))

    monkeypatch.setattr(pack_job, "PackTrainer", Recorded)
    return made


def test_runs_that_are_done_leave_their_pack_and_a_stop_in_between_changes_nothing(
    sizes, tmp_path, monkeypatch
):
    monkeypatch.setitem(STEPS_TO_PAY, "cpu", 1)
    rates_and_epochs = ((1e-4, 6), (1e-3, 6), (3e-3, 3), (1e-2, 6), (1e30, 6))
    settings = {"evaluations": 4, "train_examples": 160, "batch_size": 16}
    runs = [
        small_run("delta_net", learning_rate=rate, epochs=epochs, **settings)
        for rate, epochs in rates_and_epochs
    ]
    train_into(tmp_path / "whole", runs)
    assert sizes[0] == len(runs) and sizes == sorted(sizes, reverse=True) and len(sizes) > 2
    left, jobs = runs, 0
    while left:
        train_into(tmp_path / "broken", left, stop_after=3)
        done = finished_run_ids(tmp_path / "broken")
        left, jobs = [run for run in left if run.run_id not in done], jobs + 1
    whole, broken = (load_results(tmp_path / name) for name in ("whole", "broken"))
    pd.testing.assert_frame_equal(whole.runs.drop(columns=CLOCKS), broken.runs.drop(columns=CLOCKS))
    pd.testing.assert_frame_equal(whole.curves, broken.curves)
    assert jobs > 2 and whole.runs["diverged_at"].notna().sum() == 1


def test_a_pack_shrinks_where_that_pays_and_grows_when_runs_enter(sizes, monkeypatch):
    """Whoever is in it goes on from its step."""
    monkeypatch.setitem(STEPS_TO_PAY, "cpu", 6)
    long, short, other, last = (
        small_run(epochs=e, seed=s) for e, s in ((4, 1), (1, 1), (1, 2), (1, 3))
    )
    job, rows = PackJob([long, short], 3, CPU), {}
    assert job.free == 1
    while not (taken := job.take()):
        job.advance()
    before = dict(job.steps)
    rows |= {row["run_id"]: row for row, _ in taken}
    assert set(rows) == {short.run_id} and job.free == 2 and sizes == [2]
    job.advance()
    assert sizes == [2, 1]  # 20 steps at the most are left, at least 6
    job.enter([other, last])
    assert sizes == [2, 1, 3] and job.free == 0
    assert job.steps[long.run_id] >= before[long.run_id] > 0 == job.steps[other.run_id]
    while job.running:
        job.advance()
        rows |= {row["run_id"]: row for row, _ in job.take()}
    assert sizes == [2, 1, 3, 1]
    for run in (long, short, other, last):
        alone = PackJob([run], 1, CPU)
        while alone.running:
            alone.advance()
        ((row, weights),) = alone.take()
        for name in ("test_loss", "train_loss", "curve.test_loss", "curve.max_grad_norm"):
            assert rows[run.run_id][name] == pytest.approx(row[name], rel=1e-5, nan_ok=True), name
        assert weights is None


def test_a_pack_gives_way_to_the_next_before_that_is_made(monkeypatch):
    made = []

    class Recorded(PackTrainer):
        def __init__(self, *arguments):
            assert not [one for one in made if one() is not None]
            made.append(weakref.ref(self))
            super().__init__(*arguments)

    monkeypatch.setattr(pack_job, "PackTrainer", Recorded)
    first, second = small_run(), small_run(seed=2)
    job = PackJob([first], 2, CPU)
    gc.disable()
    try:
        job.enter([second])
    finally:
        gc.enable()
    assert len(made) == 2 and set(job.steps) == {first.run_id, second.run_id}


def test_a_row_says_which_code_was_imported_though_it_was_edited_since(monkeypatch):
    monkeypatch.setattr(provenance, "git_commit", lambda file: "imported")
    job = PackJob([small_run(epochs=0.2, evaluations=1)], 1, CPU)
    monkeypatch.setattr(provenance, "git_commit", lambda file: "edited")
    while job.running:
        job.advance()
    ((row, _),) = job.take()
    assert row["git_commit"] == "imported"


def test_a_run_that_diverged_is_a_row_and_makes_room():
    runs = [small_run(learning_rate=rate) for rate in (1e30, 1e-3)]
    job, taken = PackJob(runs, 2, CPU), []
    while job.running:
        job.advance()
        taken += job.take()
    first, second = (row for row, _ in taken)
    assert first["run_id"] == runs[0].run_id and first["diverged_at"] >= 0
    assert first["test_accuracy"] == 0 and math.isnan(first["test_loss"])
    assert math.isnan(second["diverged_at"]) and math.isfinite(second["test_loss"])
    assert job.free == 2

"""Weights that outlive their training: kept only where asked for, and those of the row."""

import pytest
import torch
from conftest import small_run, train_into

from zoorecall import load_models, load_results
from zoorecall.checkpoints import weights_path
from zoorecall.cli import main
from zoorecall.errors import ResultsError
from zoorecall.results import finished_run_ids
from zoorecall.sweeps.pack_job import STEPS_TO_PAY
from zoorecall.tasks import make_task

RATES = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2)


def accuracy(model, run) -> float:
    tokens, positions, targets, _ = make_task(run.task).examples(
        run.train.test_examples, run.seed, "test"
    )
    logits = model(*(torch.from_numpy(x)[None].long() for x in (tokens, positions)))
    return (logits.argmax(-1)[0] == torch.from_numpy(targets)).double().mean().item()


@pytest.mark.parametrize("mixer", ["attention", "delta_net"])
def test_kept_weights_are_those_that_the_rows_are_of(mixer, tmp_path, monkeypatch):
    """Also of runs that left early, and that went on from a checkpoint."""
    monkeypatch.setitem(STEPS_TO_PAY, "cpu", 1)
    settings = {"epochs": 12, "evaluations": 12, "train_examples": 320, "batch_size": 16}
    settings |= {"stop_at_accuracy": 0.25, "keep": "weights"}
    runs = [small_run(mixer, learning_rate=rate, **settings) for rate in RATES]
    train_into(tmp_path / "whole", runs, slots=3)
    missing = runs
    while missing:
        train_into(tmp_path / "broken", missing, slots=3, stop_after=5)
        finished = finished_run_ids(tmp_path / "broken")
        missing = [run for run in runs if run.run_id not in finished]
    for folder in (tmp_path / "whole", tmp_path / "broken"):
        rows = load_results(folder).runs.set_index("run_id")
        models = load_models(folder)
        assert set(models) == set(rows.index) == {run.run_id for run in runs}
        for run in runs:
            found = accuracy(models[run.run_id], run)
            assert found == pytest.approx(rows.loc[run.run_id, "test_accuracy"])
    assert rows["stopped_at"].notna().any() and rows["stopped_at"].isna().any()


def test_nothing_is_kept_unless_asked_for(tmp_path):
    train_into(tmp_path, [small_run(epochs=1)])
    assert not (tmp_path / "models").exists()
    with pytest.raises(ResultsError, match="no weights here"):
        load_models(tmp_path)


def test_weights_that_cannot_be_read_are_named_and_spoil_no_table(tmp_path):
    run = small_run(epochs=1, keep="weights")
    train_into(tmp_path, [run])
    path = weights_path(tmp_path, run.run_id)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ResultsError, match=f"{path}: is damaged"):
        load_models(tmp_path)
    assert main(["table", str(tmp_path)]) == 0

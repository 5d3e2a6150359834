"""What a worker does with a job, in this process: the same in whatever executor."""

import io
import sys
import warnings
from pathlib import Path

import pytest
from conftest import DOES, small_run

from zoorecall.sweeps.events import (
    Failed,
    Finished,
    JobEvent,
    Measure,
    Measured,
    OutOfMemory,
    Progress,
    Setup,
    Stopped,
    Train,
    Unwritable,
    Warned,
)
from zoorecall.sweeps.executor import perform
from zoorecall.sweeps.plan import PlannedPack


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Performs a job of a mixer whose forward first does what it is given; returns its events."""
    (tmp_path / "does_in_executor.py").write_text(DOES)
    monkeypatch.syspath_prepend(tmp_path)

    def run(code: str, folder: Path = tmp_path, stop: bool = False, measure=False):
        mixer = {"name": "does_in_executor:Does", "options": {"code": code}}
        run = small_run(epochs=1)
        model = {"d_model": 16, "num_layers": 1, "mixer": mixer}
        run = type(run).model_validate({**run.model_dump(), "model": model})
        heard: list[JobEvent] = []
        job = Measure(run) if measure else Train(PlannedPack((run,)))
        perform(job, Setup(folder, "cpu", 1, 60), heard.append, lambda: stop)
        return run, heard

    return run


def test_a_pack_is_trained_or_stopped_and_every_evaluation_told(told):
    run, (*progress, last) = told("pass", stop=True)
    pack_id = PlannedPack((run,)).pack_id
    first = Progress(pack_id, 0, progress[0].accuracy, progress[0].evaluations)
    assert progress == [first] and last == Stopped(pack_id)
    _, (*progress, last) = told("pass")
    assert last == Finished(pack_id) and progress[-1].step == run.train.num_steps


def test_a_run_is_measured(told):
    run, heard = told("pass", measure=True)
    assert heard == [Measured(run.pack_key, heard[0].size)]


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        ("raise ValueError('no such\\nluck')", Failed, "ValueError: no such"),
        ("raise ValueError", Failed, "ValueError: "),
        ("sys.exit(0)", Failed, "SystemExit: 0"),
        ("raise torch.OutOfMemoryError('no more')", OutOfMemory, "OutOfMemoryError: no more"),
    ],
)
def test_whatever_a_mixer_raises_is_the_reason_of_its_pack(code, kind, reason, told, capsys):
    run, heard = told(code)
    assert heard == [kind(PlannedPack((run,)).pack_id, reason)]
    assert "Traceback" in capsys.readouterr().err


def test_a_run_that_cannot_be_measured_ends_its_worker(told):
    with pytest.raises(ValueError, match="no luck"):
        told("raise ValueError('no luck')", measure=True)


def test_a_full_disk_is_reported_though_the_log_is_on_it(told, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(full, write_through=True))
        _, heard = told("pass", folder=tmp_path / "file" / "out")
    assert isinstance(heard[-1], Unwritable) and "cannot be written" in heard[-1].reason


@pytest.mark.parametrize("measure", [False, True])
def test_a_warning_of_the_package_is_an_event_and_another_is_none(measure, told):
    code = "[warnings.warn(*w) for w in (('look\\n out', ZoorecallWarning), ('others',))]"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("default", "others")
        for _ in range(2):  # of each job, once
            run, heard = told(code, measure=measure)
            assert [e for e in heard if isinstance(e, Warned)] == [
                Warned((run.run_id,), "look out")
            ]
    assert {str(warning.message) for warning in caught} == {"others"}

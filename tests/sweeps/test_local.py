"""Worker processes, whatever a user's mixer does to them: never a hang, and none is left alive."""

import os
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import DOES, small_run

from zoorecall.config import RunConfig
from zoorecall.sweeps import local
from zoorecall.sweeps.events import (
    Died,
    Done,
    Finished,
    Interim,
    JobEvent,
    More,
    Raised,
    Train,
)
from zoorecall.sweeps.local import LocalExecutor

CHANNELS = "[int(fd) for fd in os.listdir('/proc/self/fd') if int(fd) > 2]"

EACH = f"""
for fd in {CHANNELS}:
    try:
        {{}}
    except OSError:
        pass
"""

CASES = {
    "prints": "print('printed')",
    "starts a process": "os.system('echo said by a process')",
    "reads its input": "assert sys.stdin.read() == ''",
    "leaves a process behind": "subprocess.Popen(['sleep', '20'], close_fds=False)",
    "writes into every channel": EACH.format("os.write(fd, b'hi\\n')"),
    "closes every channel": EACH.format("os.close(fd)") + "time.sleep(60)",
    "forks and is killed": """
if os.fork():
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(30)
pathlib.Path(__file__).with_name('outlived').touch()
os._exit(0)
""",
    "exits": "sys.exit(0)",
}
GO_ON = list(CASES)[:4]


def run_that(code: str) -> RunConfig:
    """A run whose mixer does this before every forward pass."""
    run = small_run(epochs=1)
    mixer = {"name": "does_in_worker:Does", "options": {"code": code}}
    model = {"d_model": 16, "num_layers": 1, "mixer": mixer}
    return RunConfig.model_validate({**run.model_dump(), "model": model})


def gone_run(place: Path) -> RunConfig:
    """A run whose mixer is there no longer."""
    code = place / "does_no_more.py"
    code.write_text(DOES)
    run = run_that("")
    mixer = run.model.mixer.model_dump() | {"name": "does_no_more:Does", "source": ""}
    run = RunConfig.model_validate(run.model_dump() | {"model": {"mixer": mixer}})
    code.unlink()
    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with the mixer, on the search path."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "does_in_worker.py").write_text(DOES)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder


GONE = "can be imported by the sweep only"

ORPHAN = "hangs while its sweep is killed"

BEGIN_AND = "pathlib.Path('{}').touch(); time.sleep({})"
"""Make a file known, and go on for so long."""


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.05)


class CarriedOut(NamedTuple):
    """How the jobs of all cases ended, by case, and how long it then took to end the workers."""

    endings: dict[str, JobEvent]
    workers: list[local._Worker]
    closing_seconds: float


@pytest.fixture(scope="module")
def carried_out(place) -> CarriedOut:
    """All cases, on two workers. A third has nothing to do; a fourth hangs when nobody is there any
    more to give it orders."""
    waiting, at_work, found = [*CASES, GONE], {3: ORPHAN}, dict[str, JobEvent]()
    gone, workers = gone_run(place), list[local._Worker]()

    class Recorded(local._Worker):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            workers.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "CLOSING_SECONDS", 0.5)
        patch.setattr(local, "_Worker", Recorded)
        with LocalExecutor(["cpu"] * 4, place, 60) as executor:
            executor.give(3, Train((run_that(BEGIN_AND.format(place / "hangs", 3600)),), 1))
            wait_for(place / "hangs")
            executor._workers[3]._waiting.put(None)  # there are no more orders
            while waiting or at_work:
                for worker in {0, 1} - at_work.keys():
                    if waiting:
                        at_work[worker] = waiting.pop(0)
                        case = at_work[worker]
                        run = gone if case == GONE else run_that(CASES[case])
                        executor.give(worker, Train((run,), 1))
                worker, event = executor.event(60)
                if isinstance(event, Finished):
                    executor.give(worker, More(()))
                if not isinstance(event, Interim):
                    found[at_work.pop(worker)] = event
            started = time.monotonic()
    return CarriedOut(found, workers, time.monotonic() - started)


@pytest.fixture(scope="module")
def endings(carried_out) -> dict[str, JobEvent]:
    return carried_out.endings


def test_a_worker_starts_when_first_needed_and_goes_at_once_where_it_has_nothing_to_save(
    carried_out,
):
    deaths = sum(isinstance(event, Died) for event in carried_out.endings.values())
    assert len(carried_out.workers) <= 3 + deaths and carried_out.closing_seconds < 5
    assert all(worker.process.poll() is not None for worker in carried_out.workers)


@pytest.mark.parametrize("case", GO_ON)
def test_a_mixer_may_use_the_standard_streams_and_processes(case, endings):
    assert isinstance(endings[case], Done)


def test_what_is_printed_is_in_the_log(endings, place):
    log = (place / "worker.log").read_text()
    assert "printed\n" in log and "said by a process\n" in log


@pytest.mark.parametrize(
    ("case", "kind", "reason"),
    [
        ("writes into every channel", Died, "channel of events: b'hi' is no message"),
        ("closes every channel", Died, "killed by signal 9"),
        ("forks and is killed", Died, "killed by signal 9 (SIGKILL: out of memory?)"),
        (GONE, Died, "cannot read an order: "),
        (GONE, Died, "No module named 'does_no_more'"),
        (ORPHAN, Died, "ended with exit code 1"),
        ("exits", Raised, "SystemExit: 0"),
    ],
)
def test_a_worker_that_is_lost_is_the_event_that_ends_its_job(case, kind, reason, endings):
    assert isinstance(endings[case], kind) and reason in endings[case].reason


def test_every_case_ends_and_none_waits_for_what_a_worker_forked(endings, place):
    assert set(endings) == {*CASES, GONE, ORPHAN}
    assert not (place / "outlived").exists()


def test_orders_are_given_though_a_worker_listens_late_and_one_that_died_leaves_nothing(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(local, "CHILD", "import time; time.sleep(3)")
    before = len(os.listdir("/proc/self/fd"))
    with LocalExecutor(["cpu"], tmp_path, 60) as executor:
        started = time.monotonic()
        executor.give(0, Train((small_run(),) * 200, 200))  # more than a pipe holds
        assert time.monotonic() - started < 2
        executor.kill(0, "enough")
        assert executor.event(10) == (0, Died("enough")) and executor._workers == {}
        while len(os.listdir("/proc/self/fd")) > before:
            assert time.monotonic() - started < 10
            time.sleep(0.01)

"""Worker processes, whatever a user's mixer does to them: never a hang, and none is left alive."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import DOES, small_run

from zoorecall.config import RunConfig
from zoorecall.sweeps.events import Died, Failed, Finished, Interim, JobEvent, Train
from zoorecall.sweeps.local import LocalExecutor
from zoorecall.sweeps.plan import PlannedPack

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


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with the mixer, on the search path."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "does_in_worker.py").write_text(DOES)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder


@pytest.fixture(scope="module")
def endings(place) -> dict[str, JobEvent]:
    """How the packs of all cases ended, by case."""
    packs = [PlannedPack((run_that(code),)) for code in CASES.values()]
    cases = {pack.pack_id: case for pack, case in zip(packs, CASES, strict=True)}
    found = {}
    with LocalExecutor(["cpu", "cpu"], place, 60) as executor:
        for job, event in executor.carry_out([*map(Train, packs)], lambda jobs: jobs.pop(0)):
            if not isinstance(event, Interim):
                found[cases[job.pack.pack_id]] = event
    return found


@pytest.mark.parametrize("case", GO_ON)
def test_a_mixer_may_use_the_standard_streams_and_processes(case, endings):
    assert isinstance(endings[case], Finished)


def test_what_is_printed_is_in_the_log(endings, place):
    log = (place / "worker.log").read_text()
    assert "printed\n" in log and "said by a process\n" in log


@pytest.mark.parametrize(
    ("case", "kind", "reason"),
    [
        ("writes into every channel", Died, "channel of events: b'hi' is no message"),
        ("closes every channel", Died, "killed by signal 9"),
        ("forks and is killed", Died, "killed by signal 9 (SIGKILL: out of memory?)"),
        ("exits", Failed, "SystemExit: 0"),
    ],
)
def test_a_worker_that_is_lost_is_an_event_of_its_pack(case, kind, reason, endings):
    assert isinstance(endings[case], kind) and reason in endings[case].reason


def test_every_case_ends_and_none_waits_for_what_a_worker_forked(endings, place):
    assert set(endings) == set(CASES)
    assert not (place / "outlived").exists()


LOCKED = "lock = open({path!r}, 'w'); fcntl.flock(lock, fcntl.LOCK_EX); time.sleep(3600)"


def test_a_worker_dies_with_its_sweep_though_its_mixer_hangs(place, tmp_path):
    (tmp_path / "held").touch()
    run = run_that(LOCKED.format(path=str(tmp_path / "held")))
    code = f"""
from pathlib import Path
from zoorecall.config import RunConfig
from zoorecall.sweeps.events import Train
from zoorecall.sweeps.local import LocalExecutor
from zoorecall.sweeps.plan import PlannedPack
job = Train(PlannedPack((RunConfig.model_validate_json({run.model_dump_json()!r}),)))
with LocalExecutor(["cpu"], Path({str(tmp_path)!r}), 60) as executor:
    list(executor.carry_out([job], lambda jobs: jobs.pop(0)))
"""
    path = os.pathsep.join([str(place), *sys.path])
    parent = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path})
    held = (tmp_path / "held").open()

    def wait_until_locked(locked: bool, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(held, fcntl.LOCK_UN)
                found = False
            except BlockingIOError:
                found = True
            if found == locked:
                return True
            time.sleep(0.05)
        return False

    with held:
        assert wait_until_locked(True, 60)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert wait_until_locked(False, 15)

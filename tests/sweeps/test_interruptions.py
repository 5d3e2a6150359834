"""A sweep that is interrupted at random moments, in every way that there is, ends with the table of
one that was not; nothing it had saved is trained again, and no process outlives it."""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from conftest import DOES, small_run

from zoorecall import Grid, RunConfig, load_grid, load_results, sweep, train
from zoorecall.checkpoints import read_checkpoint
from zoorecall.columns import PROVENANCE
from zoorecall.errors import SweepFailed
from zoorecall.results import Results, finished_run_ids

GRID = """
base:
  task: {name: mqar, vocab_size: 32, seq_len: 12, num_kv_pairs: 2}
  model: {d_model: 8, num_layers: 1}
  train: {batch_size: 8, train_examples: 80, test_examples: 24, epochs: EPOCHS, evaluations: 30}
axes:
  model.mixer: MIXERS
  train.learning_rate: [1e-3, 1e-2]
  seed: [1, 2]
"""

TOLD = """
import json, sys
from zoorecall import cli, display
from zoorecall.sweeps.events import Progress
show, told = display.SweepDisplay.show, open(sys.argv.pop(1), "a")
def listen(self, event):
    if isinstance(event, Progress):
        print(json.dumps(event.steps), file=told, flush=True)
    show(self, event)
display.SweepDisplay.show = listen
cli._print_table = cli._draw = lambda *_: None
sys.exit(cli.main())
"""
"""The command, which also writes into a file how far each run is, and draws nothing."""

SOON = 15
"""Seconds in which an interrupted sweep and its workers should have ended."""

AGENTS = b"ray::DashboardAgent", b"ray::RuntimeEnvAgent"
"""Ray's own, which need a minute to find that their node was killed, and end then."""


class Command:
    """A sweep in a process of its own, and in how many workers."""

    def __init__(self, grid: Path, folder: Path, cores: int, more: tuple[str, ...] = ()):
        self.folder, self.steps_file = folder, folder.with_name(f"told.{uuid.uuid4().hex}")
        self.steps_file.touch()
        self._mark = f"INTERRUPTED={uuid.uuid4().hex}"
        name, _, value = self._mark.partition("=")
        words = ["sweep", str(grid), "--out", str(folder), "--device", "cpu", *more]
        self.process = subprocess.Popen(
            [sys.executable, "-c", TOLD, str(self.steps_file), *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {name: value},
            preexec_fn=lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores]),
        )

    def processes(self) -> dict[int, bytes]:
        """The command line of each that lives: they have the mark in their environment."""
        found = {}
        for place in Path("/proc").iterdir():
            if place.name.isdecimal():
                try:
                    state = (place / "stat").read_text().rpartition(")")[2].split()[0]
                    marked = self._mark.encode() in (place / "environ").read_bytes().split(b"\0")
                    words = (place / "cmdline").read_bytes()
                except OSError:
                    continue
                if marked and state not in "ZX":
                    found[int(place.name)] = words
        return found

    def workers(self) -> list[int]:
        """Without the processes of a Ray cluster."""
        found = self.processes().items()
        return [pid for pid, words in found if b"zoorecall.sweeps.child" in words]

    def send(self, number: int, pids: Sequence[int] | None = None) -> None:
        """A signal to these or, as a scheduler does, to the sweep and all its workers."""
        for pid in (self.process.pid, *self.workers()) if pids is None else pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def told(self) -> list[dict[str, int]]:
        """The steps of each run as the sweep told them, in this order; the last line may have met
        a full disk."""
        return [json.loads(line) for line in self.steps_file.read_text().split("\n")[:-1]]

    def wait_for_steps(self) -> None:
        """Until something was trained."""
        while not self.told() and self.process.poll() is None:
            time.sleep(0.02)

    def end(self) -> tuple[int, str]:
        """Its exit code and what it said, once it has ended with all its workers."""
        _, said = self.process.communicate(timeout=90)
        end = time.monotonic() + SOON
        while left := {words.strip(b"\0") for words in self.processes().values()} - {*AGENTS}:
            assert time.monotonic() < end, f"{left} outlive their sweep\n{said}"
            time.sleep(0.02)
        return self.process.returncode, said


def fill_the_disk(command: Command) -> None:
    """A limit on the size of files stands in for a full disk: writing fails in the same way."""
    for pid in command.processes():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))


def interrupt_twice(command: Command) -> None:
    command.process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    command.process.send_signal(signal.SIGINT)


WAYS = {
    "kill": (lambda x: x.process.kill(), {-9}),
    "kill all": (lambda x: x.send(signal.SIGKILL), {-9}),
    "kill a worker": (lambda x: x.send(signal.SIGKILL, x.workers()[:1]), {0}),
    "SIGINT": (lambda x: x.process.send_signal(signal.SIGINT), {130}),
    "SIGINT twice": (interrupt_twice, {130}),
    "SIGTERM": (lambda x: x.process.terminate(), {75}),
    "SIGTERM to all": (lambda x: x.send(signal.SIGTERM), {75}),
    "SIGHUP to all": (lambda x: x.send(signal.SIGHUP), {75}),
    "SIGUSR1 to all": (lambda x: x.send(signal.SIGUSR1), {75}),
    "full disk": (fill_the_disk, {2}),
    "folder removed": (lambda x: shutil.rmtree(x.folder, ignore_errors=True), {0, 2}),
}
"""What is done to a sweep, and the exit codes that it may then have."""

SAVES = [way for way in WAYS if way.startswith("SIG") and way != "SIGINT twice"]


class Story:
    """Sweeps into one folder, one after the other, each interrupted."""

    def __init__(self, grid: Path, folder: Path, cores: int, more: tuple[str, ...] = ()):
        self.grid, self.folder, self.cores, self.more = grid, folder, cores, more
        self.runs = load_grid(grid).runs
        self.interruptions = 0

    def saved(self) -> dict[str, int]:
        """The steps of the runs that have checkpoints."""
        return {
            path.stem: state["step"]
            for path in self.folder.glob("checkpoints/*.pt")
            if (state := read_checkpoint(self.folder, path.stem))
        }

    def finished(self) -> set[str]:
        return finished_run_ids(self.folder)

    def sweep(self, way: str = "", seconds: float = 0) -> bool:
        """Sweep, and interrupt it so long after its first step; says whether it came to its end.
        A signal may come after that, when nothing waits for it any more."""
        before = self.saved()
        command = Command(self.grid, self.folder, self.cores, self.more)
        command.wait_for_steps()
        time.sleep(seconds)
        interrupted = bool(way) and command.process.poll() is None
        if interrupted:
            self.interruptions += 1
            WAYS[way][0](command)
        began = time.monotonic()
        code, said = command.end()
        assert "Traceback" not in said, said
        codes = WAYS[way][1] | {0} if interrupted else {0}
        if way == "full disk" and "ray" in self.more:
            codes |= {1}  # Ray's own services could not write either, and ended the process
        over = len(self.finished()) == len(self.runs)
        if over and interrupted:
            codes |= {-signal.SIGTERM, -signal.SIGHUP, -signal.SIGUSR1, -signal.SIGINT}
        assert code in codes, f"{way}: {code}\n{said}"
        told = command.told()
        for run_id, step in before.items():
            first = next((steps[run_id] for steps in told if run_id in steps), step)
            assert first >= step, f"{way}: {run_id} was saved at {step} and went on before {first}"
        if interrupted and way in SAVES and code > 0:
            assert time.monotonic() - began < SOON
            self._all_is_saved(told, said)
        return over

    def _all_is_saved(self, told: list[dict[str, int]], said: str) -> None:
        """What was trained is finished or has a checkpoint, and the last line says so."""
        saved, finished = self.saved(), self.finished()
        reached = {run_id: step for steps in told for run_id, step in steps.items()}
        for run_id in reached.keys() - finished:
            assert saved.get(run_id, -1) >= reached[run_id], said
        last = said.splitlines()[-1]
        assert f"{len(finished)} of {len(self.runs)} runs are finished" in last
        assert f"{len(saved)} more are saved" in last


def tables(results: Results, run_ids: list[str]) -> tuple[str, str]:
    """All that is not a clock's or a machine's, as text."""
    runs = results.runs.drop(columns=[name for name in PROVENANCE if name in results.runs])
    curves = results.curves.sort_values(["run_id", "step"])
    assert sorted(runs["run_id"]) == sorted(run_ids)
    return runs.sort_values("run_id").to_csv(index=False), curves.to_csv(index=False)


@pytest.fixture
def grid(request, tmp_path) -> Iterator[Path]:
    epochs, mixers = request.param
    path = tmp_path / "tiny.yaml"
    path.write_text(GRID.replace("EPOCHS", str(epochs)).replace("MIXERS", mixers))
    return path


def assert_as_undisturbed(story: Story) -> None:
    ids = [run.run_id for run in story.runs]
    assert tables(load_results(story.folder), ids) == tables(train(story.runs, "cpu"), ids)
    left = [x.name for x in story.folder.rglob("*") if x.suffix in (".tmp", ".pt", ".damaged")]
    assert left == []


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("grid", [(40, "[attention]")], indirect=True)
def test_an_interrupted_sweep_ends_as_one_that_was_not(grid, tmp_path):
    story = Story(grid, tmp_path / "out", 1, ("--checkpoint-seconds", "0"))
    draw = random.Random(0)
    for way in ("kill", "SIGTERM to all"):
        story.sweep(way, draw.uniform(0, 0.3))
    assert story.interruptions == 2, "make the grid longer"
    sweep(load_grid(grid), story.folder, device="cpu")
    assert_as_undisturbed(story)


HOLDS = """
import ctypes
lock, take = ctypes.create_string_buffer(64), ctypes.PyDLL(None).pthread_mutex_lock
take(lock), take(lock)
"""
"""Never returns, and holds Python's lock meanwhile."""


def test_a_worker_that_hangs_is_ended(tmp_path, monkeypatch):
    (tmp_path / "does_in_interrupted.py").write_text(DOES)
    monkeypatch.syspath_prepend(tmp_path)
    mixer = {"name": "does_in_interrupted:Does", "options": {"code": HOLDS}}
    model = {"d_model": 16, "num_layers": 1, "mixer": mixer}
    run = RunConfig.model_validate({**small_run().model_dump(), "model": model})
    with pytest.raises(SweepFailed, match="said nothing for 5 s"):
        sweep(Grid("hangs", (run,)), tmp_path / "out", device="cpu", give_up_seconds=5)


@pytest.mark.slow
def test_a_worker_that_hangs_dies_with_its_sweep():
    code = f"from zoorecall.sweeps.lifeline import hold; hold(); print('held', flush=True){HOLDS}"
    start = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    with subprocess.Popen([sys.executable, "-c", start, code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout.readline() == b"held\n"
        parent.kill()
        parent.stdout.read()  # returns when its child, which has the pipe too, has died


@pytest.mark.slow
@pytest.mark.parametrize("grid", [(60, "[attention, hyena]")], indirect=True)
@pytest.mark.parametrize(("executor", "count"), [("local", 50), ("ray", 50)])
def test_fifty_interruptions(executor, count, grid, tmp_path):
    """A folder is begun anew whenever a sweep comes to its end."""
    draw, interruptions, folders, started = random.Random(1), 0, 0, time.monotonic()
    ways = [*WAYS] * (count // len(WAYS) + 1)
    draw.shuffle(ways)
    while interruptions < count:
        folders += 1
        more = ("--checkpoint-seconds", "0.5", "--executor", executor)
        story = Story(grid, tmp_path / f"out{folders}", 2, more)
        while interruptions + story.interruptions < count:
            way = ways[interruptions + story.interruptions]
            if story.sweep(way, draw.uniform(0, 3)):
                break
        interruptions += story.interruptions
        assert story.sweep()
        assert_as_undisturbed(story)
    print(f"{interruptions} interruptions, {folders} folders, {time.monotonic() - started:.0f} s")

"""A sweep on a Ray cluster: two CPUs of this machine, of which one is lost."""

import os
import signal
import time
import uuid
from collections import deque
from pathlib import Path
from queue import Queue
from unittest.mock import Mock

import pytest
from conftest import small_run

from zoorecall import Grid, sweep, train
from zoorecall.cli import main
from zoorecall.columns import PROVENANCE
from zoorecall.errors import DeviceError, UserError
from zoorecall.sweeps import ray_executor
from zoorecall.sweeps.events import Died, Progress, Retried, Train
from zoorecall.sweeps.ray_executor import RayExecutor

RUNS = tuple(small_run(learning_rate=rate, epochs=60) for rate in (1e-4, 1e-3, 3e-3, 1e-2))


MARK = uuid.uuid4().hex


def actors() -> list[int]:
    """The processes of this cluster's actors, as Ray names them."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdecimal():
            try:
                name = (place / "cmdline").read_bytes()
                marked = MARK.encode() in (place / "environ").read_bytes()
            except OSError:
                continue
            found += [int(place.name)] if marked and name.startswith(b"ray::_Node") else []
    return found


@pytest.fixture
def cluster(monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("ZOORECALL_TEST", MARK)
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=ray_executor.OBJECT_STORE_BYTES,
    )
    yield ray
    ray.shutdown()


def test_an_actor_that_is_killed_costs_nothing_but_time(cluster, tmp_path):
    heard, killed = [], []

    def listen(event):
        heard.append(event)
        if isinstance(event, Progress) and not killed:
            killed.append(actors()[0])
            os.kill(killed[0], signal.SIGKILL)

    found = sweep(
        Grid("ray", RUNS),
        tmp_path,
        device="cpu",
        executor="ray",
        checkpoint_seconds=0,
        on_event=listen,
    )
    (retried,) = (event for event in heard if isinstance(event, Retried))
    assert "its node is lost" in retried.reason and len(retried.run_ids) < len(RUNS)
    expected = train(RUNS, "cpu")
    for name in ("runs", "curves"):
        ours, theirs = (
            getattr(each, name).drop(columns=list(PROVENANCE), errors="ignore")
            for each in (found, expected)
        )
        by = [x for x in ("run_id", "step") if x in ours]
        assert ours.sort_values(by).to_csv(index=False) == theirs.sort_values(by).to_csv(
            index=False
        )
    end = time.monotonic() + 20
    while actors() and time.monotonic() < end:
        time.sleep(0.1)
    assert actors() == []
    with pytest.raises(DeviceError, match="no GPU that is free"):
        RayExecutor(None, "cuda", 1, tmp_path, 60, "worker.log")


def test_a_worker_that_cannot_start_is_an_event(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_executor, "POLL_SECONDS", 0)
    node = ray_executor._Node([], ["cpu"], tmp_path / "none", 60, "worker.log")
    node.give(0, Train(RUNS, 1))
    ((place, event),) = node.events()
    assert place == 0 and isinstance(event, Died) and str(tmp_path / "none") in event.reason


class Cluster:
    """Stands in for Ray: of its actors none answers, and one cannot be ended."""

    def __init__(self):
        self.killed = []

    def get(self, reference):
        raise ConnectionError

    def kill(self, actor):
        self.killed.append(actor)
        if len(self.killed) == 2:
            raise ValueError("no such actor")


def test_an_actor_that_counts_as_lost_is_ended():
    """It may be there yet, and would train the runs that go on elsewhere."""
    executor = RayExecutor.__new__(RayExecutor)
    executor._ray, executor._actors, executor.places = Cluster(), [Mock(), Mock()], ["cpu"] * 2
    executor._busy, executor._lost, executor._due, executor._heard = set(), {}, deque(), Queue()
    for number in range(2):
        executor._listen(number)
        place, died = executor.event(0)
        assert place == number and died.gone and "its node is lost" in died.reason
    assert executor._ray.killed == executor._actors


def test_without_ray_a_sweep_says_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(ray_executor, "find_spec", lambda name: None)
    grid = tmp_path / "grid.yaml"
    grid.write_text("axes: {seed: [1]}\n")
    words = ["--device", "cpu", "--out", str(tmp_path / "out"), "--executor", "ray"]
    assert main(["sweep", str(grid), *words]) == 2
    assert capsys.readouterr().err == "ray is not installed; pip install ray, or zoorecall[ray]\n"


def test_an_address_is_for_ray(tmp_path):
    with pytest.raises(UserError, match="ray"):
        sweep(Grid("local", RUNS), tmp_path, device="cpu", address="auto")

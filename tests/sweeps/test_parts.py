"""Parts of a sweep: shares of a grid that are trained into one folder without any coordination."""

import threading
import time

import pytest
from conftest import small_run

from zoorecall import Grid, load_results, merge, sweep
from zoorecall.cli import main
from zoorecall.errors import Interrupted, ResultsError, UserError
from zoorecall.files import locked
from zoorecall.sweeps import sweeper
from zoorecall.sweeps.events import Progress, Started, Unmerged
from zoorecall.sweeps.plan import RunGroup, share

RUNS = tuple(
    small_run(mixer, learning_rate=rate, epochs=epochs)
    for mixer, epochs in (("attention", 2), ("base_conv", 3))
    for rate in (1e-3, 3e-3, 1e-2)
)
GRID = Grid("parts", RUNS)


def tables(folder):
    return [(folder / name).read_bytes() for name in ("runs.csv", "grid.yaml")]


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 6])
def test_each_run_is_in_one_part_and_parts_have_about_equal_work(parts):
    shares = [share(RUNS, part, parts) for part in range(1, parts + 1)]
    dealt = [run.run_id for each in shares for run in each]
    assert sorted(dealt) == sorted(run.run_id for run in RUNS)
    work = [sum(RunGroup((run,), 1).work for run in each) for each in shares]
    heaviest = max(RunGroup((run,), 1).work for run in RUNS)
    assert max(abs(x - sum(work) / parts) for x in work) <= heaviest and min(work) > 0


def test_a_part_cuts_few_pack_keys():
    keys = [len({run.pack_key for run in share(RUNS, part, 3)}) for part in (1, 2, 3)]
    assert sum(keys) <= 2 + 3 - 1


def test_a_large_grid_is_shared_at_once():
    runs, started = RUNS[:3] * 10_000, time.process_time()
    assert sum(len(share(runs, part, 3)) for part in (1, 2, 3)) == len(runs)
    assert time.process_time() - started < 2


def test_more_parts_than_runs_are_refused():
    with pytest.raises(UserError, match="part 7/7: the grid has 6 runs"):
        share(RUNS, 7, 7)


@pytest.fixture
def whole(tmp_path_factory, in_this_process):
    folder = tmp_path_factory.mktemp("whole")
    sweep(GRID, folder, device="cpu")
    return tables(folder)


def test_parts_one_after_the_other_are_a_whole_sweep(whole, tmp_path):
    heard = []
    for part in (2, 1):
        heard.append([])
        sweep(GRID, tmp_path, device="cpu", part=(part, 2), on_event=heard[-1].append)
    assert heard[0][-1] == Unmerged(tmp_path, len(share(RUNS, 1, 2)))
    assert not any(isinstance(event, Unmerged) for event in heard[1])
    assert tables(tmp_path) == whole
    assert not (tmp_path / "shards").exists() and not (tmp_path / "plan.json").exists()
    again = []
    sweep(GRID, tmp_path, device="cpu", part=(1, 2), on_event=again.append)
    assert [type(event) for event in again] == [Started]


def test_parts_side_by_side_are_a_whole_sweep(whole, tmp_path, monkeypatch):
    """Each waits for the other to begin, so that they overlap; each has a worker process."""
    monkeypatch.undo()
    monkeypatch.setattr(sweeper, "places", lambda device: ["cpu"])
    begun, failed = threading.Barrier(2, timeout=60), []

    def train_part(part):
        def listen(event):
            if isinstance(event, Started):
                begun.wait()

        try:
            sweep(GRID, tmp_path, device="cpu", part=(part, 2), on_event=listen)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=train_part, args=(part,)) for part in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failed == [] and tables(tmp_path) == whole
    assert not (tmp_path / "shards").exists()


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("error", [Interrupted(), SystemExit(-1)], ids=["SIGTERM", "submitit"])
def test_a_part_that_is_terminated_goes_on(error, whole, tmp_path):
    def listen(event):
        if isinstance(event, Progress):
            raise error

    with pytest.raises(type(error)) as raised:
        sweep(GRID, tmp_path, device="cpu", part=(1, 2), on_event=listen)
    saved = len(list(tmp_path.glob("checkpoints/*.pt")))
    assert saved
    if isinstance(error, KeyboardInterrupt):
        runs = len(share(RUNS, 1, 2))
        assert raised.value.__notes__ == [f"0 of {runs} runs are finished, {saved} more are saved"]
    for part in (2, 1):
        sweep(GRID, tmp_path, device="cpu", part=(part, 2))
    assert tables(tmp_path) == whole


@pytest.mark.usefixtures("in_this_process")
def test_what_no_part_merged_merge_does(whole, tmp_path):
    with locked(tmp_path, (3, 3)) as setting_up:
        with setting_up():
            pass
        heard = []
        for part in (1, 2):
            sweep(GRID, tmp_path, device="cpu", part=(part, 3), on_event=heard.append)
    assert isinstance(heard[-1], Unmerged)
    sweep(Grid("rest", tuple(share(RUNS, 3, 3))), tmp_path / "rest", device="cpu")
    merge(tmp_path, [tmp_path / "rest"])
    assert len(load_results(tmp_path)) == len(RUNS)


@pytest.mark.parametrize(
    ("held", "asked", "reason"),
    [
        ((1, 2), None, "another sweep"),
        (None, (1, 2), "a whole sweep"),
        ((1, 2), (1, 2), "part 1/2 is at work here already"),
        ((1, 2), (2, 3), "a part of other than 3"),
    ],
)
def test_what_would_spoil_a_folder_is_refused(held, asked, reason, tmp_path):
    with locked(tmp_path, held) as setting_up:
        with setting_up():
            pass
        with pytest.raises(ResultsError, match=reason):
            sweep(GRID, tmp_path, device="cpu", part=asked)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/", "a/b", "-1/2", "1/2/3"])
def test_a_part_that_is_none_costs_one_line(text, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["sweep", "grid.yaml", f"--part={text}"])
    assert f"'{text}' is no part" in capsys.readouterr().err.splitlines()[-1]


def test_a_part_moves_nothing_aside(tmp_path):
    with pytest.raises(UserError, match="move the folder yourself"):
        sweep(GRID, tmp_path, device="cpu", part=(1, 2), resume=False)

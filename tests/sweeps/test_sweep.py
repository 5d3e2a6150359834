"""The sweep as a user runs it: resumed, on folders that fail, with mixers that do.

It trains in this process where the property is not one of processes.
"""

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import DOES, InThread, finished_runs, small_run, train_into
from malformed_grids import MALFORMED

from zoorecall import Grid, load_grid, load_results, sweep
from zoorecall.checkpoints import write_weights
from zoorecall.cli import main
from zoorecall.errors import ResultsError, SweepFailed, UserError
from zoorecall.files import clear_temporaries, locked
from zoorecall.results import SUBFOLDERS
from zoorecall.sweeps import ray_executor, sweeper
from zoorecall.sweeps.events import Failed, Progress, Reduced, Retried, Started

TINY = """
base:
  task: {name: mqar, vocab_size: 32, seq_len: 12, num_kv_pairs: 2}
  model: {d_model: 8, num_layers: 1}
  train: {batch_size: 8, train_examples: 80, test_examples: 24, epochs: 1, evaluations: 30}
axes:
  model.mixer: [attention, hyena]
  train.learning_rate: {logspace: [1e-3, 1e-1, 3]}
  seed: [1, 2]
"""


ONE_RUN = TINY.replace("[attention, hyena]", "[MIXER]").replace("[1, 2]", "1").replace("3]", "1]")


@pytest.fixture(scope="module")
def grid_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("grid") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def swept(grid_file, tmp_path_factory) -> Path:
    """The folder of a sweep of the grid; tests change copies of it."""
    folder = tmp_path_factory.mktemp("swept") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeper, "LocalExecutor", InThread)
        sweep(load_grid(grid_file), folder, device="cpu")
    return folder


def command(grid: Path, folder: Path, *more: str) -> list[str]:
    words = ["sweep", str(grid), "--out", str(folder), "--device", "cpu", *more]
    return [sys.executable, "-m", "zoorecall.cli", *words]


COMPLETE = {"grid.yaml", "runs.parquet", "curves.parquet", "runs.csv", "provenance.csv"}


def files_of(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock", ".lock.setup", "worker.log"}


@pytest.mark.usefixtures("in_this_process")
def test_a_sweep_from_python_reports_events_and_trains_only_what_is_missing(
    grid_file, swept, tmp_path
):
    assert files_of(swept) == COMPLETE
    folder, events = shutil.copytree(swept, tmp_path / "out"), []
    more = load_grid(grid_file, ["seed=[1,2,3]"])
    results = sweep(more, folder, device="cpu", on_event=events.append)
    assert isinstance(events[0], Started) and events[0].finished_runs == 12
    assert any(isinstance(event, Progress) for event in events)
    assert {run.seed for run in finished_runs(events)} == {3} and len(finished_runs(events)) == 6
    assert sorted(results.runs["run_id"]) == sorted(run.run_id for run in more.runs)
    assert files_of(folder) == COMPLETE
    again = load_grid(folder / "grid.yaml").runs
    assert {run.run_id for run in again} == set(results.runs["run_id"])


def test_a_run_that_is_given_twice_is_one_and_there_are_no_more_workers_than_runs_left(
    tmp_path, monkeypatch
):
    started = []

    class Recorded(InThread):
        def __init__(self, places, *arguments):
            super().__init__(places, *arguments)
            started.append(len(places))

    monkeypatch.setattr(sweeper, "LocalExecutor", Recorded)
    monkeypatch.setattr(sweeper, "places", lambda device: ["cpu"] * 4)
    runs = [small_run(seed=seed, epochs=0.2, evaluations=1) for seed in range(3)]
    for given in ((runs[0], runs[0]), (runs[0], runs[0], *runs[1:], runs[1])):
        found = sweep(Grid("twice", given), tmp_path, device="cpu")
        assert sorted(found.runs["run_id"]) == sorted({run.run_id for run in given})
    monkeypatch.setattr(ray_executor, "find_spec", lambda name: None)
    sweep(Grid("twice", tuple(runs)), tmp_path, device="cpu", executor="ray")  # needs no cluster
    assert started == [1, 2, 0]


@pytest.mark.usefixtures("in_this_process")
def test_shards_of_parts_trained_elsewhere_are_a_whole_sweep(grid_file, swept, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for mixer, folder in (("hyena", other), ("attention", one)):
        train_into(folder, load_grid(grid_file, (f"model.mixer={mixer}",)).runs)
    for shard in (other / "shards").glob("*.parquet"):
        shutil.copy(shard, one / "shards")
    events = []
    sweep(load_grid(grid_file), one, device="cpu", on_event=events.append)
    assert [type(event) for event in events] == [Started] and events[0].finished_runs == 12
    assert (one / "runs.csv").read_bytes() == (swept / "runs.csv").read_bytes()


def test_a_row_says_what_was_trained_and_how_it_went(swept):
    results = load_results(swept)
    row = results.runs.iloc[0]
    config = {name for name in results.runs if name.split(".")[0] in ("task", "model", "train")}
    assert {"task.seq_len", "model.d_model", "train.learning_rate"} <= config
    for name in ("parameters", "state_size", "forward_flops", "seconds", "tokens_per_second"):
        assert row[name] > 0, name
    assert row["device"] and row["torch_version"] and row["num_steps"] == 10
    curve = results.curves[results.curves["run_id"] == row["run_id"]]
    assert curve["step"].iloc[0] == 0 and curve["step"].iloc[-1] == 10
    assert curve["test_accuracy"].iloc[-1] == row["test_accuracy"]
    assert row["best_test_accuracy"] == curve["test_accuracy"].max()
    csv = pd.read_csv(swept / "runs.csv")
    assert len(csv) == 12 and "seconds" not in csv


@pytest.mark.usefixtures("in_this_process")
def test_fresh_moves_earlier_results_aside(grid_file, swept, tmp_path, capsys):
    folder = shutil.copytree(swept, tmp_path / "out")
    (folder / "notes").write_text("mine")
    assert main([*command(grid_file, folder)[3:], "--fresh"]) == 0
    assert (tmp_path / "out.1" / "notes").exists()
    assert files_of(folder) == COMPLETE | {"learning_rates.png"}
    for path in (tmp_path / "out.1", folder):
        assert (path / "runs.csv").read_bytes() == (swept / "runs.csv").read_bytes()
    capsys.readouterr()


def test_a_dry_run_prints_the_plan_and_writes_nothing(grid_file, tmp_path, capsys):
    folder = tmp_path / "out"
    assert main([*command(grid_file, folder)[3:], "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "12 runs of 2 shapes on cpu" in printed and "hyena" in printed and not folder.exists()
    assert "hours are not known" in printed  # nobody has measured steps that small


@pytest.mark.parametrize("columns", [80, 120])
def test_a_plan_is_readable_at_any_width(columns, grid_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    mixers = "model.mixer=[attention, mamba, {name: attention, conv: qkv, rope: true}]"
    assert main([*command(grid_file, tmp_path / "out")[3:], "--dry-run", "--set", mixers]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns and "…" not in "".join(lines)


@pytest.mark.parametrize("case", MALFORMED, ids=lambda case: case.name)
def test_a_malformed_grid_costs_one_line_and_exit_code_2(case, tmp_path, capsys):
    path = tmp_path / "bad.yaml"
    path.write_bytes(case.contents)
    assert main(["sweep", str(path), "--out", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "Traceback" not in err
    assert err.startswith(f"{path}:{case.line}: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [["table"], ["plot"]])
def test_a_results_folder_that_is_not_there_or_is_broken_costs_one_line(
    arguments, tmp_path, capsys
):
    missing, broken = tmp_path / "missing", tmp_path / "broken"
    (broken / "shards").mkdir(parents=True)
    (broken / "shards" / "x.parquet").write_bytes(b"PAR1 not really")
    for folder in (missing, broken):
        assert main([*arguments, str(folder)]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and str(folder) in err


def test_a_missing_grid_is_one_line_and_exit_code_2(tmp_path, capsys):
    assert main(["sweep", str(tmp_path / "none.yaml")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "none.yaml" in err


@pytest.mark.usefixtures("in_this_process")
def test_a_sweep_clears_what_a_killed_one_was_writing(grid_file, tmp_path):
    (tmp_path / "out" / "shards").mkdir(parents=True)
    for name in (".runs.csv.12.zoorecall.tmp", "shards/.x.parquet.12.zoorecall.tmp"):
        (tmp_path / "out" / name).write_text("half of")

    def look(event):
        assert isinstance(event, Started) and not list((tmp_path / "out").rglob("*.tmp"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(load_grid(grid_file), tmp_path / "out", device="cpu", on_event=look)


def test_a_sweep_clears_no_one_elses_files(tmp_path, monkeypatch):
    ours = (".runs.csv.12.zoorecall.tmp", "models/.x.safetensors.12.zoorecall.tmp")
    theirs = (
        ".thesis.tmp",
        ".runs.csv.12.tmp",
        "shards/.notes.12.tmp",
        "notes/.thesis.tmp",
        "results/other/.runs.csv.12.zoorecall.tmp",  # of another sweep, which is at work
    )
    for name in (*ours, *theirs):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    monkeypatch.chdir(tmp_path)
    clear_temporaries(Path("."), SUBFOLDERS)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.tmp")}
    assert left == set(theirs)


def test_the_folders_of_a_sweep_are_known(tmp_path):
    run = small_run(epochs=1, keep="weights")
    train_into(tmp_path, [run], stop_after=1)
    train_into(tmp_path, [run])
    assert {path.name for path in tmp_path.iterdir()} == set(SUBFOLDERS)


@pytest.mark.parametrize("resume", [True, False])
def test_two_sweeps_do_not_write_to_one_folder(resume, grid_file, tmp_path):
    with locked(tmp_path / "out"), pytest.raises(ResultsError, match="another sweep"):
        sweep(load_grid(grid_file), tmp_path / "out", device="cpu", resume=resume)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["out"]


def test_a_folder_that_is_moved_aside_stays_locked(grid_file, tmp_path):
    (tmp_path / "out").mkdir()

    def look(event):
        assert isinstance(event, Started) and (tmp_path / "out").exists()
        with locked(tmp_path / "out.1"):
            pass

    with pytest.raises(ResultsError, match=r"out\.1: another sweep"):
        sweep(load_grid(grid_file), tmp_path / "out", device="cpu", resume=False, on_event=look)


@pytest.mark.parametrize("folder", [".", "..", "../work"])
def test_the_working_folder_is_not_moved_aside(folder, grid_file, tmp_path, monkeypatch, capsys):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert main(["sweep", str(grid_file), "--out", folder, "--fresh"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith(f"{folder}: ")
    assert Path.cwd() == tmp_path / "work" and not (tmp_path / "work.1").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["sweep", "GRID", "--out", ""],
        ["table", ""],
        ["plot", ""],
        ["plot", "results", "--out", ""],
        ["report", ""],
        ["report", "results", "--out", ""],
        ["bench", "--json", ""],
    ],
)
def test_an_empty_path_is_one_line_and_exit_code_2(arguments, grid_file, capsys):
    words = [str(grid_file) if word == "GRID" else word for word in arguments]
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "empty" in err


def test_an_empty_folder_name_is_refused_in_python_too(grid_file):
    with pytest.raises(ResultsError, match="empty"):
        sweep(load_grid(grid_file), "", device="cpu")


@pytest.mark.parametrize("name", ["", ".", "..", "a/../../b"])
def test_a_grids_name_that_leads_out_of_results_is_refused(grid_file, name):
    with pytest.raises(UserError, match="is no name of a results folder; name one with --out"):
        sweep(Grid(name, load_grid(grid_file).runs), device="cpu")


def test_the_working_folder_hides_no_module_and_its_mixers_are_found(tmp_path):
    for name in ("random", "token", "json", "queue", "einops", "yaml"):
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('the {name} of a user')")
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "class Mine(torch.nn.Linear):\n"
        "    def __init__(self, d_model): super().__init__(d_model, d_model)\n"
    )
    (tmp_path / "g.yaml").write_text(ONE_RUN.replace("MIXER", "'mine:Mine'"))
    done = subprocess.run(
        command(Path("g.yaml"), Path("out")), cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-6000:]
    assert set(load_results(tmp_path / "out").runs["mixer.name"]) == {"mine:Mine"}


@pytest.fixture
def full_disk() -> Iterator[None]:
    """A limit on the size of files stands in for a full disk: writing fails in the same way."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("in_this_process")
def test_a_disk_that_fills_up_loses_nothing_finished(grid_file, tmp_path, capsys, request):
    grid, folder = load_grid(grid_file), tmp_path / "out"
    train_into(folder, grid.runs[:3])
    before = set(load_results(folder).runs["run_id"])
    request.getfixturevalue("full_disk")
    assert main(command(grid_file, folder)[3:]) == 2
    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
    err = capsys.readouterr().err
    assert "cannot be written" in err.splitlines()[-1] and "the same command goes on" in err
    assert before == set(load_results(folder).runs["run_id"]) and len(before) == 3
    assert len(sweep(grid, folder, device="cpu")) == 12


@pytest.mark.usefixtures("full_disk")
def test_weights_that_the_disk_does_not_take_are_no_fault_of_their_run(tmp_path):
    with pytest.raises(ResultsError, match="cannot be written: File too large"):
        write_weights(tmp_path, "run", {"weight": torch.zeros(4096)})
    assert [*tmp_path.rglob("run*")] == []


def test_a_folder_that_cannot_be_written_is_one_line(grid_file, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(command(grid_file, tmp_path / "file" / "out")[3:]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "cannot be written" in err


@pytest.fixture
def sweep_of(tmp_path, monkeypatch):
    """Sweeps attention and a mixer whose forward first does what it is given, or this alone;
    returns the folder, the events, and what the sweep raised."""
    (tmp_path / "does_in_sweep.py").write_text(DOES)
    monkeypatch.delitem(sys.modules, "does_in_sweep", raising=False)  # that of another test
    monkeypatch.syspath_prepend(tmp_path)

    def run(code: str, text: str):
        does = json.dumps({"name": "does_in_sweep:Does", "options": {"code": code}})
        (tmp_path / "g.yaml").write_text(text.replace("hyena", does).replace("MIXER", does))
        events, failed = [], ""
        try:
            sweep(
                load_grid(tmp_path / "g.yaml"),
                tmp_path / "out",
                device="cpu",
                on_event=events.append,
            )
        except SweepFailed as error:
            failed = str(error)
        return tmp_path / "out", events, failed

    return run


@pytest.mark.usefixtures("in_this_process")
def test_a_mixer_that_fails_is_reported_and_the_others_are_kept(sweep_of, grid_file):
    folder, events, failed = sweep_of("raise RuntimeError('no such luck')", TINY)
    assert failed.startswith("6 of 12 runs failed, the first (does_in_sweep:Does")
    assert failed.endswith(f"with: RuntimeError: no such luck; see {folder / 'worker.log'}")
    told = [run_id for event in events if isinstance(event, Failed) for run_id in event.run_ids]
    assert len(told) == len(set(told)) == 6
    assert set(load_results(folder).runs["mixer"]) == {"attention"}
    assert (folder / "runs.csv").exists() and (folder / "plan.json").exists()


def test_a_run_whose_worker_is_killed_goes_on(sweep_of, tmp_path):
    """Real processes. Where it is killed again, see test_schedule.py."""
    died = str(tmp_path / "died")
    code = f"p = pathlib.Path({died!r})\nif not p.exists():\n p.touch()\n os.kill(os.getpid(), 9)"
    folder, events, failed = sweep_of(code, ONE_RUN)
    (retried,) = (event for event in events if isinstance(event, Retried))
    assert retried.reason == "its worker was killed by signal 9 (SIGKILL: out of memory?)"
    assert not failed and len(load_results(folder)) == 1


@pytest.mark.usefixtures("in_this_process")
def test_runs_that_do_not_fit_go_on_in_half_as_many_slots(sweep_of, tmp_path):
    fed = str(tmp_path / "fed")
    code = (
        f"p = pathlib.Path({fed!r})\n"
        "if self.training and not p.exists():\n p.touch()\n raise torch.OutOfMemoryError"
    )
    folder, events, failed = sweep_of(code, TINY.replace("[attention, hyena]", "[MIXER]"))
    (reduced,) = (event for event in events if isinstance(event, Reduced))
    assert len(reduced.run_ids) == 6 and reduced.slots == 3 and not failed
    assert list(load_results(folder).runs["pack_size"]) == [3] * 6


def test_help_is_light():
    """`--help` must not import torch; nor must `import zoorecall`."""
    code = "import sys, zoorecall, zoorecall.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "zoorecall.cli", "--help"], capture_output=True)
    assert done.returncode == 0 and time.monotonic() - started < 1


@pytest.mark.parametrize("style", ["text", "csv", "markdown", "json"])
def test_the_table_comes_in_every_format(style, swept, capsys):
    assert main(["table", str(swept), "--format", style]) == 0
    printed = capsys.readouterr().out
    assert "attention" in printed and "hyena" in printed
    if style == "json":
        rows = json.loads(printed)
        assert len(rows) == 2 and rows[0]["seeds"] == 2

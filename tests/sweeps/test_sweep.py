"""The sweep as a user runs it: real processes, killed and resumed, on folders that fail."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import finished_runs, small_run
from malformed_grids import MALFORMED

from zoorecall import load_grid, load_results, sweep
from zoorecall.cli import main
from zoorecall.errors import ResultsError
from zoorecall.files import clear_temporaries, locked
from zoorecall.results import SUBFOLDERS, read_checkpoint
from zoorecall.sweeps.events import Progress, Started, Train
from zoorecall.sweeps.pack_job import train_pack
from zoorecall.sweeps.plan import PlannedPack
from zoorecall.sweeps.sweeper import _next, plan_packs
from zoorecall.training.trainer import STEPS_TO_PAY

TINY = """
base:
  task: {name: mqar, vocab_size: 32, seq_len: 12, num_kv_pairs: 2}
  model: {d_model: 8, num_layers: 1}
  train: {batch_size: 8, train_examples: 80, test_examples: 24, epochs: EPOCHS, evaluations: 30}
axes:
  model.mixer: [attention, hyena]
  train.learning_rate: {logspace: [1e-3, 1e-1, 3]}
  seed: [1, 2]
"""


@pytest.fixture
def grid_file(tmp_path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.replace("EPOCHS", "4"))
    return path


def command(grid: Path, folder: Path, *more: str) -> list[str]:
    words = ["sweep", str(grid), "--out", str(folder), "--device", "cpu", *more]
    return [sys.executable, "-m", "zoorecall.cli", *words]


def test_a_sweep_killed_at_random_moments_ends_with_the_table_of_one_that_was_not(tmp_path):
    grid = tmp_path / "tiny.yaml"
    grid.write_text(TINY.replace("EPOCHS", "40"))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    started = time.monotonic()
    subprocess.run(command(grid, whole), check=True, capture_output=True)
    seconds = time.monotonic() - started
    draw, codes = random.Random(0), []
    for kind in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen(
            command(grid, broken, "--checkpoint-seconds", "0"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and not codes and not list(broken.glob("checkpoints/*")):
            time.sleep(0.01)  # the first kill comes once there is something to lose
        try:
            codes.append(process.wait(draw.uniform(0.45, 0.8) * seconds if codes else 0))
        except subprocess.TimeoutExpired:
            process.send_signal(kind)
            codes.append(process.wait(60))
    assert codes[0] != 0, "the first kill came after the end: make the grid longer"
    final = subprocess.run(command(grid, broken), capture_output=True, text=True)
    assert final.returncode == 0, final.stderr
    assert (whole / "runs.csv").read_bytes() == (broken / "runs.csv").read_bytes()
    pd.testing.assert_frame_equal(load_results(whole).curves, load_results(broken).curves)
    left = [p.name for p in broken.rglob("*") if p.suffix in (".tmp", ".pt")]
    assert not left


COMPLETE = {"grid.yaml", "runs.parquet", "curves.parquet", "runs.csv", "provenance.csv"}


def files_of(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock", "worker.log"}


def test_a_sweep_from_python_reports_events_and_trains_only_what_is_missing(grid_file, tmp_path):
    grid, events = load_grid(grid_file), []
    results = sweep(grid, tmp_path / "out", device="cpu", on_event=events.append)
    assert isinstance(events[0], Started) and events[0].finished_runs == 0
    assert len(finished_runs(events)) == 12
    assert any(isinstance(e, Progress) for e in events)
    assert sorted(results.runs["run_id"]) == sorted(run.run_id for run in grid.runs)
    assert files_of(tmp_path / "out") == COMPLETE

    more = load_grid(grid_file, ["seed=[1,2,3]"])
    events.clear()
    results = sweep(more, tmp_path / "out", device="cpu", on_event=events.append)
    assert events[0].finished_runs == 12
    assert len(finished_runs(events)) == 6
    assert len(results) == 18 and results.runs["run_id"].is_unique
    assert files_of(tmp_path / "out") == COMPLETE
    again = load_grid(tmp_path / "out" / "grid.yaml").runs
    assert {run.run_id for run in again} == set(results.runs["run_id"])


def test_shards_of_parts_trained_elsewhere_are_a_whole_sweep(grid_file, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for mixer, folder in (("hyena", other), ("attention", one)):
        train_packs(plan_packs(load_grid(grid_file, (f"model.mixer={mixer}",)), "cpu"), folder)
    for shard in (other / "shards").glob("*.parquet"):
        shutil.copy(shard, one / "shards")
    events = []
    sweep(load_grid(grid_file), one, device="cpu", on_event=events.append)
    assert [type(event) for event in events] == [Started] and events[0].finished_runs == 12
    whole = tmp_path / "whole"
    sweep(load_grid(grid_file), whole, device="cpu")
    assert (one / "runs.csv").read_bytes() == (whole / "runs.csv").read_bytes()


def test_runs_that_are_done_leave_their_pack_and_a_stop_in_between_changes_nothing(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(STEPS_TO_PAY, "cpu", 1)
    rates = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    settings = {"epochs": 12, "evaluations": 12, "train_examples": 320, "batch_size": 16}
    settings |= {"stop_at_accuracy": 0.25}
    runs = tuple(small_run("delta_net", learning_rate=rate, **settings) for rate in rates)
    pack, sizes = PlannedPack(runs), set()
    cpu, never = torch.device("cpu"), float("inf")

    def heard(event):
        assert len(event.accuracy) == len(runs)

    train_pack(pack, tmp_path / "whole", cpu, never, heard)
    while not train_pack(pack, tmp_path / "broken", cpu, never, heard, lambda: True):
        saved = read_checkpoint(tmp_path / "broken", pack.pack_id)
        sizes.add(len(saved["trainer"]["curves"]))
        assert len(saved["left"]) + len(saved["trainer"]["curves"]) == len(runs)
    assert max(sizes) == len(runs) and min(sizes) <= len(runs) // 2
    whole, broken = (load_results(tmp_path / name) for name in ("whole", "broken"))
    clocks = ["seconds", "tokens_per_second"]
    pd.testing.assert_frame_equal(whole.runs.drop(columns=clocks), broken.runs.drop(columns=clocks))
    pd.testing.assert_frame_equal(whole.curves, broken.curves)
    assert set(whole.runs["run_id"]) == {run.run_id for run in runs}
    assert whole.runs["stopped_at"].nunique() > 1


@pytest.fixture
def packs() -> list[PlannedPack]:
    """A pack of a task without slices and one of a task with slices."""
    tasks: list[dict] = [{"name": "mqar"}, {"name": "key_value_sum", "recall": "both"}]
    rates = (1e-3, 1e-2)
    return [PlannedPack(tuple(small_run(task=t, learning_rate=r) for r in rates)) for t in tasks]


def train_packs(packs, folder, stopping=lambda: False) -> None:
    for pack in packs:
        train_pack(pack, folder, torch.device("cpu"), float("inf"), lambda *_: None, stopping)


def test_rows_have_the_accuracy_of_each_slice_and_none_where_a_task_has_no_slices(packs, tmp_path):
    names = ["slice.AR.test_accuracy", "slice.non-AR.test_accuracy"]
    train_packs(packs, tmp_path)
    results = load_results(tmp_path)
    for table in (results.runs, results.curves):
        assert [name for name in table if name.startswith("slice")] == names
        assert (table[names].dtypes == "float64").all()
        has_slices = table["run_id"].isin([run.run_id for run in packs[1].runs])
        assert table.loc[has_slices, names].notna().all(axis=None) and has_slices.any()
        assert table.loc[~has_slices, names].isna().all(axis=None) and not has_slices.all()
    last = results.curves.groupby("run_id").last()[names]
    pd.testing.assert_frame_equal(last, results.runs.set_index("run_id")[names])
    for pack in packs:  # in a folder of its own, the same
        train_packs([pack], tmp_path / "alone" / pack.pack_id)
        alone = load_results(tmp_path / "alone" / pack.pack_id).curves
        assert (names[0] in alone) == (pack is packs[1])
        together = results.curves[results.curves["run_id"].isin(alone["run_id"])]
        pd.testing.assert_frame_equal(alone, together[list(alone)].reset_index(drop=True))


def test_rows_of_an_earlier_version_are_read_without_what_it_did_not_measure(packs, tmp_path):
    train_packs(packs, tmp_path)
    new = ["max_loss", "max_grad_norm"]
    now, earlier = load_results(tmp_path).curves, set()
    for shard in (tmp_path / "shards").iterdir():  # first a folder of both versions, then of one
        rows = pd.read_parquet(shard)
        rows.drop(columns=[f"curve.{name}" for name in new]).to_parquet(shard)
        earlier |= set(rows["run_id"])
        expected = now.copy()
        expected.loc[now["run_id"].isin(earlier), new] = float("nan")
        pd.testing.assert_frame_equal(
            load_results(tmp_path).curves, expected, check_like=True, check_exact=True
        )
    assert load_results(tmp_path).curves[new].isna().all(axis=None)


def test_the_last_packs_start_with_the_longest():
    cheap, dear = (small_run("attention", epochs=epochs) for epochs in (2, 4))
    packs = [
        Train(PlannedPack((run.model_copy(update={"seed": i}),)))
        for i in range(3)
        for run in (cheap, dear)
    ]
    waiting = list(packs)
    order = [_next(waiting, 2) for _ in packs]
    assert order == [*packs[:2], packs[3], packs[5], packs[2], packs[4]]


def test_a_row_says_what_was_trained_and_how_it_went(grid_file, tmp_path):
    results = sweep(load_grid(grid_file), tmp_path / "out", device="cpu")
    row = results.runs.iloc[0]
    config = {name for name in results.runs if name.split(".")[0] in ("task", "model", "train")}
    assert {"task.seq_len", "model.d_model", "train.learning_rate"} <= config
    for name in ("parameters", "state_size", "forward_flops", "seconds", "tokens_per_second"):
        assert row[name] > 0, name
    assert row["device"] and row["torch_version"] and row["num_steps"] == 40
    curve = results.curves[results.curves["run_id"] == row["run_id"]]
    assert curve["step"].iloc[0] == 0 and curve["step"].iloc[-1] == 40
    assert curve["test_accuracy"].iloc[-1] == row["test_accuracy"]
    assert row["best_test_accuracy"] == curve["test_accuracy"].max()
    csv = pd.read_csv(tmp_path / "out" / "runs.csv")
    assert len(csv) == 12 and "seconds" not in csv


def test_fresh_moves_earlier_results_aside(grid_file, tmp_path, capsys):
    folder = tmp_path / "out"
    assert main(command(grid_file, folder)[3:]) == 0
    before = (folder / "runs.csv").read_bytes()
    assert main([*command(grid_file, folder)[3:], "--fresh"]) == 0
    assert (tmp_path / "out.1" / "runs.csv").read_bytes() == before
    assert (folder / "runs.csv").read_bytes() == before
    capsys.readouterr()


def test_a_dry_run_prints_the_plan_and_writes_nothing(grid_file, tmp_path, capsys):
    folder = tmp_path / "out"
    assert main([*command(grid_file, folder)[3:], "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "12 runs in" in printed and "hyena" in printed and not folder.exists()
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
    pack = PlannedPack((small_run(epochs=1, keep="weights"),))
    train_packs([pack], tmp_path, stopping=lambda: True)
    train_packs([pack], tmp_path)
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


def test_the_working_folder_hides_no_module_and_its_mixers_are_found(tmp_path):
    for name in ("random", "token", "json", "queue", "einops", "yaml"):
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('the {name} of a user')")
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "class Mine(torch.nn.Linear):\n"
        "    def __init__(self, d_model): super().__init__(d_model, d_model)\n"
    )
    text = TINY.replace("EPOCHS", "1").replace("[attention, hyena]", "['mine:Mine']")
    (tmp_path / "g.yaml").write_text(text.replace("[1, 2]", "1").replace("3]", "1]"))
    done = subprocess.run(
        command(Path("g.yaml"), Path("out")), cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-6000:]
    assert set(load_results(tmp_path / "out").runs["mixer.name"]) == {"mine:Mine"}


def test_a_disk_that_fills_up_loses_nothing_finished(tmp_path):
    """A limit on the size of files stands in for a full disk: writing fails in the same way."""
    grid, folder = tmp_path / "tiny.yaml", tmp_path / "out"
    grid.write_text(TINY.replace("EPOCHS", "4"))
    half = command(grid, folder, "--set", "seed=1")
    assert subprocess.run(half, capture_output=True).returncode == 0
    before = load_results(folder).runs

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    full = subprocess.run(command(grid, folder), capture_output=True, text=True, preexec_fn=limit)
    assert full.returncode == 2, full.stderr
    assert "cannot be written" in full.stderr and "Traceback" not in full.stderr
    assert set(before["run_id"]) <= set(load_results(folder).runs["run_id"])
    again = subprocess.run(command(grid, folder), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert len(load_results(folder)) == 12


def test_a_folder_that_cannot_be_written_is_one_line(grid_file, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(command(grid_file, tmp_path / "file" / "out")[3:]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "cannot be written" in err


def test_a_pack_whose_mixer_fails_is_reported_and_the_others_are_kept(tmp_path, capsys):
    (tmp_path / "broken_mixer.py").write_text(
        "import torch\n"
        "class Broken(torch.nn.Module):\n"
        "    def __init__(self, d_model): super().__init__()\n"
        "    def forward(self, x): raise RuntimeError('no such luck')\n"
    )
    path = tmp_path / "g.yaml"
    path.write_text(TINY.replace("EPOCHS", "1").replace("hyena", "{name: 'broken_mixer:Broken'}"))
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command(path, tmp_path / "out"), env=env, capture_output=True, text=True)
    assert done.returncode == 1 and "no such luck" in done.stderr
    assert set(load_results(tmp_path / "out").runs["mixer"]) == {"attention"}


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_pack_whose_worker_is_killed_goes_on_once(deaths, tmp_path):
    (tmp_path / "deadly.py").write_text(
        "import os, pathlib, signal, torch\n"
        "class Deadly(torch.nn.Linear):\n"
        "    def __init__(self, d_model): super().__init__(d_model, d_model)\n"
        "    def forward(self, x):\n"
        "        died = sorted(pathlib.Path(__file__).parent.glob('death*'))\n"
        f"        if len(died) < {deaths}:\n"
        "            pathlib.Path(__file__).with_name(f'death{len(died)}').touch()\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return super().forward(x)\n"
    )
    path = tmp_path / "g.yaml"
    text = TINY.replace("EPOCHS", "1").replace("[attention, hyena]", "['deadly:Deadly']")
    path.write_text(text.replace("[1, 2]", "1").replace("3]", "1]"))
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command(path, tmp_path / "out"), env=env, capture_output=True, text=True)
    assert "killed by signal 9 (SIGKILL: out of memory?); it goes on" in done.stderr, done.stderr
    assert done.returncode == deaths - 1, done.stderr
    assert done.stderr.count("failed: its worker was killed") == deaths - 1


def test_a_pack_that_runs_out_of_memory_goes_on_as_two(tmp_path):
    (tmp_path / "hungry.py").write_text(
        "import pathlib, torch\n"
        "class Hungry(torch.nn.Linear):\n"
        "    def __init__(self, d_model): super().__init__(d_model, d_model)\n"
        "    def forward(self, x):\n"
        "        fed = pathlib.Path(__file__).with_name('fed')\n"
        "        if self.training and not fed.exists():\n"
        "            fed.touch()\n"
        "            raise torch.OutOfMemoryError('no more')\n"
        "        return super().forward(x)\n"
    )
    path = tmp_path / "g.yaml"
    path.write_text(TINY.replace("EPOCHS", "1").replace("[attention, hyena]", "['hungry:Hungry']"))
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command(path, tmp_path / "out"), env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "6 runs go on as 3 and 3" in done.stderr, done.stderr
    assert list(load_results(tmp_path / "out").runs["pack_size"]) == [3] * 6


def test_help_is_light():
    """`--help` must not import torch; nor must `import zoorecall`."""
    code = "import sys, zoorecall, zoorecall.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "zoorecall.cli", "--help"], capture_output=True)
    assert done.returncode == 0 and time.monotonic() - started < 1


@pytest.mark.parametrize("style", ["text", "csv", "markdown", "json"])
def test_the_table_comes_in_every_format(style, grid_file, tmp_path, capsys):
    folder = tmp_path / "out"
    train_packs(plan_packs(load_grid(grid_file), "cpu"), folder)
    assert main(["table", str(folder), "--format", style]) == 0
    printed = capsys.readouterr().out
    assert "attention" in printed and "hyena" in printed
    if style == "json":
        rows = json.loads(printed)
        assert len(rows) == 2 and rows[0]["seeds"] == 2

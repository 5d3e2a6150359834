"""Damage to any file of a results folder: never a number changed in silence, never a traceback."""

import json
import random
import shutil
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import small_run, train_into

from zoorecall import checkpoints, load_models, load_results, merge, results, sweep
from zoorecall.cli import main
from zoorecall.errors import ResultsError, UserError, ZoorecallWarning
from zoorecall.files import BLANK, MARK, read_sealed
from zoorecall.grid import Grid
from zoorecall.model import kept
from zoorecall.sweeps.events import Started, Warned
from zoorecall.sweeps.pack_job import PackJob
from zoorecall.sweeps.sweeper import plan_groups
from zoorecall.training.trainer import PackTrainer

CPU = torch.device("cpu")
DONE, HALF = (
    tuple(small_run(mixer, learning_rate=rate, keep="weights") for rate in (1e-3, 1e-2))
    for mixer in ("attention", "hyena")
)
GRID = Grid("mine", (*DONE, *HALF))
RUN, FIRST = DONE[0].run_id, HALF[0].run_id
SHARD, MODEL = f"shards/{RUN}.parquet", f"models/{RUN}.safetensors"
CHECKPOINT = f"checkpoints/{FIRST}.pt"
TABLES, PLAN = ("runs.parquet", "curves.parquet"), "plan.json"


@pytest.fixture(scope="session")
def unfinished(tmp_path_factory) -> Path:
    """A folder of finished runs, whose weights are kept, and of some with checkpoints."""
    folder = tmp_path_factory.mktemp("unfinished")
    train_into(folder, DONE)
    train_into(folder, HALF, stop_after=2)
    results.write_plan(folder, [run.run_id for run in GRID.runs])
    return folder


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Path:
    """A folder of the same runs, none of which was stopped."""
    folder = tmp_path_factory.mktemp("whole")
    train_into(folder, GRID.runs)
    return folder


@pytest.fixture(scope="session")
def merged(unfinished, tmp_path_factory) -> Path:
    folder = shutil.copytree(unfinished, tmp_path_factory.mktemp("merged") / "folder")
    merge(folder)
    return folder


@pytest.fixture
def folder(unfinished, tmp_path) -> Path:
    return shutil.copytree(unfinished, tmp_path / "folder")


def flip(content: bytes, bit: int) -> bytes:
    spoiled = bytearray(content)
    spoiled[bit // 8] ^= 1 << bit % 8
    return bytes(spoiled)


def spoiled(content: bytes, count: int, draw: random.Random):
    """`content` with `count` single bits flipped, and some of the mark that says that there is a
    seal; with so many ends, blocks and contents of blocks lost, and blocks overwritten."""
    start, size = content.index(MARK) * 8, len(content) * 8
    bits = [draw.randrange(size) for _ in range(count)]
    for bit in (*bits, *range(start, start + 8 * len(MARK), 11)):
        yield flip(content, bit)
    for _ in range(count):
        at, length = draw.randrange(len(content)), draw.choice([1, 16, 512, 4096])
        yield content[:at]
        yield content[:at] + content[at + length :]
        yield content[:at] + bytes(length) + content[at + length :]
        yield content[:at] + draw.randbytes(length) + content[at + length :]


def in_full(state: dict | None) -> str:
    """The state of a run with every number of its tensors."""
    assert state is not None
    return repr({k: x.tolist() if torch.is_tensor(x) else x for k, x in state.items()})


def told(folder: Path, file: str):
    """What a reader is told by a file, as something that can be compared."""
    if file == PLAN:
        return sorted(results.read_plan(folder))
    if file == CHECKPOINT:
        return in_full(checkpoints.read_checkpoint(folder, FIRST))
    if file == MODEL:
        model = kept.load_model(DONE[0].model_dump_json(), folder / MODEL)
        return repr(list(model.state_dict().items()))
    found = load_results(folder)
    return found.runs.to_json(double_precision=15) + found.curves.to_json(double_precision=15)


@pytest.mark.parametrize("count", [20, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("file", [SHARD, *TABLES, PLAN, MODEL, CHECKPOINT])
def test_no_damage_changes_a_number_in_silence(file, count, unfinished, merged, tmp_path, capsys):
    """The long form prints the numbers of docs/trust.md."""
    folder = shutil.copytree(merged if file in TABLES else unfinished, tmp_path / "folder")
    content, expected, found = (folder / file).read_bytes(), told(folder, file), Counter()
    for damaged in spoiled(content, count, random.Random(file)):
        (folder / file).write_bytes(damaged)
        try:
            assert told(folder, file) == expected
            found["unchanged" if damaged == content else "harmless"] += 1
        except UserError as error:
            assert file in str(error) and "\n" not in str(error)
            found["noticed"] += 1
    assert found["noticed"] > found["harmless"]
    if count == 1000:
        with capsys.disabled():
            print(f"\n{file}: {len(content)} bytes, {dict(found)}")


PLANS = [
    3, None, "a", [], [1], {"planned": None}, {"planned": 3}, {"planned": "a"}, {"planned": {}},
    {"planned": [1]}, {"planned": ["a", None]}, {"planned": [["a"]]},
]  # fmt: skip


@pytest.mark.parametrize("text", [*map(json.dumps, PLANS), "", "{", "\xff", "[" * 100_000])
def test_a_plan_that_is_none_is_named_set_aside_and_made_anew(text, folder, capsys):
    (folder / PLAN).write_text(text, encoding="latin-1")
    for command in ("report", "merge"):
        assert main([command, str(folder)]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"{folder / PLAN}: ") and err.count("\n") == 1
    (line,) = results.set_aside_damaged(folder)
    assert line.startswith(f"{folder / PLAN}: ") and line.endswith("it is now plan.json.damaged")
    assert results.read_plan(folder) == set()
    (group,) = plan_groups(GRID, "cpu", folder)
    assert group.runs == HALF


@pytest.mark.parametrize("plan", [{}, {"a": ["b"]}, {"packs": {"a": ["b"]}}])
def test_a_plan_of_another_version_is_as_good_as_none(plan, folder):
    (folder / PLAN).write_text(json.dumps(plan))
    assert results.read_plan(folder) == set() and results.set_aside_damaged(folder) == []


def spoil_state(folder: Path, change) -> None:
    """A checkpoint as this version seals it, of a state that is not the run's."""
    state = checkpoints.read_checkpoint(folder, FIRST)
    assert state is not None
    change(state)
    checkpoints.write_checkpoint(folder, FIRST, state)


def of_state(**changes):
    """Change parts of the state; None takes one away."""

    def change(state):
        for name, of_old in changes.items():
            old = state.pop(name, None)
            if of_old:
                state[name] = of_old(old)

    return lambda folder: spoil_state(folder, change)


def with_nan(weights):
    weights[3] = float("nan")
    return weights


def each_list(change):
    """Change every list of a curve, by name."""
    return of_state(
        curve=lambda c: {k: change(k, x) if isinstance(x, list) else x for k, x in c.items()}
    )


UNUSABLE = {
    "flipped": lambda f: (f / CHECKPOINT).write_bytes(flip((f / CHECKPOINT).read_bytes(), 99_999)),
    "truncated": lambda f: (f / CHECKPOINT).write_bytes((f / CHECKPOINT).read_bytes()[:500]),
    "empty": lambda f: (f / CHECKPOINT).write_bytes(b""),
    "of an earlier version": lambda f: torch.save({"format": 2}, f / CHECKPOINT),
    "of another format": lambda f: spoil_state(f, lambda state: state.update(format=2)),
    "of another run": lambda f: shutil.copy(
        checkpoints.checkpoint_path(f, HALF[1].run_id), f / CHECKPOINT
    ),
    "another shape": of_state(flat=lambda x: x[:-1]),
    "another type": of_state(flat=lambda x: x.double()),
    "no tensor": of_state(flat=lambda x: x.tolist()),
    "NaN": of_state(flat=with_nan),
    "without weights": of_state(flat=None),
    "without a number": of_state(steps_in_sum=None),
    "more": of_state(more=lambda _: 1),
    "a step behind its curve": of_state(step=lambda step: 0),
    "a step beyond its next evaluation": of_state(step=lambda step: step + 1000),
    "text for a step": of_state(step=str),
    "more steps since an evaluation than steps": of_state(steps_in_sum=lambda n: n + 1000),
    "no modules": of_state(modules=lambda modules: None),
    "other modules": of_state(modules=lambda modules: [{"a": 1}]),
    "no curve": of_state(curve=lambda curve: None),
    "an empty curve": of_state(curve=lambda curve: {}),
    "a curve without evaluations": each_list(lambda name, x: []),
    "a curve that is over": each_list(lambda name, x: [0, 1, 4, 10] if name == "step" else x * 2),
    "unequal lists": each_list(lambda name, x: x * 2 if name == "step" else x),
    "other steps": each_list(lambda name, x: [0, 3] if name == "step" else x),
    "text in a curve": each_list(lambda name, x: ["a"] * len(x) if name == "test_loss" else x),
}


def said_of_checkpoint(folder: Path, text: str) -> None:
    """That it was set aside is said, and true."""
    start, end = f"{folder / CHECKPOINT}: ", f"; it is now {FIRST}.pt.damaged, its run starts anew"
    assert text.startswith(start) and text.endswith(end) and "\n" not in text
    assert (folder / f"{CHECKPOINT}.damaged").exists() and not (folder / CHECKPOINT).exists()


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_checkpoint_that_cannot_be_used_counts_as_absent_and_is_named(name, folder):
    """Its run is where it begins, its neighbour goes on from its own checkpoint."""
    UNUSABLE[name](folder)
    with pytest.warns(ZoorecallWarning) as said:
        job = PackJob(HALF, 2, CPU, folder)
    said_of_checkpoint(folder, *(str(warning.message) for warning in said))
    job.save()
    states = [checkpoints.read_checkpoint(folder, run.run_id) for run in HALF]
    assert states[1]["step"] > 0
    fresh = PackTrainer(HALF, CPU)
    assert in_full(states[0]) == in_full(fresh.state(fresh.slots[0]))


@pytest.mark.parametrize("name", ["NaN", "truncated"])
def test_a_run_whose_checkpoint_cannot_be_used_ends_as_one_that_was_never_stopped(
    name, folder, whole
):
    UNUSABLE[name](folder)
    said = [event.text for event in train_into(folder, HALF) if isinstance(event, Warned)]
    said_of_checkpoint(folder, *said)
    curves, expected = (load_results(x).curves for x in (folder, whole))
    pd.testing.assert_frame_equal(curves, expected, check_exact=True)


def test_a_run_that_diverged_may_have_any_weights(folder):
    """NaN is none of a checkpoint's faults where the run is known to have diverged."""
    of_state(flat=with_nan, diverged_at=lambda step: step * 0 + 1)(folder)
    assert PackJob(HALF, 2, CPU, folder).steps[FIRST] > 0


def flip_middle(path: Path) -> None:
    path.write_bytes(flip(content := path.read_bytes(), 4 * len(content)))


@pytest.mark.usefixtures("in_this_process")
def test_a_sweep_sets_aside_what_is_damaged_and_ends_as_an_undisturbed_one(folder, whole):
    files = (SHARD, PLAN, CHECKPOINT, MODEL)
    for file in files:
        flip_middle(folder / file)
    expected, events = load_results(whole), []
    found = sweep(GRID, folder, device="cpu", on_event=events.append)
    said = [event.text for event in events if isinstance(event, Warned)]
    assert len(said) == len(files)
    for file in files:
        assert any(line.startswith(f"{folder / file}: is damaged") for line in said)
        assert (folder / f"{file}.damaged").exists()
    pd.testing.assert_frame_equal(found.curves, expected.curves)
    assert len(load_models(folder)) == 4


def test_curves_that_are_damaged_take_their_rows_with_them(merged, tmp_path, capsys):
    folder = shutil.copytree(merged, tmp_path / "folder")
    flip_middle(folder / "curves.parquet")
    for command in ("table", "plot", "report", "merge"):
        assert main([command, str(folder)]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"{folder / 'curves.parquet'}: is damaged") and err.count("\n") == 1
    assert len(results.set_aside_damaged(folder)) == 1
    assert sorted(path.name for path in folder.glob("*.damaged")) == [
        f"{x}.damaged" for x in sorted(TABLES)
    ]
    assert not results.has_runs(folder)


def test_weights_that_are_damaged_cost_their_own_run_only(merged, tmp_path):
    folder = shutil.copytree(merged, tmp_path / "folder")
    (folder / MODEL).write_bytes((folder / MODEL).read_bytes()[:-1])
    assert main(["table", str(folder)]) == 0
    (line,) = results.set_aside_damaged(folder)
    assert line.startswith(f"{folder / MODEL}: is damaged")
    assert results.finished_run_ids(folder) == {DONE[1].run_id}
    assert results.set_aside_damaged(folder) == []
    other = folder / f"models/{DONE[1].run_id}.safetensors"
    other.write_bytes(b"")
    results.set_aside_damaged(folder)
    assert results.finished_run_ids(folder) == set() and not results.has_runs(folder)


def test_weights_of_another_run_are_named(merged, whole, tmp_path):
    folder = shutil.copytree(merged, tmp_path / "folder")
    shutil.copy(whole / f"models/{FIRST}.safetensors", folder / MODEL)
    with pytest.raises(ResultsError, match=f"{MODEL}: cannot be read as the weights of its run"):
        load_models(folder)


def test_the_grid_keeps_the_runs_of_a_table_that_is_set_aside(merged, tmp_path):
    """A sweep of some of a folder's runs: the other runs stay in its grid.yaml, to train again."""
    from zoorecall import load_grid

    folder = shutil.copytree(merged, tmp_path / "folder")
    before = {run.run_id for run in load_grid(folder / "grid.yaml").runs}
    (folder / "runs.parquet").write_bytes(b"PAR1")

    def look(event):
        if isinstance(event, Started):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(Grid("mine", HALF), folder, device="cpu", on_event=look)
    after = {run.run_id for run in load_grid(folder / "grid.yaml").runs}
    assert after == before | {run.run_id for run in HALF} != before


def test_a_merge_seals_tables_of_an_earlier_version_once(merged, tmp_path):
    folder = shutil.copytree(merged, tmp_path / "folder")
    for name in TABLES:
        pd.read_parquet(folder / name).to_parquet(folder / name, index=False)
    merge(folder)
    assert all((folder / name).read_bytes() == (merged / name).read_bytes() for name in TABLES)


def test_every_file_that_a_sweep_goes_on_from_is_sealed(unfinished, merged):
    for folder, files in ((unfinished, (SHARD, PLAN, MODEL, CHECKPOINT)), (merged, TABLES)):
        for file in files:
            assert BLANK not in read_sealed(folder / file)

"""Damage to any file of a results folder: never a number changed in silence, never a traceback."""

import copy
import json
import random
import shutil
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import small_run

from zoorecall import load_models, load_results, merge, results, sweep
from zoorecall.cli import main
from zoorecall.errors import DamagedError, ResultsError, UserError, ZoorecallWarning
from zoorecall.files import BLANK, MARK, read_sealed
from zoorecall.grid import Grid
from zoorecall.model import kept
from zoorecall.sweeps.events import Setup, Started, Train, Warned
from zoorecall.sweeps.executor import perform
from zoorecall.sweeps.pack_job import train_pack
from zoorecall.sweeps.plan import PlannedPack
from zoorecall.sweeps.sweeper import plan_packs

CPU = torch.device("cpu")
DONE, HALF = (
    PlannedPack(
        tuple(small_run(mixer, learning_rate=rate, keep="weights") for rate in (1e-3, 1e-2))
    )
    for mixer in ("attention", "hyena")
)
RUN = DONE.runs[0].run_id
SHARD, MODEL = f"shards/{DONE.pack_id}.parquet", f"models/{RUN}.safetensors"
CHECKPOINT = f"checkpoints/{HALF.pack_id}.pt"
TABLES, PLAN = ("runs.parquet", "curves.parquet"), "plan.json"


def train(pack: PlannedPack, folder: Path, stopping=lambda: False) -> None:
    train_pack(pack, folder, CPU, float("inf"), lambda *_: None, stopping)


@pytest.fixture(scope="session")
def unfinished(tmp_path_factory) -> Path:
    """A folder of a finished pack, whose weights are kept, and of one with a checkpoint."""
    folder = tmp_path_factory.mktemp("unfinished")
    train(DONE, folder)
    train(HALF, folder, lambda: True)
    results.write_plan(folder, {p.pack_id: [run.run_id for run in p.runs] for p in (DONE, HALF)})
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


def told(folder: Path, file: str):
    """What a reader is told by a file, as something that can be compared."""
    if file == PLAN:
        return json.dumps(results.read_plan(folder))
    if file == CHECKPOINT:
        state = results.read_checkpoint(folder, HALF.pack_id)
        assert state is not None
        return repr(sorted((name, x) for name, x in state["trainer"].items()))
    if file == MODEL:
        return repr(
            list(
                kept.load_model(DONE.runs[0].model_dump_json(), folder / MODEL).state_dict().items()
            )
        )
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
    3, None, "a", [], [1], {"a": 3}, {"a": []}, {"packs": None}, {"packs": 3}, {"packs": []},
    {"packs": {"a": [1]}}, {"packs": {"a": "b"}}, {"packs": {"a": []}}, {"packs": {"a": {"b": 1}}},
    {"packs": {"a": ["x", "x"]}},
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
    assert results.read_plan(folder) == {}
    grid = Grid("mine", (*DONE.runs, *HALF.runs))
    assert [run for pack in plan_packs(grid, "cpu", folder) for run in pack.runs] == [*HALF.runs]


@pytest.mark.parametrize("count", [50, pytest.param(1_000, marks=pytest.mark.slow)])
def test_a_plan_of_any_structure_is_read_or_named(count, folder):
    """Changed as JSON, without a seal; what is read makes packs of the grid's runs, each once."""
    draw, grid = random.Random(0), Grid("mine", HALF.runs)
    plan = {"packs": {p.pack_id: [run.run_id for run in p.runs] for p in (DONE, HALF)}}
    values = [3, None, "a", [], {}, [1], ["a"], True, 1e308, *(run.run_id for run in HALF.runs)]
    for _ in range(count):
        changed = copy.deepcopy(plan)
        for _ in range(draw.randint(1, 3)):
            part, packs = changed, changed.get("packs")
            if isinstance(packs, dict) and packs and draw.random() < 0.8:
                part = packs
                inner = draw.choice([*packs.values()])
                if isinstance(inner, list) and inner and draw.random() < 0.6:
                    inner[draw.randrange(len(inner))] = draw.choice(values)
                    continue
            part[draw.choice([*part, "a"])] = copy.deepcopy(draw.choice(values))
        (folder / PLAN).write_text(json.dumps(changed))
        try:
            packs = plan_packs(grid, "cpu", folder)
        except DamagedError as error:
            assert str(error).startswith(f"{folder / PLAN}: ")
        else:
            runs = [run.run_id for pack in packs for run in pack.runs]
            assert sorted(runs) == sorted(run.run_id for run in HALF.runs)


def spoil_state(folder: Path, change) -> None:
    """A checkpoint as this version seals it, of a state that is not the pack's."""
    state = results.read_checkpoint(folder, HALF.pack_id)
    assert state is not None
    change(state)
    results.write_checkpoint(folder, HALF.pack_id, state)


def of_trainer(**changes):
    """Change parts of the trainer's state; None takes one away."""

    def change(state):
        for name, of_old in changes.items():
            old = state["trainer"].pop(name, None)
            if of_old:
                state["trainer"][name] = of_old(old)

    return lambda folder: spoil_state(folder, change)


def with_nan(weights):
    weights[1, 3] = float("nan")
    return weights


UNUSABLE = {
    "flipped": lambda f: (f / CHECKPOINT).write_bytes(flip((f / CHECKPOINT).read_bytes(), 99_999)),
    "truncated": lambda f: (f / CHECKPOINT).write_bytes((f / CHECKPOINT).read_bytes()[:500]),
    "empty": lambda f: (f / CHECKPOINT).write_bytes(b""),
    "of an earlier version": lambda f: torch.save({"format": 2}, f / CHECKPOINT),
    "of another format": lambda f: spoil_state(f, lambda state: state.update(format=2)),
    "without a part": lambda f: spoil_state(f, lambda state: state.pop("left")),
    "other runs": of_trainer(runs=lambda ids: ids[::-1]),
    "another pack size": of_trainer(flat=lambda x: x[:1]),
    "another shape": of_trainer(flat=lambda x: x[:, :-1]),
    "another type": of_trainer(flat=lambda x: x.double()),
    "no tensor": of_trainer(flat=lambda x: x.tolist()),
    "NaN": of_trainer(flat=with_nan),
    "without weights": of_trainer(flat=None),
    "more": of_trainer(more=lambda _: 1),
    "no evaluation": of_trainer(step=lambda step: step + 1000),
    "text for a step": of_trainer(step=str),
    "text for a stop": of_trainer(stopped_at=lambda stops: ["a"] * len(stops)),
    "no modules": of_trainer(modules=lambda modules: []),
    "other modules": of_trainer(modules=lambda modules: [[{"a": 1}]] * len(modules)),
    "no curves": of_trainer(curves=lambda curves: []),
    "empty curves": of_trainer(curves=lambda curves: [{}] * len(curves)),
    "unequal curves": of_trainer(curves=lambda c: [x | {"step": x["step"] * 2} for x in c]),
    "text in a curve": of_trainer(curves=lambda c: [x | {"test_loss": ["a"]} for x in c]),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_checkpoint_that_cannot_be_used_counts_as_absent_and_is_named(name, folder, tmp_path):
    UNUSABLE[name](folder)
    with pytest.warns(
        ZoorecallWarning, match=f"{CHECKPOINT}: .*; it is now .*damaged, its"
    ) as said:
        train(HALF, folder)
    assert len(said) == 1 and "\n" not in str(said[0].message)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == [
        f"{HALF.pack_id}.pt.damaged"
    ]
    shutil.rmtree(folder / "models")
    train(HALF, tmp_path / "whole")
    curves, expected = (load_results(x).curves for x in (folder, tmp_path / "whole"))
    curves = curves[curves["run_id"].isin(expected["run_id"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(curves, expected, check_exact=True)


def test_a_run_that_diverged_may_have_any_weights(tmp_path):
    """NaN is none of a checkpoint's faults where the loss says so, too."""
    pack = PlannedPack((small_run(learning_rate=1e30), small_run(learning_rate=1e-3)))
    for _ in range(9):
        train(pack, tmp_path, stopping=lambda: True)
    assert len(load_results(tmp_path)) == 2


def test_a_worker_says_which_checkpoint_it_could_not_use(folder):
    UNUSABLE["flipped"](folder)
    events = []
    perform(Train(HALF), Setup(folder, "cpu", 1, 60), events.append, lambda: False)
    (warned,) = (event for event in events if isinstance(event, Warned))
    assert f"{CHECKPOINT}: is damaged, as its checksum tells; it is now " in warned.text


def flip_middle(path: Path) -> None:
    path.write_bytes(flip(content := path.read_bytes(), 4 * len(content)))


def test_a_sweep_sets_aside_what_is_damaged_and_ends_as_an_undisturbed_one(folder, tmp_path):
    files = (SHARD, PLAN, CHECKPOINT, MODEL)
    for file in files:
        flip_middle(folder / file)
    for pack in (DONE, HALF):
        train(pack, tmp_path / "whole")
    expected, events = load_results(tmp_path / "whole"), []
    grid = Grid("mine", (*DONE.runs, *HALF.runs))
    found = sweep(grid, folder, device="cpu", on_event=events.append)
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
    assert results.finished_run_ids(folder) == {DONE.runs[1].run_id}
    assert results.set_aside_damaged(folder) == []
    other = folder / f"models/{DONE.runs[1].run_id}.safetensors"
    other.write_bytes(b"")
    results.set_aside_damaged(folder)
    assert results.finished_run_ids(folder) == set() and not results.has_runs(folder)


def test_weights_of_another_run_are_named(merged, tmp_path):
    folder = shutil.copytree(merged, tmp_path / "folder")
    train(HALF, tmp_path / "other")
    other = tmp_path / "other" / f"models/{HALF.runs[0].run_id}.safetensors"
    shutil.copy(other, folder / MODEL)
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
        sweep(Grid("mine", HALF.runs), folder, device="cpu", on_event=look)
    after = {run.run_id for run in load_grid(folder / "grid.yaml").runs}
    assert after == before | {run.run_id for run in HALF.runs} != before


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

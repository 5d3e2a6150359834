"""A folder's two tables and its grid: no row is lost or there twice, whatever happens when."""

import shutil

import pandas as pd
import pytest
from conftest import small_run, train_into

from zoorecall import load_grid, load_results, merge, results
from zoorecall.checkpoints import write_checkpoint
from zoorecall.cli import main
from zoorecall.columns import TASK_SIZES
from zoorecall.errors import ResultsError, ZoorecallWarning
from zoorecall.grid import Grid
from zoorecall.results import read_plan, write_plan
from zoorecall.sweeps.merging import HEADER, write_grid
from zoorecall.sweeps.sweeper import plan_groups

TASKS = ({"name": "mqar"}, {"name": "key_value_sum", "recall": "both"})
FIRST, SECOND = (
    [small_run(task=task, learning_rate=rate) for rate in (1e-3, 1e-2)] for task in TASKS
)
BOTH = (*FIRST, *SECOND)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder of two shards: of a task without slices and of one with slices."""
    folder = tmp_path_factory.mktemp("trained") / "folder"
    train_into(folder, BOTH)
    write_plan(folder, ids(BOTH))
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "folder")


def copy_shard(runs, folder, other) -> None:
    (other / "shards").mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "shards" / f"{runs[0].run_id}.parquet", other / "shards")


def assert_same(folder, other) -> None:
    """Both hold the same runs and curves, to the bit."""
    one, two = load_results(folder), load_results(other)
    assert one.runs["run_id"].is_unique
    pd.testing.assert_frame_equal(one.runs, two.runs, check_exact=True, check_like=True)
    pd.testing.assert_frame_equal(one.curves, two.curves, check_exact=True, check_like=True)


def ids(runs) -> list[str]:
    return [run.run_id for run in runs]


def ids_of_grid(folder) -> set[str]:
    return {*ids(load_grid(folder / "grid.yaml").runs)}


@pytest.mark.parametrize("length", [0, 20, 300])
def test_a_grid_that_was_cut_short_is_set_aside_and_written_anew(folder, length):
    merge(folder)
    path = folder / "grid.yaml"
    whole = path.read_text()
    path.write_text(whole[:length])
    with pytest.warns(ZoorecallWarning, match=r"grid\.yaml.*it is now grid\.yaml\.damaged"):
        merge(folder)
    assert path.read_text() == whole and (folder / "grid.yaml.damaged").exists()


def test_merged_tables_say_what_the_shards_said_and_take_their_place(trained, folder):
    merge(folder)
    assert_same(folder, trained)
    left = {path.name for path in folder.iterdir()} - {".lock", ".lock.setup"}
    tables = {"runs.parquet", "curves.parquet"}
    assert left == {"grid.yaml", "runs.csv", "provenance.csv", *tables}
    curves = pd.read_parquet(folder / "curves.parquet")
    assert list(curves)[:2] == ["run_id", "step"] and "slice.AR.test_accuracy" in curves
    assert ids_of_grid(folder) == set(curves["run_id"]) == {*ids(BOTH)}
    before = {path: path.read_bytes() for path in folder.iterdir()}
    merge(folder)
    assert before == {path: path.read_bytes() for path in folder.iterdir()}


def test_rows_have_the_accuracy_of_each_slice_and_none_where_a_task_has_no_slices(
    trained, tmp_path
):
    names = ["slice.AR.test_accuracy", "slice.non-AR.test_accuracy"]
    both = load_results(trained)
    for table in (both.runs, both.curves):
        assert [name for name in table if name.startswith("slice")] == names
        assert (table[names].dtypes == "float64").all()
        has_slices = table["run_id"].isin(ids(SECOND))
        assert table.loc[has_slices, names].notna().all(axis=None) and has_slices.any()
        assert table.loc[~has_slices, names].isna().all(axis=None) and not has_slices.all()
    last = both.curves.groupby("run_id").last()[names]
    pd.testing.assert_frame_equal(last, both.runs.set_index("run_id")[names])
    for runs in (FIRST, SECOND):  # in a folder of its own, the same
        copy_shard(runs, trained, tmp_path / runs[0].run_id)
        alone = load_results(tmp_path / runs[0].run_id).curves
        assert (names[0] in alone) == (runs is SECOND)
        together = both.curves[both.curves["run_id"].isin(alone["run_id"])]
        pd.testing.assert_frame_equal(alone, together[list(alone)].reset_index(drop=True))


def test_rows_of_an_earlier_version_are_read_without_what_it_did_not_measure(folder):
    new = ["max_loss", "max_grad_norm"]
    now, earlier = load_results(folder).curves, set()
    for shard in (folder / "shards").iterdir():  # first a folder of both versions, then of one
        rows = pd.read_parquet(shard)
        rows.drop(columns=[f"curve.{name}" for name in new]).to_parquet(shard)
        earlier |= set(rows["run_id"])
        expected = now.copy()
        expected.loc[now["run_id"].isin(earlier), new] = float("nan")
        pd.testing.assert_frame_equal(
            load_results(folder).curves, expected, check_like=True, check_exact=True
        )
    assert load_results(folder).curves[new].isna().all(axis=None)


def test_shards_that_say_their_sizes_are_read_with_one_that_does_not(folder):
    now = load_results(folder)
    one, other = (folder / "shards").iterdir()
    pd.read_parquet(one).drop(columns=list(TASK_SIZES)).to_parquet(one)
    pd.testing.assert_frame_equal(load_results(folder).runs, now.runs)
    pd.read_parquet(other).rename(index=lambda i: i + 7).rename_axis("mine").to_parquet(other)
    pd.testing.assert_frame_equal(load_results(folder).runs, now.runs)


def test_a_shard_that_is_replaced_is_read_again(folder):
    path = next((folder / "shards").iterdir())
    rows, before = pd.read_parquet(path), load_results(folder).runs
    rows.assign(seconds=before["seconds"].max() + 5).to_parquet(path)
    assert load_results(folder).runs["seconds"].max() == before["seconds"].max() + 5


def test_shards_whose_columns_are_of_other_types_are_one_table_or_an_error_that_says_so(folder):
    one, other = sorted((folder / "shards").iterdir())
    now = load_results(folder).runs
    rows = pd.read_parquet(one)
    rows.assign(seconds=rows["seconds"].astype("float32")).to_parquet(one)
    assert load_results(folder).runs["seconds"].to_numpy() == pytest.approx(now["seconds"])
    rows.assign(note="text").to_parquet(one)
    assert len(load_results(folder)) == len(now)
    rows = pd.read_parquet(other)
    rows.assign(note=[[1]] * len(rows)).to_parquet(other)
    with pytest.raises(
        ResultsError, match=rf"{other.name}: differs from the files beside it: .* note"
    ):
        load_results(folder)


@pytest.mark.parametrize("written", [["curves.parquet"], ["curves.parquet", "runs.parquet"]])
@pytest.mark.parametrize("merged_before", [False, True])
def test_a_crash_in_a_merge_loses_and_doubles_no_row(written, merged_before, trained, tmp_path):
    """What it leaves: some of the tables of after, all shards, the tables of before if any."""
    after = shutil.copytree(trained, tmp_path / "after")
    merge(after)
    broken = tmp_path / "broken"
    if merged_before:
        copy_shard(FIRST, trained, broken)
        merge(broken)
    for runs in (FIRST, SECOND):
        copy_shard(runs, trained, broken)
    for name in written:
        shutil.copy(after / name, broken)
    assert_same(broken, trained)
    merge(broken)
    assert_same(broken, trained)
    assert not (broken / "shards").exists()


def test_a_shard_that_is_merged_while_a_folder_is_read_is_not_missed(trained, folder, monkeypatch):
    listed = results._shards(folder)
    merge(folder)
    monkeypatch.setattr(results, "_shards", lambda folder: listed)
    assert len(listed) == 2 and len(load_results(folder)) == 4


def test_of_an_unfinished_sweep_stays_what_it_goes_on_from(trained, tmp_path):
    folder, grid = tmp_path / "folder", Grid("mine", BOTH, "Mine.")
    train_into(folder, FIRST)
    train_into(folder, SECOND, stop_after=1)
    write_plan(folder, ids(BOTH))
    write_grid(folder, grid.runs, grid.description)
    merge(folder)
    assert read_plan(folder) == {*ids(BOTH)}
    assert {path.stem for path in (folder / "checkpoints").iterdir()} == {*ids(SECOND)}
    assert ids_of_grid(folder) == {*ids(BOTH)}
    assert load_grid(folder / "grid.yaml").description == "Mine."
    (group,) = plan_groups(grid, "cpu", folder)
    assert [*group.runs] == SECOND
    train_into(folder, SECOND)
    curves, expected = load_results(folder).curves, load_results(trained).curves
    pd.testing.assert_frame_equal(curves, expected, check_exact=True, check_like=True)
    merge(folder)
    assert not (folder / "plan.json").exists() and not (folder / "checkpoints").exists()


def test_a_merge_clears_the_checkpoints_of_runs_that_have_rows(folder):
    """A worker was killed when the row was there and the checkpoint not yet gone."""
    for name in (FIRST[0].run_id, "unfinished"):
        write_checkpoint(folder, name, {})
    merge(folder)
    assert [path.stem for path in (folder / "checkpoints").iterdir()] == ["unfinished"]


def test_runs_trained_elsewhere_are_taken_in_from_folders_and_from_shards(trained, tmp_path):
    one, other, both = (tmp_path / name for name in ("one", "other", "both"))
    for place, runs in ((one, FIRST), (other, SECOND)):
        copy_shard(runs, trained, place)
    merge(one)
    before = (one / "runs.parquet").read_bytes()
    shutil.copytree(one, both)
    shutil.copytree(other / "shards", both / "shards")  # a shard beside tables
    assert_same(both, trained)
    assert main(["merge", str(other), str(one), str(one)]) == 0
    assert_same(other, trained)
    assert ids_of_grid(other) == {*ids(BOTH)}
    assert len(pd.read_csv(other / "runs.csv")) == 4
    assert (one / "runs.parquet").read_bytes() == before


def test_files_that_disagree_on_a_run_are_named(folder, capsys):
    merge(folder)
    shard = folder / "shards" / f"{FIRST[0].run_id}.parquet"
    train_into(folder, FIRST)
    rows = pd.read_parquet(shard)
    assert len(load_results(folder)) == 4  # a clock is no disagreement
    rows.assign(test_loss=rows["test_loss"] + 1e-9).to_parquet(shard)
    assert main(["table", str(folder)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"{folder / 'runs.parquet'} and {shard}: disagree on run" in err
    shard.unlink()
    assert len(load_results(folder)) == 4


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "curves.parquet").unlink(), "curves.parquet: lacks the curves"),
        (
            lambda folder: shutil.copytree(folder, folder / "shards"),
            "is no shard, which has a row a run and its curve; `zoorecall merge",
        ),
        (lambda folder: shutil.rmtree(folder), "no such results folder"),
        (
            lambda folder: (folder / "grid.yaml").write_text("axes: {seed: [1, 2]}\n"),
            "grid.yaml: is a grid of your own where a sweep writes what it runs",
        ),
    ],
    ids=["no curves", "tables among shards", "no folder", "own grid"],
)
def test_what_cannot_be_merged_is_one_line(spoil, says, folder, capsys):
    merge(folder)
    spoil(folder)
    assert main(["merge", str(folder)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and says in err


def test_a_folder_without_runs_is_not_merged(tmp_path):
    with pytest.raises(ResultsError, match="no finished runs here to merge"):
        merge(tmp_path)
    assert not (tmp_path / "runs.parquet").exists()


def test_a_grid_of_ones_own_is_not_overwritten(tmp_path):
    (tmp_path / "grid.yaml").write_text("# mine\naxes: {seed: [1, 2]}\n")
    with pytest.raises(ResultsError, match="a grid of your own"):
        write_grid(tmp_path, FIRST, "")
    assert (tmp_path / "grid.yaml").read_text().startswith("# mine")
    (tmp_path / "grid.yaml").write_text(HEADER + "axes: {seed: [1, 2]}\n")
    write_grid(tmp_path, FIRST, "")
    assert ids_of_grid(tmp_path) == {*ids(FIRST)}

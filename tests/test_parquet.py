"""What a table's file must be: columns, types, one row a run, whole curves."""

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import small_run, train_into
from made_up import whole_row

from zoorecall import load_results, merge
from zoorecall.cli import main
from zoorecall.columns import PROVENANCE, TASK_SIZES, flat
from zoorecall.errors import ResultsError
from zoorecall.files import read_sealed
from zoorecall.parquet import MEASURED, ROW
from zoorecall.tasks import TASKS, sizes

RUNS = tuple(small_run(learning_rate=rate, epochs=1) for rate in (1e-3, 1e-2))
SHARD = f"shards/{RUNS[0].run_id}.parquet"


@pytest.fixture(scope="session")
def tables(tmp_path_factory) -> dict[str, pd.DataFrame]:
    """A shard, and the two tables that it is merged into."""
    folder = tmp_path_factory.mktemp("tables")
    train_into(folder, RUNS)
    shard = pd.read_parquet(folder / SHARD)
    merge(folder)
    names = ("runs.parquet", "curves.parquet")
    return {SHARD: shard} | {name: pd.read_parquet(folder / name) for name in names}


def put(tables: dict[str, pd.DataFrame], folder: Path) -> None:
    """Write tables as any program would, without a seal."""
    for name, table in tables.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(folder / name, index=False)


def complaint(folder: Path, capsys) -> str:
    """What each command that reads says of a folder, alone or as one of two: one line."""
    said = set()
    for words in READ:
        names = {"DIR": str(folder), "OTHER": str(folder.parent)}
        assert main([names.get(word, word) for word in words.split()]) == 2, words
        said.add(capsys.readouterr().err)
    (line,) = said
    assert line.count("\n") == 1
    return line


def without_last(lists: pd.Series) -> pd.Series:
    return lists.map(lambda values: list(values)[:-1])


def config_with(value, *keys):
    def changed(text):
        config = part = json.loads(text)
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value
        return json.dumps(config)

    return lambda t: t.assign(config=t["config"].map(changed))


READ = (
    "table DIR", "plot DIR", "report DIR", "merge DIR", "export DIR", f"show DIR {RUNS[0].run_id}",
    "table DIR OTHER", "merge OTHER DIR",
)  # fmt: skip
"""Every command that reads a table."""

twice = lambda t: pd.concat([t, t.head(1)])  # noqa: E731

FAULTS = {
    "foreign shard": (SHARD, lambda t: pd.DataFrame({"a": [1]}), "is no shard"),
    "foreign runs": ("runs.parquet", lambda t: pd.DataFrame({"a": [1]}), "lacks the column run_id"),
    "foreign curves": ("curves.parquet", lambda t: pd.DataFrame({"a": [1]}), "lacks the column"),
    "no config": (SHARD, lambda t: t.drop(columns="config"), "lacks the column config"),
    "no loss": ("runs.parquet", lambda t: t.drop(columns="test_loss"), "the column test_loss"),
    "no steps": (SHARD, lambda t: t.drop(columns="curve.step"), "the column curve.step"),
    "text": ("runs.parquet", lambda t: t.assign(test_accuracy="a"), "test_accuracy is"),
    "logic": ("runs.parquet", lambda t: t.assign(parameters=True), "parameters is bool, not whole"),
    "halves": ("curves.parquet", lambda t: t.assign(step=t["step"] + 0.5), "step is double, not"),
    "lists": ("runs.parquet", lambda t: t.assign(config=[[1]] * len(t)), "config is list"),
    "numbers": (SHARD, lambda t: t.assign(run_id=range(len(t))), "run_id is int64, not text"),
    "no list": (SHARD, lambda t: t.assign(**{"curve.test_loss": 1.0}), "curve.test_loss is double"),
    "of texts": (SHARD, lambda t: t.assign(**{"curve.step": [["a"]] * len(t)}), "curve.step is"),
    "empty": (SHARD, lambda t: t.assign(**{"curve.step": [[]] * len(t)}), "curve.step is null"),
    "no text": ("runs.parquet", lambda t: t.assign(config=[None, "{}"]), "config is empty"),
    "unequal": (
        SHARD,
        lambda t: t.assign(**{"curve.test_loss": without_last(t["curve.test_loss"])}),
        "curve.test_loss and curve.step differ in length",
    ),
    "two rows": ("runs.parquet", twice, "has a run twice"),
    "two rows in a shard": (SHARD, twice, "has a run twice"),
    "no row": (SHARD, lambda t: t.iloc[:0], "has no row"),
    "no run": ("runs.parquet", lambda t: t.iloc[:0], "has no row"),
    "two ids of a run": (
        SHARD,
        lambda t: pd.concat([t, t.head(1).assign(run_id="other")]),
        f"has run {RUNS[0].run_id} twice",
    ),
    "two curves": ("curves.parquet", lambda t: pd.concat([t, t]), "do not stand together"),
    "a step twice": ("curves.parquet", lambda t: t.loc[t.index.repeat(2)], "do not increase"),
    "backwards": ("curves.parquet", lambda t: t[::-1], "do not increase"),
    "config column": ("runs.parquet", lambda t: t.assign(seed=1), "which should be in config"),
    "no JSON": ("runs.parquet", lambda t: t.assign(config="{"), "Expecting property name"),
    "JSON": ("runs.parquet", lambda t: t.assign(config="3"), "no config of a run"),
    "no task": (SHARD, config_with({}, "task"), "no config of a run: KeyError 'name'"),
    "mixer": (SHARD, config_with({"name": "x"}, "model", "mixer"), "no config of a run"),
    "rate": (SHARD, config_with("x", "train", "learning_rate"), "learning_rate is 'x', not a num"),
    "depth": (SHARD, config_with(None, "model", "num_layers"), "num_layers is None, not a number"),
    "seed": ("runs.parquet", config_with([1], "seed"), "seed is [1], not a number"),
    "no width": (SHARD, config_with(-1, "model", "d_model"), "d_model is -1, not a number"),
    "endless": (SHARD, config_with(2**70, "model", "num_layers"), f"num_layers is {2**70}, not fr"),
    "length": (
        SHARD,
        config_with(4, "task", "seq_len"),
        "no config of a run: task: num_kv_pairs 2 needs",
    ),
    "other length": (
        "runs.parquet",
        lambda t: t.assign(**{"task.seq_len": 4}),
        f"says task.seq_len 4 of run {RUNS[0].run_id}, whose config says 12",
    ),
    "other task": (
        SHARD,
        config_with({"name": "key_value_sum"}, "task"),
        "whose config says",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_table_that_no_sweep_wrote_costs_one_line_that_names_file_and_fault(
    name, tables, tmp_path, capsys
):
    file, change, says = FAULTS[name]
    given = (
        {SHARD: tables[SHARD]} if file == SHARD else {x: t for x, t in tables.items() if x != SHARD}
    )
    put(given | {file: change(given[file])}, tmp_path)
    line = complaint(tmp_path, capsys)
    assert line.startswith(f"{tmp_path / file}: ") and says in line


def test_a_column_that_every_version_wrote_is_needed_and_no_other(tables, tmp_path, capsys):
    newer = {"user_code", "task.seq_len", "task.vocab_size", "task.num_queries"}
    for i, name in enumerate(ROW):
        put({SHARD: tables[SHARD].drop(columns=name)}, folder := tmp_path / str(i))
        if name in newer:
            assert len(load_results(folder)) == len(RUNS)
        else:
            assert main(["table", str(folder)]) == 2
            assert f"lacks the column {name};" in capsys.readouterr().err


def test_any_reader_of_parquet_reads_a_sealed_table(tables, tmp_path):
    put({SHARD: tables[SHARD]}, tmp_path)
    merge(tmp_path)
    for name, names in (("runs.parquet", ROW), ("curves.parquet", MEASURED)):
        read_sealed(tmp_path / name)
        table = pd.read_parquet(tmp_path / name)
        assert set(names) <= set(table) and "seal" not in table
        pd.testing.assert_frame_equal(table, tables[name])


@pytest.mark.parametrize("every", [41, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("task", TASKS)
def test_a_config_with_any_value_is_read_or_refused_in_one_line(every, task, tmp_path, capsys):
    """Each option of a run with each value; all of them where `every` is 1."""
    odd = (None, "x", -1, 0, 2.5, float("nan"), 1e308, [], {}, True, 2**70, [1, 2])
    runs = [small_run(learning_rate=rate, task={"name": task}) for rate in (1e-3, 1e-2)]
    rows = [{"run_id": run.run_id, "config": run.model_dump_json()} for run in runs]
    more = {"curve.step": [0, 1], **sizes(runs[0].task)}
    first, second = (pd.DataFrame([whole_row(row | more)]) for row in rows)
    codes = set()
    for key, value in list(itertools.product(flat(runs[0].model_dump()), odd))[::every]:
        put({SHARD: pd.concat([config_with(value, *key.split("."))(first), second])}, tmp_path)
        codes.add(code := main(["table", str(tmp_path)]))
        assert capsys.readouterr().err.count("\n") == (code == 2), (key, value)
    assert codes == {0, 2}


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_tables_of_any_type_are_read_or_refused_in_one_line(every, tables, tmp_path):
    """Columns as each type that a file may have; each column where `every` is 1."""
    kinds = [
        pa.array([1, 2]), pa.array([0.5, np.nan]), pa.array(["a", "b"]), pa.array([None, None]),
        pa.array([[1], [2]]), pa.array([{"a": 1}, None]), pa.array([b"\xff", b"a"]),
        pa.array([True, None]), pa.array([2**63] * 2, pa.uint64()),
    ]  # fmt: skip
    good = pa.Table.from_pandas(tables[SHARD], preserve_index=False)
    refused = []
    (tmp_path / "shards").mkdir()
    for i, name in list(enumerate(good.column_names))[::every]:
        for kind in kinds:
            pa.parquet.write_table(good.set_column(i, name, kind), tmp_path / SHARD)
            try:
                load_results(tmp_path)
            except ResultsError as error:
                assert "\n" not in str(error)
                refused.append(name)
            else:
                if name not in (*PROVENANCE, *TASK_SIZES):
                    assert main(["table", str(tmp_path)]) == 0, (name, kind)
    assert set(refused) == set(good.column_names[::every])

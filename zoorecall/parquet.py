"""Tables as Parquet files: sealed when they are written, checked when they are read.

What is checked is what `columns` says: which columns there are, their types, one row a run, its
evaluations in order. A fault is a text that says what is wrong.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.parquet import ParquetFile, ParquetWriter

from . import columns
from .columns import CONFIG, CONFIG_PREFIXES, CURVE, RUN_ID, SLICE
from .errors import DamagedError, ResultsError
from .files import BLANK, read_sealed, replacing, seal

ROW = (*(x.name for x in columns.COLUMNS if x.name not in columns.DERIVED), CONFIG)
SHARES = {x.name for x in (*columns.COLUMNS, *columns.CURVE_COLUMNS) if x.unit == "share"}
MEASURED = tuple(column.name for column in columns.CURVE_COLUMNS)


def read_table(path: Path, fault_of: Callable[[pa.Table], str | None]) -> pa.Table | None:
    """The table of a file, or None if there is no such file.

    Raises DamagedError where it is not as it was written, ResultsError where it has a fault.
    """
    try:
        content = read_sealed(path, needed=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        # with threads, an exit right after it may abort the process
        table = _without_index(ParquetFile(pa.BufferReader(content)).read(use_threads=False))
        table.validate(full=True)
        fault = fault_of(table)
    except Exception as error:  # Arrow has many
        reason = f"{type(error).__name__} {error}".splitlines()[0]
        raise DamagedError(path, f"cannot be read as Parquet ({reason})") from error
    if fault:
        raise ResultsError(f"{path}: {fault}; take it away, or put there what a sweep wrote")
    return table


def _without_index(table: pa.Table) -> pa.Table:
    """Without the column of an index that pandas has put there, and what pandas says of it; nor one
    that says where a row is from, which is for the reader to say."""
    known = (table.schema.pandas_metadata or {}).get("index_columns", [])
    aside = [name for name in table.column_names if name in known or name == columns.FILE]
    return table.drop_columns(aside).replace_schema_metadata(None)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a sealed table, which any reader of Parquet reads.

    Raises ResultsError where a column has values of several types, or the disk does not take it.
    """
    try:
        content = pa.Table.from_pandas(table, preserve_index=False)
    except pa.ArrowException as error:
        reason = "; ".join(map(str, error.args)).splitlines()[0]
        raise ResultsError(f"{path}: cannot be written: {reason}") from error
    with replacing(path) as temporary:
        with ParquetWriter(temporary, content.schema, compression="zstd") as writer:
            writer.write_table(content)
            writer.add_key_value_metadata({"seal": BLANK.decode()})
        seal(temporary)


def fault_of_runs(table: pa.Table) -> str | None:
    """Of a table with a row a run."""
    return (
        _fault_of_names(table, ROW)
        or _fault_of_types(table)
        or ("has no row" if not len(table) else None)
        or ("has a run twice" if len(table[RUN_ID].unique()) < len(table) else None)
    )


def fault_of_curves(table: pa.Table) -> str | None:
    """Of a table with a row an evaluation, the runs one after another."""
    return (
        _fault_of_names(table, (RUN_ID, *MEASURED))
        or _fault_of_types(table)
        or _fault_of_steps(table[RUN_ID].combine_chunks(), table["step"].combine_chunks())
    )


def fault_of_shard(table: pa.Table) -> str | None:
    """Of a table with a row a run and its curve in lists."""
    lists = [name for name in table.column_names if name.startswith(CURVE)]
    if not lists:
        return "is no shard, which has a row a run and its curve; `zoorecall merge` takes in tables"
    return (
        _fault_of_names(table, (*ROW, *(f"{CURVE}{name}" for name in MEASURED)))
        or fault_of_runs(table.drop_columns(lists))
        or _fault_of_lists(table.select(lists))
        or _fault_of_steps(*_steps(table))
    )


def _fault_of_names(table: pa.Table, expected: Iterable[str]) -> str | None:
    names = table.column_names
    if len(set(names)) < len(names):
        return "two of its columns have one name"
    for name in expected:
        if name not in names and name.removeprefix(CURVE) not in columns.NEWER:
            return f"lacks the column {name}"
    for name in names:
        of_config = name == columns.SEED or name.startswith(CONFIG_PREFIXES)
        if name in columns.DERIVED or (of_config and name not in columns.TASK_SIZES):
            return f"has a column {name}, which should be in {CONFIG} only"
    return None


def _fault_of_types(table: pa.Table) -> str | None:
    for name, column in zip(table.column_names, table.columns, strict=True):
        if fault := _fault_of_type(name, column):
            return fault
    return None


def _fault_of_type(name: str, column: pa.ChunkedArray) -> str | None:
    kind, empty = column.type, column.null_count
    if name in columns.TEXTS:
        if not (_is_text(kind) or (pa.types.is_null(kind) and name in columns.NEWER)):
            return f"{name} is {kind}, not text"
        return f"{name} is empty in a row" if empty and name in (RUN_ID, CONFIG) else None
    if name in columns.WHOLE:
        if not pa.types.is_signed_integer(kind):
            return f"{name} is {kind}, not whole numbers"
        return f"{name} is empty in a row" if empty else None
    known = name in (*ROW, *MEASURED) or name.startswith(SLICE)
    if known and not (_is_number(kind) or pa.types.is_null(kind)):
        return f"{name} is {kind}, not numbers"
    if name in SHARES:
        values = column.to_numpy()
        return None if ((values >= 0) & (values <= 1)).all() else f"{name} is not from 0 to 1"
    return None


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_signed_integer(kind) or pa.types.is_floating(kind)


def _fault_of_lists(table: pa.Table) -> str | None:
    lengths = None
    for name in sorted(table.column_names, key=lambda name: name != f"{CURVE}step"):
        column, inner = table[name], name.removeprefix(CURVE)
        if pa.types.is_null(column.type) and inner != "step":
            continue
        if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
            return f"{name} is {column.type}, no list"
        if fault := _fault_of_type(inner, pc.list_flatten(column)):
            return f"{CURVE}{fault}"
        length = pc.list_value_length(column)
        if lengths is None:
            lengths = length
            if length.null_count or pc.min(length).as_py() == 0:
                return f"{name} is empty in a row"
        elif pc.any(pc.not_equal(length, lengths)).as_py():
            return f"{name} and {CURVE}step differ in length"
    return None


def _steps(table: pa.Table) -> tuple[pa.Array, pa.Array]:
    """The run and the step of each evaluation."""
    lists = table[f"{CURVE}step"].combine_chunks()
    return table[RUN_ID].combine_chunks().take(pc.list_parent_indices(lists)), lists.flatten()


def _fault_of_steps(ids: pa.Array, steps: pa.Array) -> str | None:
    """A run's evaluations stand together, each later than the one before."""
    runs, step = ids.dictionary_encode(), steps.to_numpy(zero_copy_only=False)
    number = runs.indices.to_numpy()
    new = number[1:] != number[:-1]
    if new.sum() >= max(1, len(runs.dictionary)):
        return "the evaluations of a run do not stand together"
    return "the steps of a run do not increase" if (~new & (step[1:] <= step[:-1])).any() else None

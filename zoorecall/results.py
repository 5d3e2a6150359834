"""Tables on disk. Each file appears whole or not at all.

    DIR/grid.yaml              the runs as a grid: those that are here, and those asked for last
    DIR/runs.parquet           a row a run
    DIR/curves.parquet         a row an evaluation of a run
    DIR/models/RUN.safetensors the weights of a finished run, where its config says to keep them
    DIR/runs.csv               the table for people: all that a run's config decides
    DIR/provenance.csv         what a clock or a machine decided: seconds, device, versions

and only while a sweep is unfinished

    DIR/plan.json              which runs are asked for
    DIR/shards/RUN.parquet     the rows of that run and of those that ended with it, their curves in
                               list columns `curve.*`
    DIR/checkpoints/RUN.pt     where an unfinished run goes on

`merge` puts the rows of shards into the first two tables. Whoever reads, reads both.

Tables, plan, weights and checkpoints are sealed (`files.seal`). A file that is not as it was
written is an error for who reads it; a sweep renames it to NAME.damaged and makes anew what it
held. Tables and plans of earlier versions have no seal.

The columns, and what tells runs apart, are in `columns`.
"""

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from . import columns
from .checkpoints import checkpoint_path
from .columns import CONFIG, CURVE, FILE, FOLDER, MIXER, PROVENANCE, RUN_ID
from .errors import DamagedError, ResultsError
from .files import BLANK, is_sealed, read_sealed, replacing, seal, set_aside, written
from .parquet import fault_of_curves, fault_of_runs, fault_of_shard, read_table, write_table

GRID, RUNS, CURVES, SHARDS = "grid.yaml", "runs.parquet", "curves.parquet", "shards"
PLANNED = "planned"

SUBFOLDERS = "shards", "checkpoints", "models"


@dataclasses.dataclass(frozen=True)
class Results:
    """What a sweep found: `runs`, a row a run, and `curves`, a row an evaluation of a run."""

    runs: pd.DataFrame
    curves: pd.DataFrame

    def __len__(self) -> int:
        return len(self.runs)


def load_results(folder: str | Path) -> Results:
    """Read every finished run of a results folder.

    Raises ResultsError where the folder is not there, holds no finished run or cannot be read.
    """
    rows, curves = _joined(_parts(Path(folder)))
    if rows.empty:
        raise ResultsError(f"{folder}: no finished runs here; `zoorecall sweep GRID` makes them")
    return _as_results(rows, curves)


def load_folders(folders: Sequence[str | Path]) -> Results:
    """The runs of several results folders, told apart by the column `FOLDER`, which is the first
    part of their ids, too; those of one folder are as `load_results` has them.

    Raises ResultsError where a folder cannot be read or is given twice.
    """
    if len(folders) == 1:
        return load_results(folders[0])
    paths = [Path(folder).resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise ResultsError("a results folder is given twice; give each once")
    names = [path.name for path in paths]
    found = {
        path.name if names.count(path.name) == 1 else str(folder): load_results(folder)
        for path, folder in zip(paths, folders, strict=True)
    }

    def told_apart(table: pd.DataFrame, name: str) -> pd.DataFrame:
        ids = f"{name}/" + table[RUN_ID]
        return table.assign(**{RUN_ID: ids}).assign(**{FOLDER: name})

    runs = _concat([told_apart(each.runs, name) for name, each in found.items()])
    config = [name for name in map(str, runs) if name.startswith(columns.CONFIG_PREFIXES)]
    curves = _concat([told_apart(each.curves, name) for name, each in found.items()])
    return Results(runs.assign(**{name: _values(runs[name]) for name in config}), curves)


def as_results(rows: pd.DataFrame) -> Results:
    """The results of rows as a shard has them, which need not be on a disk."""
    return _as_results(*_joined([_split(rows.assign(**{FILE: "rows"}))]))


def _as_results(rows: pd.DataFrame, curves: pd.DataFrame) -> Results:
    runs = _table(rows)
    labels = runs.set_index(RUN_ID)[MIXER]
    measured = (column.name for column in columns.CURVE_COLUMNS)
    names = dict.fromkeys([RUN_ID, MIXER, *curves, *measured])
    curves = curves.assign(**{MIXER: curves[RUN_ID].map(labels)}).reindex(columns=list(names))
    return Results(runs, curves.astype({"step": "int64"}))


def _table(rows: pd.DataFrame) -> pd.DataFrame:
    """The table of runs: what the config says, the sizes of the task, and what was measured."""
    configs = [json.loads(text) for text in rows[CONFIG]]
    mixers = [config["model"].pop("mixer") for config in configs]
    told = rows[[RUN_ID]].assign(
        **{
            MIXER: [columns.mixer_label(mixer) for mixer in mixers],
            columns.MIXER_NAME: [mixer["name"] for mixer in mixers],
            columns.MIXER_OPTIONS: [json.dumps(columns.mixer_options(x)) for x in mixers],
            columns.ATTENTION_SHARE: [
                columns.attention_share(mixer, config["model"]["num_layers"])
                for mixer, config in zip(mixers, configs, strict=True)
            ],
            columns.MIXER_SOURCE: [columns.mixer_source(mixer) for mixer in mixers],
        }
    )
    config = pd.DataFrame({key: _values(x) for key, x in pd.json_normalize(configs).items()})
    config = config.assign(**rows[list(columns.TASK_SIZES)])
    measured = rows.drop(columns=[RUN_ID, MIXER, CONFIG, *columns.TASK_SIZES])
    for name in filter(measured.columns.__contains__, columns.MAYBE_UNKNOWN):
        measured[name] = _values(measured[name])
    return pd.concat([told, config, measured], axis=1)


def _values(column: pd.Series) -> pd.Series:
    """A column whose values can be compared and sorted: whole numbers as such where some rows have
    none, lists as tuples, and all as text where they are of different kinds or lengths."""
    column = column.map(lambda x: tuple(x) if isinstance(x, list) else x)
    known = column.dropna()
    if column.map(_kind).nunique() > 1:
        return column.map(lambda x: x if isinstance(x, str) else json.dumps(x), na_action="ignore")
    whole = len(known) < len(column) and known.map(_is_whole).all()
    return column.astype("Int64") if whole and len(known) else column


def _kind(x: object) -> str:
    """Equal for values that can be sorted, with some missing or not."""
    if isinstance(x, tuple):
        return f"{len(x)} values"
    return "text" if isinstance(x, str) else "number"


def _is_whole(x: object) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and x % 1 == 0 and x < 2**53


class _Part(NamedTuple):
    """Rows as this version writes them, which say in `FILE` where they are from, and a row for each
    of their evaluations, whose index is that of the run's row."""

    rows: pd.DataFrame
    curves: pd.DataFrame


def read_rows(folder: str | Path) -> pd.DataFrame:
    """The finished runs' rows by run id, as this version writes them, whatever version wrote them.
    Empty if there are none."""
    return _joined(_parts(Path(folder)))[0]


def _parts(folder: Path) -> list[_Part]:
    """What the files of the folder hold, the merged tables first. They are read last, so that a
    merge meanwhile hides no row."""
    shards = _read_shards(folder)
    return [*_read_merged(folder), *shards]


def _shards(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ResultsError(f"{folder}: no such results folder")
    try:
        return sorted(x for x in (folder / SHARDS).iterdir() if x.suffix == ".parquet")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ResultsError(f"{folder}: cannot be read: {error.strerror}") from error


def _read_shards(folder: Path) -> list[_Part]:
    """All shards as one part, but for those that have gone meanwhile: their rows are merged."""
    found = [(path, _read_shard(path)) for path in _shards(folder)]
    tables = {path: table for path, table in found if table is not None}
    if not tables:
        return []
    schema = next(iter(tables.values())).schema
    for path, table in tables.items():
        try:
            schema = pa.unify_schemas([schema, table.schema], promote_options="permissive")
        except pa.ArrowException as error:
            reason = str(error).splitlines()[0]
            raise ResultsError(
                f"{path}: differs from the files beside it: {reason}; take it away, its runs train "
                "again"
            ) from error
    together = pa.concat_tables(
        [
            table.append_column(FILE, pa.array([str(path)] * len(table)))
            for path, table in tables.items()
        ],
        promote_options="permissive",
    )
    return [_split(together.to_pandas())]


def _read_shard(path: Path) -> pa.Table | None:
    """None where it has gone meanwhile."""
    at = written(path)
    return read_table(path, fault_of_shard) if at is None else _shard(path, at)


@functools.lru_cache(maxsize=2**14)
def _shard(path: Path, _: object) -> pa.Table | None:
    """A shard as it was at a time, read once: a sweep looks at all of them several times."""
    return read_table(path, fault_of_shard)


def _read_merged(folder: Path) -> list[_Part]:
    path = folder / RUNS
    runs = read_table(path, fault_of_runs)
    if runs is None:
        return []
    table = read_table(folder / CURVES, fault_of_curves)
    before = runs.to_pandas().assign(**{FILE: str(path)})
    rows, of_run = _as_written_now(before), pd.Series(before.index, before[RUN_ID])
    curves = None if table is None else table.to_pandas()
    if curves is None or not before[RUN_ID].isin(curves[RUN_ID].unique()).all():
        raise ResultsError(
            f"{folder / CURVES}: lacks the curves of {RUNS} beside it; take both files from one "
            "place, or delete both to train their runs again"
        )
    curves = curves[curves[RUN_ID].isin(of_run.index)]
    curves.index = curves[RUN_ID].map(of_run).to_numpy()
    return [_Part(rows, curves.assign(**{RUN_ID: rows[RUN_ID][curves.index].to_numpy()}))]


def _split(shards: pd.DataFrame) -> _Part:
    """Rows without their lists, and the lists as a row an evaluation; NaN in the columns that a
    run's row does not have: slices of other tasks, what its version did not measure."""
    names = [name for name in map(str, shards) if name.startswith(CURVE)]
    rows = _as_written_now(shards.drop(columns=names))
    lists = shards[names].rename(columns=lambda name: name.removeprefix(CURVE))
    missing = lists["step"].map(lambda steps: [float("nan")] * len(steps))
    lists = lists.apply(lambda column: column.astype(object).where(column.notna(), missing))
    curves = pd.concat([rows[[RUN_ID]], lists], axis=1).explode([*lists])
    return _Part(rows, curves.infer_objects())


def _joined(parts: Sequence[_Part]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows and curves of all parts by run id, each run once.

    Raises ResultsError where two files disagree on what a run came to.
    """
    if not parts:
        return pd.DataFrame(), pd.DataFrame()
    rows = _concat([part.rows for part in parts])
    _check_agreement(rows)
    first = ~rows.duplicated(RUN_ID).to_numpy()
    ends = np.cumsum([len(part.rows) for part in parts])
    kept = zip(np.split(first, ends[:-1]), parts, strict=True)
    curves = _concat([part.curves[of[part.curves.index]] for of, part in kept if of.any()])
    rows = rows[first].drop(columns=FILE).sort_values(RUN_ID, ignore_index=True)
    return rows, curves.sort_values(RUN_ID, kind="stable", ignore_index=True)


def _concat(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Rows below one another, with every column that any has."""
    names = list(dict.fromkeys(name for frame in frames for name in frame))
    rows = pd.concat([frame.dropna(axis=1, how="all") for frame in frames], ignore_index=True)
    return rows.reindex(columns=names)


def _check_agreement(rows: pd.DataFrame) -> None:
    """A run that two files hold came to the same in both, whatever machine it was on."""
    trained = {column.name for column in columns.COLUMNS if column.decided_by == "training"}
    trained |= set(columns.slices(rows).values())
    repeated = rows[rows.duplicated(RUN_ID, keep=False)]
    for run_id, group in repeated.groupby(RUN_ID):
        for name in filter(trained.__contains__, group):
            first, *others = group.drop_duplicates(name)[[FILE, name]].itertuples(index=False)
            if others:
                (one, value), (other, another) = first, others[0]
                raise ResultsError(
                    f"{one} and {other}: disagree on run {run_id}, {name} {value} and {another}; "
                    "keep one of the two, a sweep trains what that lacks"
                )


def _as_written_now(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of any version with options that are newer at their defaults, the id that follows from
    the config, and the sizes that the task tells.

    Raises ResultsError, which names the file, where a config is none or two rows are of one run, or
    where a row has other sizes than its task.
    """
    configs, found = [], []
    for file, text in zip(rows[FILE], rows[CONFIG], strict=True):
        try:
            configs.append(config := columns.read_config(text))
            found.append(_sizes(json.dumps(config["task"])))
        except ValueError as error:
            raise ResultsError(f"{file}: {error}; take it away, its runs train again") from error
    ids = [columns.run_id(config) for config in configs]
    for (file, run_id), count in Counter(zip(rows[FILE], ids, strict=True)).items():
        if count > 1:
            raise ResultsError(f"{file}: has run {run_id} twice; take out one of the two rows")
    sizes = pd.DataFrame(found, rows.index, list(columns.TASK_SIZES), "int64")
    for name in sizes.columns.intersection(rows.columns):
        if (wrong := rows[name].notna() & (rows[name] != sizes[name])).any():
            i = int(wrong.argmax())
            raise ResultsError(
                f"{rows[FILE].iloc[i]}: says {name} {rows[name].iloc[i]} of run {ids[i]}, whose "
                f"config says {sizes[name].iloc[i]}; take it away, its runs train again"
            )
    texts = [json.dumps(config) for config in configs]
    return rows.assign(**{RUN_ID: ids, CONFIG: texts}, **sizes)


@functools.cache
def _sizes(task: str) -> dict[str, int]:
    """What a task, given as JSON, tells of its sizes. Raises ValueError where it is none."""
    from pydantic import TypeAdapter, ValidationError

    from .tasks import AnyTaskConfig, sizes

    try:
        return sizes(TypeAdapter(AnyTaskConfig).validate_json(task))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, ("task", *fault["loc"][1:])))
        reason = fault["msg"].removeprefix("Value error, ")
        raise ValueError(f"no config of a run: {where}: {reason}") from error


def has_runs(folder: Path) -> bool:
    """Whether a folder holds any finished run."""
    return (folder / RUNS).exists() or any(folder.glob(f"{SHARDS}/*.parquet"))


def finished_run_ids(folder: Path) -> set[str]:
    return set(read_rows(folder)[RUN_ID]) if has_runs(folder) else set()


def write_shard(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows of finished runs; they appear by one rename. Their checkpoints go."""
    run_ids = [row[RUN_ID] for row in rows]
    write_table(folder / SHARDS / f"{run_ids[0]}.parquet", pd.DataFrame(list(rows)))
    for run_id in run_ids:
        with suppress(OSError):  # the rows are there, so the runs are finished
            checkpoint_path(folder, run_id).unlink()


def merge(folder: Path, others: Sequence[Path] = (), without: Collection[str] = ()) -> bool:
    """Put the folder's rows, and those of other folders, into its merged tables, `without` those of
    some runs, then remove its shards; says whether there was anything to merge. Tables of an
    earlier version get their seal.

    The caller holds the folder's lock. Whatever is read meanwhile, or after a crash, has each row
    once: a curve is there before its row, and a shard goes after both.
    """
    shards = _shards(folder)
    rows, curves = _joined([part for place in (folder, *others) for part in _parts(place)])
    if rows.empty:
        raise ResultsError(f"{folder}: no finished runs here to merge")
    rows = rows[~rows[RUN_ID].isin(without)]
    new = bool(shards or others or without)
    if rows.empty:
        (folder / RUNS).unlink(missing_ok=True)
    elif new or not all(is_sealed(folder / name) for name in (RUNS, CURVES)):
        write_table(folder / CURVES, curves)
        write_table(folder / RUNS, rows)
    for shard in shards:
        shard.unlink()
    finished = set(rows[RUN_ID])
    for checkpoint in folder.glob("checkpoints/*.pt"):
        if checkpoint.stem in finished:  # its worker was killed before it could do this
            checkpoint.unlink()
    if read_plan(folder) <= finished:
        (folder / "plan.json").unlink(missing_ok=True)
    for name in (SHARDS, "checkpoints"):
        with suppress(OSError):  # it is not there, or holds something
            (folder / name).rmdir()
    return new


def write_tables(folder: Path, order: Mapping[str, int]) -> None:
    """Write runs.csv and provenance.csv anew; `order` gives a run id's place in the grid."""
    runs = load_results(folder).runs
    place = runs[RUN_ID].map(lambda run_id: (order.get(run_id, len(order)), run_id))
    runs = runs.loc[place.sort_values().index]
    provenance = [name for name in PROVENANCE if name in runs]
    for name, table in (
        ("runs.csv", runs.drop(columns=provenance)),
        ("provenance.csv", runs[[RUN_ID, *provenance]]),
    ):
        with replacing(folder / name) as temporary:
            table.to_csv(temporary, index=False)


def table_order(folder: Path) -> dict[str, int]:
    """The place of each run id in runs.csv, where there is one."""
    try:
        ids = pd.read_csv(folder / "runs.csv", usecols=[RUN_ID], dtype=str)[RUN_ID]
    except (FileNotFoundError, ValueError):  # it is written anew
        return {}
    return {run_id: place for place, run_id in enumerate(ids)}


def write_plan(folder: Path, run_ids: Sequence[str]) -> None:
    with replacing(folder / "plan.json") as temporary:
        plan = {"seal": BLANK.decode(), PLANNED: run_ids}
        temporary.write_text(json.dumps(plan, indent=1) + "\n")
        seal(temporary)


def read_plan(folder: Path) -> set[str]:
    """The ids of the runs that an earlier sweep of this folder was to train; none where that was
    another version.

    Raises DamagedError where it is not as it was written, or no plan.
    """
    path = folder / "plan.json"
    try:
        plan = json.loads(read_sealed(path, needed=False))
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DamagedError(path, f"cannot be read as JSON ({error})") from error
    planned = plan.get(PLANNED, []) if isinstance(plan, dict) else None
    if not isinstance(planned, list) or not all(isinstance(x, str) for x in planned):
        raise DamagedError(path, "is no plan, which has run ids in a list")
    return set(planned)


def set_aside_damaged(folder: Path) -> list[str]:
    """Rename each damaged file of the folder to NAME.damaged; returns a line of each.

    With a kept model its run's row goes, with the curves the rows that they are of: a sweep trains
    those runs again. The caller holds the folder's lock.
    """
    told = []
    while True:
        try:
            read_plan(folder), _parts(folder)
            break
        except DamagedError as error:
            beside = folder / RUNS
            if error.path == folder / CURVES and beside.exists():
                set_aside(beside)  # first, as rows without curves cannot be read
            told.append(_set_aside(error))
        except ResultsError as error:
            raise ResultsError("; ".join([*told, str(error)])) from error
    for path in sorted(folder.glob("models/*.safetensors")):
        try:
            read_sealed(path)
        except DamagedError as error:
            if path.stem in finished_run_ids(folder):
                merge(folder, without=[path.stem])
            told.append(_set_aside(error))
    return told


def _set_aside(error: DamagedError) -> str:
    return f"{error.path}: {error.reason}; it is now {set_aside(error.path).name}"

"""Tables on disk: one Parquet shard a pack, which appears whole or not at all.

    DIR/plan.json              which runs train together, so that a resumed sweep packs them alike
    DIR/shards/PACK.parquet    a row a run, its curve in list columns `curve.*`
    DIR/checkpoints/PACK.pt    where an unfinished pack goes on
    DIR/models/RUN.safetensors the weights of a finished run, where its config says to keep them
    DIR/runs.csv               the table for people: all that a run's config decides
    DIR/provenance.csv         what a clock or a machine decided: seconds, device, versions

The columns, and what tells runs apart, are in `columns`.
"""

import dataclasses
import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from . import columns
from .columns import CONFIG, CURVE, MIXER, PROVENANCE, RUN_ID
from .errors import ResultsError
from .files import replacing

WRITTEN_ID = "written_id"
PACKS = "packs"

CHECKPOINT_FORMAT = 3
"""Counts the changes of what a checkpoint holds; one of another format is as good as none."""


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
    shards = read_shards(folder)
    if shards.empty:
        raise ResultsError(f"{folder}: no finished runs here; `zoorecall sweep GRID` makes them")
    return _as_results(shards)


def as_results(rows: pd.DataFrame) -> Results:
    """The results of rows as a shard has them, which need not be on a disk."""
    return _as_results(_as_written_now(rows).sort_values(RUN_ID, ignore_index=True))


def _as_results(rows: pd.DataFrame) -> Results:
    lists = [name for name in map(str, rows) if name.startswith(CURVE)]
    runs = _table(rows.drop(columns=lists))
    return Results(runs, _curves(rows[lists], runs[[RUN_ID, MIXER]]))


def _curves(lists: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """A row an evaluation, from a row a run with a list in each column; NaN in the columns that a
    run's row does not have: slices of other tasks, what its version did not measure."""
    lists = lists.rename(columns=lambda name: name.removeprefix(CURVE))
    names = dict.fromkeys([*lists, *(column.name for column in columns.CURVE_COLUMNS)])
    lists = lists.reindex(columns=list(names))
    missing = lists["step"].map(lambda steps: [float("nan")] * len(steps))
    lists = lists.apply(lambda column: column.astype(object).where(column.notna(), missing))
    curves = pd.concat([runs, lists], axis=1).explode([*lists], ignore_index=True)
    return curves.infer_objects().astype({"step": "int64"})


def _table(shards: pd.DataFrame) -> pd.DataFrame:
    """The table of runs: what the config says, the sizes of the task, and what was measured."""
    configs = [json.loads(text) for text in shards[CONFIG]]
    mixers = [config["model"].pop("mixer") for config in configs]
    told = shards[[RUN_ID]].assign(
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
    config = config.assign(**shards[list(columns.TASK_SIZES)])
    measured = shards.drop(columns=[RUN_ID, MIXER, CONFIG, WRITTEN_ID, *columns.TASK_SIZES])
    for name in filter(measured.columns.__contains__, columns.MAYBE_UNKNOWN):
        measured[name] = _values(measured[name])
    return pd.concat([told, config, measured], axis=1)


def _values(column: pd.Series) -> pd.Series:
    """A column whose values can be compared and sorted: whole numbers as such where some rows have
    none, lists as tuples, and as text where some are text."""
    column = column.map(lambda x: tuple(x) if isinstance(x, list) else x)
    known = column.dropna()
    if known.map(lambda x: isinstance(x, str)).nunique() > 1:
        return column.map(lambda x: x if isinstance(x, str) else json.dumps(x), na_action="ignore")
    whole = len(known) < len(column) and known.map(_is_whole).all()
    return column.astype("Int64") if whole and len(known) else column


def _is_whole(x: object) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and float(x).is_integer()


def read_shards(folder: str | Path) -> pd.DataFrame:
    """The shards' rows, one a run, by run id, as this version writes them, whatever version wrote
    them; `written_id` is the id that stands on disk. Empty if there are none."""
    folder = Path(folder)
    try:
        paths = sorted((folder / "shards").iterdir()) if folder.is_dir() else None
    except FileNotFoundError:
        paths = []
    except OSError as error:
        raise ResultsError(f"{folder}: cannot be read: {error.strerror}") from error
    if paths is None:
        raise ResultsError(f"{folder}: no such results folder")
    frames = []
    for path in paths:
        if path.suffix != ".parquet":
            continue
        try:
            frames.append(pd.read_parquet(path))
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ResultsError(
                f"{path}: cannot be read as Parquet ({reason}); delete it to train its runs again"
            ) from error
    if not frames:
        return pd.DataFrame()
    rows = pd.concat([frame.dropna(axis=1, how="all") for frame in frames], ignore_index=True)
    names = list(dict.fromkeys(name for frame in frames for name in frame))
    rows = _as_written_now(rows.reindex(columns=names)).drop_duplicates(RUN_ID)
    return rows.sort_values(RUN_ID, ignore_index=True)


def _as_written_now(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of any version with options that are newer at their defaults, the id that follows from
    the config, and the sizes that the task tells."""
    configs = [columns.with_defaults(json.loads(text)) for text in rows[CONFIG]]
    ids = [columns.run_id(config) for config in configs]
    texts = [json.dumps(config) for config in configs]
    rows = rows.assign(written_id=rows[RUN_ID]).assign(**{RUN_ID: ids, CONFIG: texts})
    sizes = rows.reindex(columns=list(columns.TASK_SIZES))
    untold = sizes.isna().any(axis=1)
    if untold.any():
        tasks = pd.Series([json.dumps(config["task"]) for config in configs], rows.index)[untold]
        told = {text: _task_sizes(text) for text in tasks.unique()}
        sizes.loc[untold] = pd.DataFrame([told[text] for text in tasks], tasks.index)
    return rows.assign(**sizes.astype("int64"))


def _task_sizes(task: str) -> dict[str, int]:
    """What a task tells of its sizes, from its config as JSON."""
    from pydantic import TypeAdapter  # rows know them, but for those of earlier versions

    from .tasks import AnyTaskConfig, sizes

    return sizes(TypeAdapter(AnyTaskConfig).validate_json(task))


def finished_run_ids(folder: Path) -> set[str]:
    rows = read_shards(folder) if folder.is_dir() else pd.DataFrame()
    return set() if rows.empty else set(rows[RUN_ID])


def write_shard(folder: Path, pack_id: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows of a finished pack; they appear by one rename. Its checkpoint goes."""
    with replacing(folder / "shards" / f"{pack_id}.parquet") as temporary:
        pd.DataFrame(list(rows)).to_parquet(temporary, index=False)
    checkpoint_path(folder, pack_id).unlink(missing_ok=True)


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


def weights_path(folder: Path, run_id: str) -> Path:
    return folder / "models" / f"{run_id}.safetensors"


def write_weights(folder: Path, run_id: str, weights: Mapping[str, Any]) -> None:
    """Write a run's parameters, tensors by name; they appear by one rename."""
    from safetensors.torch import save_file

    with replacing(weights_path(folder, run_id)) as temporary:
        save_file(dict(weights), temporary)


def checkpoint_path(folder: Path, pack_id: str) -> Path:
    return folder / "checkpoints" / f"{pack_id}.pt"


def write_checkpoint(folder: Path, pack_id: str, state: dict) -> None:
    import torch

    with replacing(checkpoint_path(folder, pack_id)) as temporary:
        torch.save({"format": CHECKPOINT_FORMAT, **state}, temporary)


def read_checkpoint(folder: Path, pack_id: str) -> dict | None:
    """The state of an unfinished pack, or None where there is none of this format to be read."""
    import torch

    path = checkpoint_path(folder, pack_id)
    try:
        state = torch.load(path, weights_only=True, map_location="cpu") if path.exists() else {}
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
        return None  # it costs the pack's progress, not its result
    return state if state.get("format") == CHECKPOINT_FORMAT else None


def write_plan(folder: Path, packs: Mapping[str, Sequence[str]]) -> None:
    with replacing(folder / "plan.json") as temporary:
        temporary.write_text(json.dumps({PACKS: packs}, indent=1) + "\n")


def read_plan(folder: Path) -> dict[str, list[str]]:
    """The packs that an earlier sweep of this folder planned: pack id to run ids; none where that
    was a version with other ids, whose plan is a mapping of packs alone."""
    path = folder / "plan.json"
    try:
        return json.loads(path.read_text()).get(PACKS, {}) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise ResultsError(
            f"{path}: cannot be read ({error}); delete it to plan the unfinished packs anew"
        ) from error

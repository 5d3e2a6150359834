"""Tables on disk: one Parquet shard a pack, which appears whole or not at all.

    DIR/plan.json              which runs train together, so that a resumed sweep packs them alike
    DIR/shards/PACK.parquet    a row a run, its curve in list columns `curve.*`
    DIR/checkpoints/PACK.pt    where an unfinished pack goes on
    DIR/runs.csv               the table for people: all that a run's config decides
    DIR/provenance.csv         what a clock or a machine decided: seconds, device, versions

Columns of a run's config carry the names a grid uses: `task.seq_len`, `train.learning_rate`.
"""

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from .errors import ResultsError

PROVENANCE = (
    "pack_id",
    "pack_size",
    "seconds",
    "tokens_per_second",
    "device",
    "kernels",
    "zoorecall_version",
    "torch_version",
    "git_commit",
)

ADDED_TO_CURVES = ("max_loss", "max_grad_norm")
"""Columns of curves that rows of earlier versions do not have."""

CHECKPOINT_FORMAT = 2
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
    config = pd.json_normalize([json.loads(text) for text in shards["config"]])
    zeros = pd.Series(0.0, index=config.index)
    dropout = config.get("model.embed_dropout", zeros).fillna(0.0)  # left out where it is 0
    config = config.assign(**{"model.embed_dropout": dropout})
    curve_columns = [name for name in shards.columns if name.startswith("curve.")]
    measured = shards.drop(columns=["config", *curve_columns])
    runs = pd.concat([measured[["run_id", "mixer"]], config, measured.iloc[:, 2:]], axis=1)
    return Results(runs, _curves(shards))


def _curves(shards: pd.DataFrame) -> pd.DataFrame:
    """A row an evaluation; NaN in the columns that a run's row does not have."""
    lists = shards.filter(regex=r"^curve\.").rename(columns=lambda n: n.removeprefix("curve."))
    lists = lists.reindex(columns=[*lists, *(n for n in ADDED_TO_CURVES if n not in lists)])
    missing = lists["step"].map(lambda steps: [math.nan] * len(steps))
    lists = lists.apply(lambda column: column.astype(object).where(column.notna(), missing))
    curves = pd.concat([shards[["run_id", "mixer"]], lists], axis=1)
    curves = curves.explode([*lists], ignore_index=True)
    return curves.infer_objects().astype({"step": "int64"})


def read_shards(folder: str | Path) -> pd.DataFrame:
    """The shards' rows as they are on disk, one a run, by run id; empty if there are none."""
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
    columns = list(dict.fromkeys(name for frame in frames for name in frame))
    rows = rows.reindex(columns=columns).drop_duplicates("run_id")
    return rows.sort_values("run_id", ignore_index=True)


def finished_run_ids(folder: Path) -> set[str]:
    rows = read_shards(folder) if folder.is_dir() else pd.DataFrame()
    return set() if rows.empty else set(rows["run_id"])


def write_shard(folder: Path, pack_id: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows of a finished pack; they appear by one rename. Its checkpoint goes."""
    with replacing(folder / "shards" / f"{pack_id}.parquet") as temporary:
        pd.DataFrame(list(rows)).to_parquet(temporary, index=False)
    checkpoint_path(folder, pack_id).unlink(missing_ok=True)


def write_tables(folder: Path, order: Mapping[str, int]) -> None:
    """Write runs.csv and provenance.csv anew; `order` gives a run id's place in the grid."""
    runs = load_results(folder).runs
    place = runs["run_id"].map(lambda run_id: (order.get(run_id, len(order)), run_id))
    runs = runs.loc[place.sort_values().index]
    provenance = [name for name in PROVENANCE if name in runs]
    for name, table in (
        ("runs.csv", runs.drop(columns=provenance)),
        ("provenance.csv", runs[["run_id", *provenance]]),
    ):
        with replacing(folder / name) as temporary:
            table.to_csv(temporary, index=False)


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
        temporary.write_text(json.dumps(packs, indent=1) + "\n")


def read_plan(folder: Path) -> dict[str, list[str]]:
    """The packs that an earlier sweep of this folder planned: pack id to run ids."""
    path = folder / "plan.json"
    try:
        return json.loads(path.read_text()) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise ResultsError(
            f"{path}: cannot be read ({error}); delete it to plan the unfinished packs anew"
        ) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place, synced, if the block succeeds.

    Raises ResultsError where the disk does not take it (full, read-only); `path` is then as before.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError on a full disk
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise ResultsError(f"{path}: cannot be written: {reason}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def clear_temporaries(folder: Path) -> None:
    """Delete what a killed sweep was writing; a worker of it that still writes gives up."""
    for path in folder.rglob(".*.tmp"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder against a second sweep; raises ResultsError where one is at work on it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ResultsError(f"{folder}: another sweep is writing here") from error
            yield
    except OSError as error:
        raise ResultsError(f"{folder}: cannot be written: {error.strerror}") from error

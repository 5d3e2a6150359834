"""Files that are there whole or not at all, and folders that one sweep at a time writes to."""

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from .errors import ResultsError

TEMPORARY = ".zoorecall.tmp"
"""Ends the names of files that are not whole yet, and no one else's."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place, synced, if the block succeeds.

    Raises ResultsError where the disk does not take it (full, read-only); `path` is then as before.
    """
    if path.is_dir():
        raise ResultsError(f"{path}: is a folder, should be a file")
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
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


def clear_temporaries(folder: Path, subfolders: Sequence[str]) -> None:
    """Delete what a killed sweep was writing; a worker of it that still writes gives up."""
    for place in (folder, *(folder / name for name in subfolders)):
        for path in place.glob(f".*{TEMPORARY}"):
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

"""Where searches are kept: Optuna's own storage, a journal file or a database."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import optuna
from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy.exc import SQLAlchemyError

from ..errors import UserError

JOURNAL = "study.log"
"""The journal's name in a results folder."""

FAULTS = (
    *(SQLAlchemyError, OptunaError, ImportError, RuntimeError),
    *(ValueError, TypeError, LookupError, AttributeError, AssertionError),
)
"""What Optuna raises of a storage that is none, or of a journal whose lines are not its own."""

BEGINNING = b'{"op_code":'
"""Of each line that Optuna writes."""

NO_JOURNAL = "it is no journal of a search; a database is named as sqlite:///FILE"

PATIENCE = 10
"""Seconds without a line in the journal after which a lock is that of a process that was killed."""


def open_storage(where: str | Path | BaseStorage) -> BaseStorage:
    """The storage of a journal's path, or of a database's URL such as `sqlite:///study.db`; one of
    Optuna's is itself.

    Raises UserError where it cannot be opened or is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if isinstance(where, BaseStorage):
        return where
    try:
        if "://" in str(where):
            return RDBStorage(str(where))
        return _journal(Path(where).absolute())
    except OSError as error:
        reason = error.strerror or str(error)
    except FAULTS as error:
        reason = _reason(error)
    raise UserError(f"the storage {where} cannot be opened: {reason}")


@contextlib.contextmanager
def naming(where: str | Path) -> Iterator[None]:
    """Names the storage in an error of it that comes later: it is locked, read-only or lost."""
    try:
        yield
    except (OptunaError, SQLAlchemyError) as error:
        raise UserError(
            f"the storage {where} cannot be used: {_reason(error.__cause__ or error)}; what was "
            "trained is kept, the same command goes on"
        ) from error


def _reason(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _journal(path: Path) -> JournalStorage:
    """The journal of an absolute path: by another, Optuna does not see how old a lock is that a
    killed process has left, and waits for ever."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.open("ab").close()
    lock = JournalFileSymlinkLock(str(path), grace_period=PATIENCE)
    lock.acquire()
    try:
        _drop_half_a_line(path, *_lines(path))
    finally:
        lock.release()
    return JournalStorage(JournalFileBackend(str(path), lock))


def _lines(path: Path) -> tuple[list[bytes], bytes]:
    """The lines of a journal, and what stands behind the last. Raises ValueError for a file that is
    none, of which nothing is touched, and for the first line that is no entry: Optuna passes over
    such a last one, and cannot open what it then writes behind it."""
    *lines, rest = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not _is_entry(line):
            if number == 1:
                raise ValueError(NO_JOURNAL)
            raise ValueError(f"line {number} is damaged; without it the rest is used")
    if not (rest.startswith(BEGINNING) or BEGINNING.startswith(rest)):
        raise ValueError(f"line {len(lines) + 1} is damaged" if lines else NO_JOURNAL)
    return lines, rest


def _is_entry(line: bytes) -> bool:
    try:
        entry = json.loads(line)
    except ValueError:
        return False
    return isinstance(entry, dict) and {"op_code", "worker_id"} <= entry.keys()


def _drop_half_a_line(path: Path, lines: Sequence[bytes], rest: bytes) -> None:
    """Cut off what a process that was killed while it wrote has left behind the last line."""
    if rest:
        with path.open("r+b") as file:
            file.truncate(sum(len(line) + 1 for line in lines))

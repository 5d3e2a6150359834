"""Where searches are kept: Optuna's own storage, a journal file or a database."""

import contextlib
import json
from collections.abc import Iterator
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
        _drop_half_a_line(path)
        _check_lines(path)
    finally:
        lock.release()
    return JournalStorage(JournalFileBackend(str(path), lock))


def _drop_half_a_line(path: Path) -> None:
    """Cut off what a process that was killed while it wrote has left behind its last line."""
    text = path.read_bytes()
    if text and not text.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(text.rfind(b"\n") + 1)


def _check_lines(path: Path) -> None:
    """Raise ValueError for the first line that is no JSON: Optuna passes over the last such, and
    cannot open what it then writes behind it."""
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number} is damaged; without it the rest is used") from error

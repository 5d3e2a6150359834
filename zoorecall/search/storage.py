"""Where searches are kept: Optuna's own storage, a journal file or a database."""

from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import SQLAlchemyError

from ..errors import UserError

JOURNAL = "study.log"
"""The journal's name in a results folder."""


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
        path = Path(where)
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_half_a_line(path)
        return JournalStorage(JournalFileBackend(str(path)))
    except OSError as error:
        reason = error.strerror or error
    except (SQLAlchemyError, ImportError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
    raise UserError(f"the storage {where} cannot be opened: {reason}")


def _drop_half_a_line(path: Path) -> None:
    """Cut off what a process that was killed while it wrote has left behind its last line."""
    text = path.read_bytes() if path.exists() else b""
    if text and not text.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(text.rfind(b"\n") + 1)

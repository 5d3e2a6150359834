"""Files that are there whole or not at all, as they were written, and folders that one sweep, or
the parts of one, write to."""

import contextlib
import fcntl
import hashlib
import itertools
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from .errors import DamagedError, ResultsError

SettingUp = Callable[[], contextlib.AbstractContextManager[bool]]

TEMPORARY = ".zoorecall.tmp"
"""Ends the names of files that are not whole yet, and no one else's."""


MARK = b"zoorecall.sha256:"
BLANK = MARK + b"0" * 64
"""A seal before it is filled in, wherever in a file its format has room for a text. It is the hash
of all of the file's bytes, itself as zeros, so that it comes and goes with them."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that takes the place of `path`, synced, if the block succeeds.

    A link is followed. What is no regular file (/dev/null, /dev/stdout, a pipe) is written to.
    Raises ResultsError where the disk does not take it (full, read-only); `path` is then as before.
    """
    if path.is_dir():
        raise ResultsError(f"{path}: is a folder, should be a file")
    try:
        if is_stream(path):
            yield from _writing_to(path, _descriptor(path))
        else:
            yield from _replacing(Path(os.path.realpath(path)))
    except BrokenPipeError:
        raise  # whoever reads it has enough
    except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError on a full disk
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise ResultsError(f"{path}: cannot be written: {reason}") from error


def _replacing(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _writing_to(path: Path, descriptor: int | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield (temporary := Path(folder, path.name))
        sys.stdout.flush()
        into = path if descriptor is None else descriptor
        with temporary.open("rb") as file, open(into, "wb", closefd=descriptor is None) as out:
            shutil.copyfileobj(file, out)


def is_stream(path: Path) -> bool:
    """Whether a path is an open file of this process, as /dev/stdout, or no regular file, as a
    pipe; of these nothing is replaced, and nobody needs to be told where they are."""
    try:
        return _descriptor(path) is not None or not stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False


def _descriptor(path: Path) -> int | None:
    """The open file of this process that a path such as /dev/stdout stands for."""
    here = os.path.realpath("/proc/self/fd")
    while path.exists():
        if os.path.realpath(path.parent) == here:
            return int(path.name)
        if not path.is_symlink():
            break
        path = path.parent / path.readlink()
    return None


def seal(path: Path) -> None:
    """Fill in the seal of a file that was written with a blank one."""
    content = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(content.index(BLANK) + len(MARK))
        file.write(hashlib.sha256(content).hexdigest().encode())


def is_sealed(path: Path) -> bool:
    """Whether a file has a seal, be it whole or broken."""
    return MARK in path.read_bytes()


def read_sealed(path: Path, needed: bool = True) -> bytes:
    """The bytes of a file, which are as they were written.

    Raises DamagedError where its seal is broken, or missing although `needed`, OSError where the
    file cannot be read.
    """
    content = path.read_bytes()
    start = content.find(MARK) + len(MARK)
    end = start + len(BLANK) - len(MARK)
    if start < len(MARK):
        if needed:
            raise DamagedError(path, "has no checksum, as another version or program writes it")
        return content
    view, found = memoryview(content), hashlib.sha256()
    for part in (view[:start], BLANK[len(MARK) :], view[end:]):
        found.update(part)
    if found.hexdigest().encode() != content[start:end]:
        raise DamagedError(path, "is damaged, as its checksum tells")
    return content


def written(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is written anew; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def set_aside(path: Path) -> Path:
    """Rename a damaged file to the first free of NAME.damaged, NAME.damaged.1, ...; returns it."""
    aside = path.with_name(f"{path.name}.damaged")
    aside = aside if not aside.exists() else first_free(aside)
    try:
        return path.rename(aside)
    except OSError as error:
        raise ResultsError(
            f"{path}: is damaged, and cannot be renamed: {error.strerror}"
        ) from error


def first_free(path: Path) -> Path:
    """The first of NAME.1, NAME.2, ... that is not there."""
    paths = (path.with_name(f"{path.name}.{number}") for number in itertools.count(1))
    return next(path for path in paths if not path.exists())


def clear_temporaries(folder: Path, subfolders: Sequence[str]) -> None:
    """Delete what a killed sweep was writing; a worker of it that still writes gives up."""
    for place in (folder, *(folder / name for name in subfolders)):
        for path in place.glob(f".*{TEMPORARY}"):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path, part: tuple[int, int] | None = None) -> Iterator[SettingUp]:
    """Hold the folder against any other sweep or, as part i of n, against a whole sweep, against
    parts of another number and against the same part; raises ResultsError where one is at work.

    Gives a context in which the holder sets the folder up or merges it, for which it waits until no
    other part does; that says whether no other part is at work. Between machines all this holds as
    far as the folder's file system has locks that do.
    """
    shared, setup = folder / ".lock", folder / ".lock.setup"
    with contextlib.ExitStack() as files:
        files.enter_context(_writable(folder))
        if part is None:
            with _open(setup) as setting_up:  # a part that changes its lock has none for a moment
                fcntl.flock(setting_up, fcntl.LOCK_EX)
                lock = files.enter_context(_open(shared))
                _lock(lock, fcntl.LOCK_EX, f"{folder}: another sweep is writing here")
            yield lambda: contextlib.nullcontext(True)
            return
        i, n = part
        own = files.enter_context(_open(folder / f".lock.{i}-of-{n}"))
        _lock(own, fcntl.LOCK_EX, f"{folder}: part {i}/{n} is at work here already")
        for path in folder.glob(".lock.*-of-*"):
            if not path.name.endswith(f"-of-{n}"):
                with _open(path) as other:
                    _lock(other, fcntl.LOCK_SH, f"{folder}: a part of other than {n} is at work")
        lock, setting_up = files.enter_context(_open(shared)), files.enter_context(_open(setup))
        yield lambda: _setting_up(folder, lock, setting_up)


@contextlib.contextmanager
def _setting_up(folder: Path, lock: IO[str], setting_up: IO[str]) -> Iterator[bool]:
    """What a part holds from the first time on is `lock`, which parts share."""
    fcntl.flock(setting_up, fcntl.LOCK_EX)
    busy = f"{folder}: a whole sweep is writing here"
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        alone = True
    except BlockingIOError:
        _lock(lock, fcntl.LOCK_SH, busy)
        alone = False
    yield alone
    _lock(lock, fcntl.LOCK_SH, busy)
    fcntl.flock(setting_up, fcntl.LOCK_UN)


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Have a folder, and name it in an error of the block."""
    if folder.exists() and not folder.is_dir():
        raise ResultsError(f"{folder}: is a file, should be a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ResultsError(f"{folder}: cannot be written: {error.strerror}") from error


def _open(path: Path) -> IO[str]:
    """A file to lock; over a network the one that shares a lock must read, the other write."""
    return path.open("a+")


def _lock(file: IO[str], kind: int, busy: str) -> None:
    """Lock a file, or raise ResultsError with this text."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ResultsError(busy) from error

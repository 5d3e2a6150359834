"""How a command or script ends: one line for its user, and an exit code."""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from .errors import Interrupted, SweepFailed, UserError

USER_ERROR, RESUME, INTERRUPTED = 2, 75, 130


def exit_code(command: Callable[[], int | None]) -> int:
    """Run a command or script; what goes wrong for its user becomes one line and an exit code:
    1 (some runs failed), 2 (bad input), 75 (a signal asked for the end: go on later), 130 (Ctrl-C).
    """
    nowhere = Path(os.devnull)  # in the place of what is closed
    sys.stdout, sys.stderr = (x or nowhere.open("w") for x in (sys.stdout, sys.stderr))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show, it shows escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return command() or 0
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt as error:
        with contextlib.suppress(ValueError):  # in a thread there is no signal to wait for
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # another would only hide the exit code
        notes = getattr(error, "__notes__", [])
        line = "; ".join(["\ninterrupted", *notes, "the same command goes on from here"])
        return _fail(line, RESUME if isinstance(error, Interrupted) else INTERRUPTED)
    except BrokenPipeError:  # e.g. `zoorecall table DIR | head`
        _discard_output()
        return 0
    except UserError as error:
        return _fail(error, USER_ERROR)
    except SweepFailed as error:
        return _fail(error, 1)
    except OSError as error:
        if error.filename is None:
            _discard_output()
        return _fail(f"{error.filename or 'output'}: {error.strerror or error}", USER_ERROR)


def _fail(reason: object, code: int) -> int:
    with contextlib.suppress(OSError):
        print(reason, file=sys.stderr, flush=True)
    return code


def _discard_output() -> None:
    """Let go of a standard output that takes no more, so that nothing is written to it at exit."""
    with contextlib.suppress(OSError):  # it is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def ending_signals() -> Iterator[None]:
    """Have the signals of a terminal that closes, of `kill` and of Slurm end the block as a Ctrl-C
    does, the first of them: several may come at once."""

    def end(number: int, frame: object) -> None:
        for each in before:
            signal.signal(each, lambda *_: None)
        raise Interrupted(signal.Signals(number).name)

    before = {}
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

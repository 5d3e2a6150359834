"""What can go wrong for a user. The text of a UserError is one line that says how to mend it."""

import sys
from collections.abc import Callable

USER_ERROR, INTERRUPTED = 2, 130


class UserError(Exception):
    """Bad input or a bad place; the command line prints its text and exits with 2."""


class GridError(UserError):
    """A grid file that does not say what to train."""


class ResultsError(UserError):
    """A results folder that cannot be read or written."""


class DeviceError(UserError):
    """A device that is not there."""


class SweepFailed(Exception):
    """Some packs could not be trained; the rows of all others are written."""


def exit_code(command: Callable[[], int | None]) -> int:
    """Run a command or script; what goes wrong for its user becomes one line and an exit code:
    1 (some packs failed), 2 (bad input), 130 (interrupted)."""
    try:
        return command() or 0
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # e.g. `zoorecall table DIR | head`
        sys.stderr.close()
        return 0
    except UserError as error:
        print(error, file=sys.stderr)
        return USER_ERROR
    except SweepFailed as error:
        print(error, file=sys.stderr)
        return 1

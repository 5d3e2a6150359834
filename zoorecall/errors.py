"""What can go wrong for a user. The text of a UserError is one line that says how to mend it."""

from pathlib import Path


class UserError(Exception):
    """Bad input or a bad place; the command line prints its text and exits with 2."""


class GridError(UserError):
    """A grid file that does not say what to train."""


class ResultsError(UserError):
    """A results folder that cannot be read or written."""


class DamagedError(ResultsError):
    """A file of a results folder that is not as it was written; a sweep sets it aside."""

    def __init__(self, path: Path, reason: str):
        super().__init__(
            f"{path}: {reason}; `zoorecall sweep` into its folder sets it aside and makes anew "
            "what it held"
        )
        self.path, self.reason = path, reason


class DeviceError(UserError):
    """A device that is not there."""


class Interrupted(KeyboardInterrupt):
    """A signal asked a sweep to end, which it can go on from later."""


class SweepFailed(Exception):
    """Some packs could not be trained; the rows of all others are written."""


class ZoorecallWarning(UserWarning):
    """What a user should know of a run that goes on; a sweep shows it as one line."""

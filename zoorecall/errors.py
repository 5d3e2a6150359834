"""What can go wrong for a user. The text of a UserError is one line that says how to mend it."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


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


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """A function for users that raises UserError where an argument is not of the type it states."""
    # not at the top: the command needs errors before it takes the working folder off the path
    from inspect import signature

    from pydantic import ConfigDict, ValidationError, validate_call

    stated = signature(function)
    valid = validate_call(config=ConfigDict(strict=True, arbitrary_types_allowed=True))(function)

    @functools.wraps(function)
    def call(*args: P.args, **given: P.kwargs) -> T:
        named = stated.bind(*args, **given).arguments
        try:
            return valid(**named)  # type: ignore[call-arg]
        except ValidationError as error:
            if error.title != function.__name__:  # raised inside
                raise
            first = error.errors()[0]
        name = str(first["loc"][0])
        what = f"{first['msg']}, not {named[name]!r:.60}"
        raise UserError(f"{function.__name__}: {name}: {what}") from None

    return call

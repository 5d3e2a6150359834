"""Where Python looks for modules. Imports nothing heavy: it runs before anything else does."""

import os
from collections.abc import Iterable


def working_folder_last(path: Iterable[str]) -> list[str]:
    """A search path with the working folder at its end: a user's mixer is found there, and a file
    of theirs that is called random.py takes no library's place."""
    here = os.getcwd()
    return [entry for entry in path if os.path.realpath(entry) != here] + [here]

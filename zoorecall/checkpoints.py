"""What is kept of a run beside its row, each a file of its own: a checkpoint while it trains, its
weights if its config says so. Both are sealed (`files.seal`)."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import DamagedError
from .files import BLANK, read_sealed, replacing, seal

CHECKPOINT_FORMAT = 4
"""Counts the changes of what a checkpoint holds; one of another format is as good as none."""


def weights_path(folder: Path, run_id: str) -> Path:
    return folder / "models" / f"{run_id}.safetensors"


def write_weights(folder: Path, run_id: str, weights: Mapping[str, Any]) -> None:
    """Write a run's parameters, tensors by name; they appear by one rename."""
    from safetensors.torch import save

    with replacing(weights_path(folder, run_id)) as temporary:
        # not `save_file`, whose error on a full disk is none of the system's
        temporary.write_bytes(save(dict(weights), {"seal": BLANK.decode()}))
        seal(temporary)


def checkpoint_path(folder: Path, run_id: str) -> Path:
    return folder / "checkpoints" / f"{run_id}.pt"


def write_checkpoint(folder: Path, run_id: str, state: Mapping[str, Any]) -> None:
    import torch

    with replacing(checkpoint_path(folder, run_id)) as temporary:
        with temporary.open("wb") as file:
            file.write(BLANK)
            torch.save({"format": CHECKPOINT_FORMAT, **state}, file)
        seal(temporary)


def read_checkpoint(folder: Path, run_id: str) -> dict | None:
    """The state of an unfinished run, or None where there is none.

    Raises DamagedError where it is not as this version wrote it.
    """
    import torch

    path = checkpoint_path(folder, run_id)
    try:
        content = read_sealed(path)
        state = torch.load(io.BytesIO(content[len(BLANK) :]), "cpu", weights_only=True)
        found = state.pop("format", None)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except DamagedError:
        raise
    except Exception as error:  # of pickle, torch, zip files
        raise DamagedError(path, f"cannot be read ({type(error).__name__})") from error
    if found != CHECKPOINT_FORMAT:
        raise DamagedError(path, "is of another format, as another version writes it")
    return state

"""Models that outlived their training: the weights of a results folder, ready to run."""

from pathlib import Path

import torch
from safetensors.torch import load

from ..columns import CONFIG, RUN_ID
from ..config import RunConfig
from ..errors import ResultsError
from ..files import read_sealed
from ..results import read_rows, weights_path
from .model import Model, build_model


def load_models(folder: str | Path) -> dict[str, Model]:
    """The models of the runs that kept their weights (`train.keep: weights`), by run id.

    Each is a model of one run, R = 1, on the CPU, as `model.build_model` makes it. Raises
    ResultsError where the folder has none, or one that cannot be read.
    """
    rows, models = read_rows(folder), {}
    for row in rows.to_dict("records"):
        path = weights_path(Path(folder), row[RUN_ID])
        if path.exists():
            models[row[RUN_ID]] = _load(RunConfig.model_validate_json(row[CONFIG]), path)
    if not models:
        raise ResultsError(f"{folder}: no weights here; `train.keep: weights` keeps them")
    return models


@torch.no_grad()
def _load(run: RunConfig, path: Path) -> Model:
    content = read_sealed(path)
    model = build_model(run)
    try:
        model.load_state_dict(load(content))
    except Exception as error:  # safetensors raises an error of its own, torch others
        reason = " ".join(str(error).split())
        raise ResultsError(f"{path}: has no weights of its run ({reason})") from error
    return model.eval()

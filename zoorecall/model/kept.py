"""Models that outlived their training: the weights of a results folder, ready to run."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from ..columns import CONFIG, RUN_ID
from ..config import RunConfig
from ..errors import ResultsError
from ..mixers.user_module import UserModule
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
    model = build_model(run)
    try:
        weights = load_file(path)
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
        for name, part in model.named_modules():
            if isinstance(part, UserModule):
                named = ((key.removeprefix(f"{name}."), key) for key in weights)
                part.load({key: weights[full] for key, full in named if key != full})
    except Exception as error:  # safetensors raises an error of its own, torch others
        reason = str(error).splitlines()[0]
        raise ResultsError(
            f"{path}: cannot be read as the weights of its run ({reason})"
        ) from error
    return model.eval()

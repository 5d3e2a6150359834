"""Models that outlived their training: the weights of a results folder, ready to run."""

import warnings
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors.torch import load

from ..checkpoints import weights_path
from ..columns import CONFIG, RUN_ID
from ..config import RunConfig
from ..errors import ResultsError, ZoorecallWarning
from ..files import read_sealed
from ..mixers.user_module import UserModule
from ..results import read_rows
from .model import Model, build_model


def load_models(folder: str | Path) -> dict[str, Model]:
    """The models of the runs that kept their weights (`train.keep: weights`), by run id.

    Each is a model of one run, R = 1, on the CPU, as `model.build_model` makes it. Raises
    ResultsError where the folder has none, or one that cannot be read; warns where the code of a
    user's own mixer was edited since.
    """
    rows, models = read_rows(folder), {}
    for row in rows.to_dict("records"):
        path = weights_path(Path(folder), row[RUN_ID])
        if path.exists():
            models[row[RUN_ID]] = load_model(row[CONFIG], path)
    if not models:
        raise ResultsError(f"{folder}: no weights here; `train.keep: weights` keeps them")
    return models


@torch.no_grad()
def load_model(config: str, path: Path) -> Model:
    """The model of one run, of its config as a row has it and the file of its weights."""
    content = read_sealed(path)
    try:
        model, weights = build_model(RunConfig.model_validate_json(config)), load(content)
        own = dict(model.named_parameters())
        if any(own[name].shape != weights[name].shape for name in own):
            raise ValueError("they have other shapes")
        for name, parameter in own.items():
            parameter.copy_(weights[name])
        for name, part in model.named_modules():
            if isinstance(part, UserModule):
                named = ((key.removeprefix(f"{name}."), key) for key in weights)
                part.load({key: weights[full] for key, full in named if key != full})
    except Exception as error:  # safetensors raises an error of its own, torch others
        words = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        reason = words.splitlines()[0]
        raise ResultsError(
            f"{path}: cannot be read as the weights of its run ({reason})"
        ) from error
    for name in {mixer.config.name for mixer in model.user_mixers if mixer.config.edited}:
        warnings.warn(f"{name} was edited since {path} was written", ZoorecallWarning, stacklevel=3)
    return model.eval()

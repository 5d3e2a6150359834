"""What an accuracy is worth: that of the best answers which recall nothing, by task."""

import json
from functools import cache

import numpy as np
import pandas as pd

from .. import words
from ..columns import TASK

PART = "task."


def without_recall(runs: pd.DataFrame) -> pd.Series:
    """For each run of a table the accuracy of the best answers that recall nothing, see
    `tasks.Task.without_recall`; NaN where its task does not tell."""
    if TASK not in runs:
        return pd.Series(np.nan, index=runs.index)
    options = runs[[name for name in map(str, runs) if name.startswith(PART)]]
    texts = [json.dumps({name: _plain(x) for name, x in row.items()}) for row in _records(options)]
    return pd.Series([_floor(text) for text in texts], index=runs.index, dtype=float)


def _records(options: pd.DataFrame) -> list[dict[str, object]]:
    return [
        {str(name).removeprefix(PART): x for name, x in row.items() if not words.missing(x)}
        for row in options.to_dict("records")
    ]


def _plain(x: object) -> object:
    """An option's value as JSON has it: in tables that mix tasks truth values stand as text, and
    whole numbers may stand as others."""
    if isinstance(x, str):
        return {"true": True, "false": False}.get(x, x)
    return int(x) if isinstance(x, float) and x.is_integer() else x


@cache
def _floor(text: str) -> float | None:
    from pydantic import TypeAdapter

    from ..tasks import TASKS, AnyTaskConfig, make_task

    options = json.loads(text)
    if options["name"] not in TASKS:
        return None
    known = TASKS[options["name"]].Config.model_fields
    config = json.dumps({name: x for name, x in options.items() if name in known})
    return make_task(TypeAdapter(AnyTaskConfig).validate_json(config)).without_recall()

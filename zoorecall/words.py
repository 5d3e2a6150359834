"""Numbers and settings in words, alike in terminal, page and figures."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from .columns import (
    DEPTH,
    FOLDER,
    MIXER,
    MIXER_NAME,
    MIXER_OPTIONS,
    MIXER_TITLE,
    NUM_PAIRS,
    TASK,
    name,
)

MIXERS = {
    "attention": "Attention",
    "based": "Based",
    "base_conv": "BaseConv",
    "h3": "H3",
    "hyena": "Hyena",
    "rwkv": "RWKV",
    "mamba": "Mamba",
    "s6": "S6",
    "mamba2": "Mamba-2",
    "delta_net": "DeltaNet",
    "gated_delta_net": "Gated DeltaNet",
    "gla": "GLA",
}
"""What the field calls the mixers, as figures, report and LaTeX do. The other tables have the names
that a grid takes."""


def mixer(name: str, options: Mapping[str, Any]) -> str:
    """What people call a mixer, from its name and the options that are not at their defaults:
    `Attention`, `GLA (conv)`, `Mamba (no norm)`, `2x H3 + Based`; a user's own by its class."""
    if name == "pattern":
        parts = [
            mixer(one["name"], {key: x for key, x in one.items() if key != "name"})
            for one in options["mixers"]
        ]
        rest = {key: x for key, x in options.items() if key != "mixers"}
        in_turn = [(part, len([*alike])) for part, alike in groupby(parts)]
        said = [part if times == 1 else f"{times}x {part}" for part, times in in_turn]
        return " + ".join(said) + _in_brackets(rest)
    return MIXERS.get(name, name.rpartition(":")[2]) + _in_brackets(options)


def _in_brackets(options: Mapping[str, Any]) -> str:
    def said(key: str, x: Any) -> str:
        if x is True or x is False or x is None:
            return key if x else f"no {key}"
        return f"{key} {' '.join(map(value, x)) if isinstance(x, list) else value(x)}"

    return f" ({', '.join(said(*item) for item in options.items())})" if options else ""


def mixer_names(runs: pd.DataFrame) -> dict[str, str]:
    """What to call each mixer of a table of runs, by its label and in the order of labels: its
    `MIXER_TITLE` where the table has that column. Where two would be called the same, by label."""
    told = runs.drop_duplicates(MIXER).set_index(MIXER).sort_index()
    if MIXER_TITLE in told:
        return {str(label): str(title) for label, title in told[MIXER_TITLE].items()}
    named = {
        str(label): mixer(name, json.loads(options))
        for label, name, options in told[[MIXER_NAME, MIXER_OPTIONS]].itertuples()
    }
    count = Counter(named.values())
    return {label: x if count[x] == 1 else label for label, x in named.items()}


def missing(value: Any) -> bool:
    """Whether a cell of a table is empty."""
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def setting(values: Mapping[str, Any]) -> str:
    """A setting by its columns: `1 layer, width 64, length 64`. What its task has no use for is
    left out; nothing set is said."""
    words = []
    for column, x in values.items():
        if column == DEPTH:
            words.append(count(x, "layer"))
        elif column == NUM_PAIRS:
            words.append(count(x, "pair"))
        elif column in (TASK, FOLDER, MIXER):
            words.append(str(x))
        elif not missing(x):
            words.append(f"{name(column)} {value(x)}")
        elif not (TASK in values and column.startswith("task.")):
            words.append(f"no {name(column)}")
    return ", ".join(words)


def value(x: Any) -> str:
    """A setting's value as people write it."""
    if isinstance(x, bool | np.bool_):
        return str(x).lower()
    if isinstance(x, float):
        return f"{x:.0f}" if abs(x) >= 1e4 else f"{x:g}"
    return " and ".join(map(value, x)) if isinstance(x, tuple) else str(x)


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def rate(learning_rate: float) -> str:
    """A learning rate to two digits: 1e-5, 5.6e-3."""
    digits, _, exponent = f"{learning_rate:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listing(names: Iterable[str]) -> str:
    """Names as people list them: a, b and c."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last

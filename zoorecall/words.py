"""Numbers and settings in words, alike in terminal, page and figures."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from .columns import DEPTH, TASK, name


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
        elif column == TASK:
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

"""What the page's charts draw, as plain lists and numbers: panels, looks, and a run's curves.

Numbers are rounded to what can be seen, so that the page stays small; what is not finite is None.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex, to_rgb
from matplotlib.markers import MarkerStyle

from .. import words
from ..analysis.accuracy import with_pairs
from ..analysis.summary import Summary
from ..columns import MIXER, RATE
from ..plots.style import mixer_looks

DASHES = {"-": "none", "--": "7 3", ":": "2 3", "-.": "7 3 2 3"}
DARK_LUMINANCE = 0.18
"""The least luminance (WCAG's, 0 to 1) of a colour on a dark page: a contrast of 3 or more."""


def looks(found: Summary) -> list[dict[str, str]]:
    """How each mixer is drawn, as in the figures of `plots`: colours on a light and on a dark
    page, and its marker (of radius 1) and dashes as SVG says them."""
    return [
        {
            "mixer": found.titles[mixer],
            "light": look.color,
            "dark": on_dark(look.color),
            "marker": outline(look.marker),
            "dashes": DASHES[look.linestyle],
        }
        for mixer, look in mixer_looks(found.runs).items()
    ]


def on_dark(color: str) -> str:
    """A colour mixed with as much white as a dark page needs."""
    rgb = np.array(to_rgb(color))
    while luminance(rgb) < DARK_LUMINANCE:
        rgb = 0.95 * rgb + 0.05
    red, green, blue = rgb
    return to_hex((red, green, blue))


def luminance(rgb: np.ndarray) -> float:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def outline(marker: str) -> str:
    """A matplotlib marker as an SVG path; SVG's y goes down."""
    style = MarkerStyle(marker)
    (polygon,) = style.get_path().transformed(style.get_transform()).to_polygons()
    corners = [f"{2 * x:.2f} {-2 * y:.2f}" for x, y in np.asarray(polygon, dtype=float)]
    return f"M{'L'.join(corners)}Z"


def panels(found: Summary) -> list[dict[str, Any]]:
    """Accuracy against learning rate: a panel a setting, a line a mixer, by its place in `looks`,
    with the mean, the accuracy of each seed and how many of them solve at each rate."""
    place = {mixer: index for index, mixer in enumerate(mixer_looks(found.runs))}
    keys = found.columns[1:]
    tables = (table.groupby(keys, dropna=False) for table in (found.by_rate, found.runs))
    return [
        {
            "title": words.setting(with_pairs(dict(zip(keys, key, strict=True)), runs)),
            "lines": [
                {
                    "look": place[str(mixer)],
                    "x": rounded(line[RATE], 6),
                    "mean": rounded(line["mean"], 5),
                    "each": [rounded(sorted(seeds), 5) for seeds in line["each"]],
                    "solved": line["solved"].tolist(),
                }
                for mixer, line in panel.groupby(MIXER)
            ],
        }
        for (key, panel), (_, runs) in zip(*tables, strict=True)
    ]


def run_curves(curves: pd.DataFrame) -> dict[str, dict[str, list]]:
    """Each run's evaluations, by run id."""
    return {
        str(run_id): {
            "step": curve["step"].tolist(),
            "train": rounded(curve["train_loss"], 4),
            "test": rounded(curve["test_loss"], 4),
            "accuracy": rounded(curve["test_accuracy"], 5),
        }
        for run_id, curve in curves.groupby("run_id")
    }


def rounded(values: Iterable[float], digits: int) -> list[float | None]:
    """To so many significant digits, as JSON can hold them."""
    return [float(f"{value:.{digits}g}") if math.isfinite(value) else None for value in values]

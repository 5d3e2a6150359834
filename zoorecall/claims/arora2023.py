"""The points of Zoology's figure 2 (Arora et al. 2023, arXiv 2312.04927) beside runs of its recipe.

The points are read off the picture in its repository (`assets/figure2.png`), at most 0.02 away.
They are of runs launched from 25 October to 13 November 2023, as the repository's script of the
figure lists them (`zoology/analysis/paper/figure2.py`, January 2024), so of other code than any
config of figure 2: `grids/zoology_2023.yaml` says what its history tells of it.
"""

import pandas as pd

from ..columns import DEPTH, LENGTH, MIXER, ORDER, SEED, WIDTH

WIDTHS = (64, 128, 256, 512)
SHORT, LONG = "base_conv", "base_conv (conv=implicit)"
BASE_CONV, BASE_CONV_2023 = f"{SHORT} + {LONG}", f"{SHORT} + {SHORT} + {LONG} + {LONG}"
"""One in the place of the mixer, and one in that of the MLP, too."""
POINTS: dict[int, dict[str, tuple[float, float, float, float]]] = {
    64: {
        "attention": (1.00, 1.00, 1.00, 1.00),
        "hyena": (0.52, 0.75, 0.85, 0.87),
        "rwkv": (0.76, 0.94, 0.97, 0.98),
        "h3": (0.93, 1.00, 0.99, 0.98),
        BASE_CONV: (0.70, 0.94, 0.97, 1.00),
    },
    128: {
        "attention": (1.00, 1.00, 1.00, 1.00),
        "hyena": (0.19, 0.65, 0.74, 0.84),
        "rwkv": (0.18, 0.50, 0.75, 0.94),
        "h3": (0.25, 0.73, 0.92, 0.76),
        BASE_CONV: (0.38, 0.61, 0.84, 0.97),
    },
}
"""Accuracy at the best of four learning rates, by length and mixer, at each of `WIDTHS`."""


def beside_published(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a point of a mixer that was run, its accuracy as `published`, and a depth and order
    that were run, if there are any. A seed's accuracy is as the paper has it, at its best learning
    rate, not held out: `accuracy` is the mean over seeds, `least` and `most` are their ends, and
    `difference` is what the mean is more than published."""
    points = pd.DataFrame(
        [
            (length, name, width, accuracy)
            for length, mixers in POINTS.items()
            for mixer, accuracies in mixers.items()
            for name in ([BASE_CONV, BASE_CONV_2023] if mixer == BASE_CONV else [mixer])
            for width, accuracy in zip(WIDTHS, accuracies, strict=True)
        ],
        columns=[LENGTH, MIXER, WIDTH, "published"],
    )
    setting = [LENGTH, MIXER, WIDTH, DEPTH, ORDER]
    best = runs.groupby([*setting, SEED])["test_accuracy"].max().groupby(setting)
    found = best.agg(accuracy="mean", least="min", most="max", seeds="count").reset_index()
    table = points[points[MIXER].isin(runs[MIXER])].merge(found, "left", [LENGTH, MIXER, WIDTH])
    table["difference"] = table["accuracy"] - table["published"]
    return table

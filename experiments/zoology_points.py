"""Zoology's published figure 2 (Arora et al. 2023, arXiv 2312.04927) beside runs of its recipe.

    python experiments/zoology_points.py

Prints every published point with what was run for it, by depth and by the order of the batches:
the best of the learning rates. Grids: grids/zoology_figure2.yaml, trained into
results/zoology_figure2 if nothing of it is there, and, where it is trained,
grids/zoology_2023.yaml. Figure and table, in the folder of each: published, as .png, .pdf and .csv.
"""

from pathlib import Path

import pandas as pd

from zoorecall import words
from zoorecall.claims.arora2023 import beside_published
from zoorecall.columns import DEPTH, LENGTH, MIXER, ORDER, WIDTH, name
from zoorecall.exits import exit_code
from zoorecall.files import replacing
from zoorecall.plots import accuracy_beside_published
from zoorecall.studies import draw, is_trained, load_study, missing_runs
from zoorecall.tables import print_table, readable

STUDIES = ("zoology_figure2", "zoology_2023")


def by_variant(table: pd.DataFrame) -> pd.DataFrame:
    """One row a point, a column a depth and order."""
    pairs = zip(table[DEPTH], table[ORDER], strict=True)
    variants = [f"{words.count(depth, 'layer')}, {order}" for depth, order in pairs]
    point = [LENGTH, MIXER, WIDTH, "published"]
    found = table.assign(variant=variants).set_index([*point, "variant"])["accuracy"].unstack()
    found = found.round(2).astype(object).where(found.notna(), "")
    return found.reset_index().rename(columns=name)


def main() -> None:
    for study in STUDIES:
        if study == STUDIES[0] or is_trained(study):
            show(study)


def show(study: str) -> None:
    """Draw and print what a study has."""
    results = load_study(study)
    table = beside_published(results.runs)
    draw(study, {"published": accuracy_beside_published(results.runs, table, ORDER)})
    run = table.dropna(subset=["accuracy"]).astype({DEPTH: int, "seeds": int})
    with replacing(Path("results", study, "published.csv")) as temporary:
        run.to_csv(temporary, index=False, float_format="%.4g")
    print_table(readable(by_variant(run)))
    print(missing_runs(study, results))


if __name__ == "__main__":
    raise SystemExit(exit_code(main))

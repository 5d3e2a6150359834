"""What the kinds of training look like: ten real curves of each, of all results, on one page.

    python experiments/curve_classes.py

Reads every folder of results/ that holds finished runs. Analysis: the kinds and the sudden falls
of the loss, `zoorecall/analysis/bumps.py`. Figure: results/curve_classes.png.
"""

from pathlib import Path

import pandas as pd

from zoorecall.exits import exit_code
from zoorecall.plots import curves_by_kind, save
from zoorecall.studies import trained_studies

FIGURE = Path("results/curve_classes.png")


def main() -> None:
    studies = trained_studies().values()
    runs = pd.concat([x.runs for x in studies]).drop_duplicates("run_id")
    curves = pd.concat([x.curves for x in studies]).drop_duplicates(["run_id", "step"])
    save(curves_by_kind(runs, curves), FIGURE)
    print(f"figure  {FIGURE}")


if __name__ == "__main__":
    raise SystemExit(exit_code(main))

"""How 1-layer models learn: figure 5 of Okpekpe and Orvieto 2025 (arXiv 2508.19029), with the
sudden falls of the loss marked.

    python experiments/dynamics.py

Grid: grids/dynamics.yaml, trained into results/dynamics if nothing of it is there (about two hours
of one H100). Figure: results/dynamics/dynamics.png and .pdf, each model at its best learning rate.
Tables: what the runs came to and the kinds of training, at that rate and at all.
"""

import pandas as pd

from zoorecall.analysis.accuracy import best_accuracies, setting_columns
from zoorecall.analysis.bumps import classify
from zoorecall.analysis.outcomes import outcomes
from zoorecall.columns import RATE, WIDTH
from zoorecall.exits import exit_code
from zoorecall.plots import figure
from zoorecall.studies import draw, load_study, missing_runs
from zoorecall.tables import print_table, readable


def main() -> None:
    results = load_study("dynamics")
    runs = results.runs
    draw("dynamics", {"dynamics": figure("dynamics", results)})
    kinds = runs.merge(classify(runs, results.curves)[["run_id", "kind"]])
    kinds = kinds.assign(outcome=kinds["run_id"].map(outcomes(runs, results.curves)))
    best = best_accuracies(runs).rename(columns={"best_rate": RATE})
    at_best = kinds.merge(best[[*setting_columns(runs), RATE]])
    for title, table in (("at the best learning rate", at_best), ("at all learning rates", kinds)):
        print(f"\n{title}")
        for column in ("outcome", "kind"):
            counts = pd.crosstab([table["mixer"], table[WIDTH]], table[column])
            print_table(readable(counts.reset_index()))
    print(missing_runs("dynamics", results))


if __name__ == "__main__":
    raise SystemExit(exit_code(main))

"""Accuracy against learning rate: figure 1 of Okpekpe and Orvieto 2025 (arXiv 2508.19029).

    python experiments/lr_sensitivity.py

Grid: grids/lr_fine.yaml, trained into results/lr_fine if nothing of it is there (about an hour of
one H100). Analysis: windows of learning rates, and what Zoology's four rates would have reported.
Figure: results/lr_fine/learning_rates.png and .pdf.
"""

from zoorecall.analysis.sparse_grids import reported
from zoorecall.analysis.summary import summarize
from zoorecall.columns import DEPTH
from zoorecall.exits import exit_code
from zoorecall.plots import figure
from zoorecall.studies import draw, load_study, missing_runs
from zoorecall.tables import interval, print_table, readable

LOST = [*interval("accuracy"), *interval("full"), *interval("lost")]


def main() -> None:
    results = load_study("lr_fine")
    draw("lr_fine", {"learning_rates": figure("rates", results)})
    print_table(readable(summarize(results).table()))
    print("\nwith Zoology's four learning rates alone")
    columns = ["mixer", DEPTH, *LOST, "missed", "seeds"]
    print_table(readable(reported(results.runs).reindex(columns=columns)))
    print(missing_runs("lr_fine", results))


if __name__ == "__main__":
    raise SystemExit(exit_code(main))

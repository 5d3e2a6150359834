"""Accuracy against width at three lengths: figure 2 of Okpekpe and Orvieto 2025 (arXiv
2508.19029), the best of all learning rates beside the best of Zoology's four.

    python experiments/width_and_length.py

Grid: grids/lengths.yaml, trained into results/lengths if nothing of it is there (many hours of one
H100; the grid says how to take a part). Figures, in results/lengths as .png and .pdf: width, and
learning_rates, figure 1 for every width and length.
"""

from zoorecall.analysis.accuracy import setting_columns
from zoorecall.analysis.scaling import smallest_widths
from zoorecall.analysis.sparse_grids import reported
from zoorecall.exits import exit_code
from zoorecall.plots import figure
from zoorecall.studies import draw, load_study, missing_runs
from zoorecall.tables import interval, print_table, readable

LOST = [*interval("accuracy"), *interval("full"), *interval("lost")]


def main() -> None:
    results = load_study("lengths")
    runs = results.runs
    kinds = {"width": "width", "learning_rates": "rates"}
    draw("lengths", {name: figure(kind, results) for name, kind in kinds.items()})
    print("with Zoology's four learning rates alone")
    columns = [*setting_columns(runs), *LOST, "seeds"]
    print_table(readable(reported(runs).reindex(columns=columns)))
    print("\nthe smallest width that solves")
    print_table(readable(smallest_widths(runs)))
    print(missing_runs("lengths", results))


if __name__ == "__main__":
    raise SystemExit(exit_code(main))

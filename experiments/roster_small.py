"""The papers' mixers side by side, with one layer and with two, at a size for CPUs.

    python experiments/roster_small.py

Based, H3 and RWKV are in figures 2 and 3 of Okpekpe and Orvieto 2025 (arXiv 2508.19029); one layer
of them is not yet run on a GPU. Here they stand beside the others.

Grid: grids/roster_small.yaml, trained into results/roster_small if nothing of it is there (more
than an hour of two CPU cores). Figures, as .png and .pdf: learning_rates, and state_size, accuracy
against the numbers that a model keeps of a sequence.
"""

from zoorecall.analysis.summary import summarize
from zoorecall.exits import exit_code
from zoorecall.plots import figure
from zoorecall.studies import draw, load_study, missing_runs
from zoorecall.tables import print_table, readable

FIGURES = {"learning_rates": "rates", "state_size": "state_size"}


def main() -> None:
    results = load_study("roster_small")
    draw("roster_small", {name: figure(kind, results) for name, kind in FIGURES.items()})
    print_table(readable(summarize(results).table()))
    print(missing_runs("roster_small", results))


if __name__ == "__main__":
    raise SystemExit(exit_code(main))

"""Zoology's own recipe: figure 2 of Arora et al. 2023 (arXiv 2312.04927), accuracy against width,
at the best of its four learning rates and of those four and the three between them.

    python experiments/zoology_figure.py

Grid: grids/zoology.yaml, trained into results/zoology if nothing of it is there (more than a
day of one H100; the grid says how to take a part). Figure: results/zoology/width.png and .pdf.
"""

from zoorecall.analysis.sparse_grids import reported
from zoorecall.columns import LENGTH, WIDTH
from zoorecall.exits import exit_code
from zoorecall.plots import figure
from zoorecall.studies import draw, load_study, missing_runs
from zoorecall.tables import interval, print_table, readable

LOST = [*interval("accuracy"), *interval("full"), *interval("lost")]


def main() -> None:
    results = load_study("zoology")
    draw("zoology", {"width": figure("width", results)})
    columns = ["mixer", LENGTH, WIDTH, *LOST, "seeds"]
    print_table(readable(reported(results.runs).reindex(columns=columns)))
    print(missing_runs("zoology", results))


if __name__ == "__main__":
    raise SystemExit(exit_code(main))

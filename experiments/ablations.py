"""Which part of a 1-layer model recalls: table 1 of Okpekpe and Orvieto 2025 (arXiv 2508.19029)
and table 2 of its second version.

    python experiments/ablations.py

Grid: grids/ablations.yaml, trained into results/ablations if nothing of it is there (many hours of
one H100; the grid says how to take a part). Figures, in results/ablations as .png and .pdf:
attention with a convolution here and there, and mamba without this part and that.
"""

from zoorecall.analysis.ablations import verdicts
from zoorecall.exits import exit_code
from zoorecall.plots import against_baseline
from zoorecall.studies import draw, load_study, missing_runs
from zoorecall.tables import print_table, readable

FAMILIES = {"attention": ("attention",), "mamba": ("mamba", "s6")}


def main() -> None:
    results = load_study("ablations")
    name = results.runs["mixer"].str.partition(" (", expand=True)[0]
    for baseline, family in FAMILIES.items():
        runs = results.runs[name.isin(family)]
        if (runs["mixer"] == baseline).any():
            draw("ablations", {baseline: against_baseline(runs, baseline)})
    print_table(readable(verdicts(results.runs)))
    print(missing_runs("ablations", results))


if __name__ == "__main__":
    raise SystemExit(exit_code(main))

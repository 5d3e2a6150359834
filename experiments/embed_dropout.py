"""Accuracy against learning rate with and without dropout on the embedding: figure 1 of Okpekpe and
Orvieto 2025 (arXiv 2508.19029) by either recipe.

    python experiments/embed_dropout.py

Zoology's code (Arora et al. 2023, arXiv 2312.04927) drops a tenth of the embedding by default; that
study, which calls its code inspired by it, does not say if it did.

Grid: grids/embed_dropout.yaml, trained into results/embed_dropout if nothing of it is there (many
hours of one H100; its README says which parts). Beside its runs stand those of results/lengths at
the same sizes. Figure, in results/embed_dropout as .png and .pdf: with_and_without.
"""

import pandas as pd

from zoorecall.analysis.summary import summarize
from zoorecall.columns import DEPTH, DROPPED, LENGTH, MIXER, RATE, SOLVED, WIDTH
from zoorecall.exits import exit_code
from zoorecall.plots import figure
from zoorecall.results import Results
from zoorecall.studies import draw, is_trained, load_study, missing_runs
from zoorecall.tables import print_table, readable

SIZE = [MIXER, DEPTH, WIDTH, LENGTH]


def main() -> None:
    results = load_study("embed_dropout")
    runs = results.runs
    if is_trained("lengths"):
        without = load_study("lengths").runs.merge(runs[SIZE].drop_duplicates())
        runs = pd.concat([without, runs], ignore_index=True)
    both = Results(runs, results.curves)
    draw("embed_dropout", {"with_and_without": figure("rates", both)})
    print_table(readable(summarize(both).table()))
    print("\nhow many seeds solve the task, by the share of the embedding that is dropped")
    by_rate = runs.groupby([DROPPED, *SIZE, RATE])["test_accuracy"]
    counts = by_rate.agg(lambda x: f"{(x >= SOLVED).sum()} of {len(x)}").unstack(DROPPED)
    print_table(readable(counts.fillna("").rename_axis(columns=None).reset_index()))
    print(missing_runs("embed_dropout", results))


if __name__ == "__main__":
    raise SystemExit(exit_code(main))

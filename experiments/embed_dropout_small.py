"""How often 2-layer attention solves, with dropout on the embedding and with ever new examples.

    python experiments/embed_dropout_small.py

With 16 pairs in 256 tokens some seeds never leave the plateau of one pair (results/lengths).
Zoology's code (Arora et al. 2023, arXiv 2312.04927) drops a tenth of the embedding by default;
Okpekpe and Orvieto 2025, who call theirs inspired by it, do not say if they did.

Grid: grids/embed_dropout_small.yaml, trained into results/embed_dropout_small if nothing of it is
there (an hour and a half of two CPU cores). Figure, as .png and .pdf: learning_rates.
"""

from zoorecall.analysis.intervals import share
from zoorecall.columns import DATA, DROPPED, RATE, SOLVED
from zoorecall.exits import exit_code
from zoorecall.plots import figure
from zoorecall.studies import draw, load_study, missing_runs
from zoorecall.tables import print_table, readable


def main() -> None:
    results = load_study("embed_dropout_small")
    draw("embed_dropout_small", {"learning_rates": figure("rates", results)})
    runs = results.runs.assign(solved=results.runs["test_accuracy"] >= SOLVED)
    settings = ["mixer", DATA, DROPPED, RATE]
    solved = runs.groupby(settings)["solved"].agg(solved="sum", seeds="count").reset_index()
    shares = [share(*x) for x in zip(solved["solved"], solved["seeds"], strict=True)]
    solved = solved.assign(solved_low=[x.low for x in shares], solved_high=[x.high for x in shares])
    print_table(readable(solved))
    print(missing_runs("embed_dropout_small", results))


if __name__ == "__main__":
    raise SystemExit(exit_code(main))

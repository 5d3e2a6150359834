"""Mamba, Mamba2 and DeltaNet with one layer: figure 6 of Okpekpe and Orvieto 2025 (arXiv
2508.19029), and how wide their windows of learning rates are.

    python experiments/newer_mixers.py

Grid: grids/lr_fine.yaml, trained into results/lr_fine if nothing of it is there. Figure:
results/lr_fine/newer_mixers.png and .pdf. With runs of grids/lengths.yaml in results/lengths there
is the figure against width, too: results/lengths/newer_mixers.png and .pdf.
"""

from zoorecall.analysis.summary import summarize
from zoorecall.analysis.windows import window_differences
from zoorecall.columns import DEPTH
from zoorecall.exits import exit_code
from zoorecall.plots import figure
from zoorecall.results import Results
from zoorecall.studies import draw, is_trained, load_study, missing_runs
from zoorecall.tables import interval, print_table, readable

MIXERS = ["mamba", "mamba2", "delta_net"]


def one_layer(name: str) -> Results:
    results = load_study(name)
    runs = results.runs
    return Results(runs[runs["mixer"].isin(MIXERS) & (runs[DEPTH] == 1)], results.curves)


def main() -> None:
    results = one_layer("lr_fine")
    runs = results.runs
    if len(runs):
        draw("lr_fine", {"newer_mixers": figure("rates", results)})
        print_table(readable(summarize(results).table()))
    if "mamba" in set(runs["mixer"]):
        print("\nwider than Mamba's, in decades")
        names = ["mixer", "inner", "outer", "edge", "baseline_inner", "baseline_outer"]
        names += ["baseline_edge", *interval("wider"), "verdict"]
        print_table(readable(window_differences(runs, {"mixer": "mamba"})[names]))
    if is_trained("lengths") and len(longer := one_layer("lengths")):
        draw("lengths", {"newer_mixers": figure("width", longer)})
    print(missing_runs("lr_fine", load_study("lr_fine")))


if __name__ == "__main__":
    raise SystemExit(exit_code(main))

"""Width against depth: figures 3 and 4 of Okpekpe and Orvieto 2025 (arXiv 2508.19029).

    python experiments/scaling.py

Grid: grids/width_depth.yaml, trained into results/width_depth if nothing of it is there (days of
one H100 with its widest models; `--set model.d_model=64` and so on are parts). Figures, in
results/width_depth as .png and .pdf: width (figure 3), parameters (figure 4), state_size.
"""

from zoorecall.analysis.scaling import along_depth, along_width
from zoorecall.columns import DEPTH, WIDTH
from zoorecall.exits import exit_code
from zoorecall.plots import figure
from zoorecall.studies import draw, load_study, missing_runs
from zoorecall.tables import interval, print_table, readable

FIGURES = ("width", "parameters", "state_size")


def main() -> None:
    results = load_study("width_depth")
    draw("width_depth", {kind: figure(kind, results) for kind in FIGURES})
    columns = ["mixer", DEPTH, WIDTH, *interval("accuracy"), *interval("gain"), "seeds"]
    for title, gains in (("width", along_width), ("depth", along_depth)):
        print(f"\ngain from {title}")
        print_table(readable(gains(results.runs)[[*columns, "parameters", "state_size"]]))
    print(missing_runs("width_depth", results))


if __name__ == "__main__":
    raise SystemExit(exit_code(main))

"""Accuracy against learning rate: figure 1 of Okpekpe and Orvieto 2025 (arXiv 2508.19029).

    python experiments/lr_sensitivity.py

Grid: grids/lr_fine.yaml, trained into results/lr_fine if nothing of it is there (about an hour of
one H100). Analysis: windows of learning rates, and what Zoology's four rates would have reported.
Figure: results/lr_fine/learning_rates.png and .pdf.
"""

from pathlib import Path

from zoorecall import load_grid, load_results, sweep
from zoorecall.analysis.sparse_grids import reported
from zoorecall.analysis.windows import summary
from zoorecall.display import print_table, readable
from zoorecall.plots import accuracy_by_learning_rate, save


def main() -> None:
    grid, folder = load_grid("grids/lr_fine.yaml"), Path("results/lr_fine")
    results = load_results(folder) if (folder / "shards").is_dir() else sweep(grid, folder)
    for ending in ("png", "pdf"):
        save(accuracy_by_learning_rate(results.runs), folder / f"learning_rates.{ending}")
    print_table(readable(summary(results.runs)))
    print("\nwith Zoology's four learning rates alone")
    columns = ["mixer", "model.num_layers", "accuracy", "full", "lost", "missed", "seeds"]
    print_table(readable(reported(results.runs)[columns]))
    missing = {run.run_id for run in grid.runs} - set(results.runs["run_id"])
    if missing:
        print(f"\n{len(missing)} of {len(grid.runs)} runs of the grid are not trained yet")


if __name__ == "__main__":
    main()

"""Does training in bfloat16 change what attention and DeltaNet reach, against float32?

    python experiments/precision.py

Grid: grids/precision.yaml. Its runs in bfloat16 are runs of grids/lr_fine.yaml, too, and are taken
from results/lr_fine where that has them; if nothing is in results/precision, what results/lr_fine
lacks is trained into it. Compared are the seeds and learning rates that both precisions have.
Analysis: zoorecall/analysis/precision.py, which says when a difference is within the seed spread;
its whole table is written to results/precision/comparison.csv.
Figure: results/precision/precision.png and .pdf.
"""

import dataclasses
from pathlib import Path

import pandas as pd

from zoorecall.analysis.precision import in_all_precisions, precision_differences
from zoorecall.display import print_table
from zoorecall.grid import load_grid
from zoorecall.plots import accuracy_by_precision
from zoorecall.results import Results, load_results, replacing
from zoorecall.studies import draw, is_trained, missing_runs
from zoorecall.sweeper import sweep


def load_runs() -> pd.DataFrame:
    """The runs of the grid that results/precision or results/lr_fine holds, each once."""
    grid = load_grid("grids/precision.yaml")
    found = [load_results("results/lr_fine").runs] if is_trained("lr_fine") else []
    if is_trained("precision"):
        found.append(load_results("results/precision").runs)
    else:
        held = {run_id for runs in found for run_id in runs["run_id"]}
        lacking = tuple(run for run in grid.runs if run.run_id not in held)
        found.append(sweep(dataclasses.replace(grid, runs=lacking)).runs)
    runs = pd.concat([one.dropna(axis=1, how="all") for one in found], ignore_index=True)
    of_grid = runs["run_id"].isin([run.run_id for run in grid.runs])
    return runs[of_grid].drop_duplicates("run_id", keep="last")


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The comparison for people: accuracies in per cent and windows in decades with their ranges
    over seeds, differences with their intervals."""

    def cells(name: str, ends: tuple[str, str], unit: float = 1) -> list[str]:
        numbers = (table[[name, *(name + end for end in ends)]] * unit).to_numpy()
        return [f"{x:.2f} [{low:.2f}, {high:.2f}]" for x, low, high in numbers]

    seeds, interval = ("_min", "_max"), ("_low", "_high")
    return pd.DataFrame(
        {
            "mixer": table["mixer"],
            "precision": table["train.precision"],
            "accuracy, %": cells("accuracy", seeds, 100),
            "fp32 accuracy": cells("reference_accuracy", seeds, 100),
            "difference": cells("accuracy_difference", interval, 100),
            "window, decades": cells("decades", seeds),
            "edge": table["edge"],
            "fp32 window": cells("reference_decades", seeds),
            "fp32 edge": table["reference_edge"],
            "wider by": cells("decades_difference", interval),
        }
    )


def verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """What is within the seed spread, and where the two are furthest apart, in per cent."""
    return pd.DataFrame(
        {
            "mixer": table["mixer"],
            "precision": table["train.precision"],
            "largest difference": [f"{100 * x:.2f}" for x in table["largest_difference"]],
            "seed range there": [f"{100 * x:.2f}" for x in table["largest_range"]],
            "at rate": [f"{x:.1e}" for x in table["largest_rate"]],
            "accuracy within seed spread": table["accuracy_within"],
            "window within": table["decades_within"],
            "both": table["within_seed_spread"],
            "rates": table["rates"],
            "seeds": table["seeds"],
        }
    )


def main() -> None:
    runs = load_runs()
    compared = in_all_precisions(runs)
    if len(compared):
        draw("precision", {"precision": accuracy_by_precision(compared)})
        table = precision_differences(compared)
        with replacing(Path("results/precision/comparison.csv")) as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g")
        print_table(readable(table))
        print_table(verdicts(table))
    print(missing_runs("precision", Results(runs, curves=pd.DataFrame())))


if __name__ == "__main__":
    main()

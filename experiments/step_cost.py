"""The time of a training step: a figure and a table of what `zoorecall bench` wrote.

    python experiments/step_cost.py [results/bench/h100.json]

Without a file, of every one in results/bench. Figure: beside the file, with its name and the ending
.png; none where all packs are of one size, as it is drawn against that.
"""

import sys
from pathlib import Path

import pandas as pd

from zoorecall.bench import read_record
from zoorecall.exits import exit_code
from zoorecall.plots import save, step_cost
from zoorecall.tables import markdown


def main() -> None:
    for path in map(Path, sys.argv[1:] or sorted(Path("results/bench").glob("*.json"))):
        show(path)


def show(path: Path) -> None:
    measurements = pd.DataFrame(read_record(path)["measurements"])
    best = measurements.loc[
        measurements.groupby(["mixer", "d_model", "seq_len"])["ms_per_run_step"].idxmin()
    ]
    names = ["mixer", "d_model", "seq_len", "pack_size", "ms_per_run_step"]
    print(markdown(best[names].round(3)))
    if measurements["pack_size"].nunique() > 1:
        save(step_cost(measurements), path.with_suffix(".png"))
        print(f"\nfigure  {path.with_suffix('.png')}")


if __name__ == "__main__":
    raise SystemExit(exit_code(main))

"""A search that was trained, beside all runs of its grid.

    zoorecall sweep grids/tune_small.yaml
    zoorecall tune grids/tune_small.yaml --set 'train.learning_rate={log: [1e-4, 1e-1]}' --out FOUND
    python experiments/tune_small.py FOUND

Of the search in FOUND it writes results/tune_small/search.csv, a row a run that was asked for:
mixer, rate, seed, accuracy at its end, and the share of its steps that it took. Without FOUND it
goes by that table. What the search found of each mixer, and what all runs say, stands in
results/tune_small/found.csv.
"""

import sys
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from tune_replay import compared

from zoorecall.analysis.accuracy import accuracies
from zoorecall.columns import MIXER, RATE, RUN_ID, SEED
from zoorecall.errors import ResultsError
from zoorecall.exits import exit_code
from zoorecall.files import replacing
from zoorecall.search import JOURNAL, window
from zoorecall.search.pruners import NUM_STEPS
from zoorecall.search.storage import open_storage
from zoorecall.studies import load_study
from zoorecall.tables import print_table

STUDY = "tune_small"
FOLDER = Path("results", STUDY)
SEARCH = FOLDER / "search.csv"


def searched(folder: Path) -> pd.DataFrame:
    """The runs that the searches of a folder have asked for."""
    if not (folder / JOURNAL).exists():
        raise ResultsError(f"{folder / JOURNAL}: no such journal, should be that of a search")
    storage = open_storage(folder / JOURNAL)
    trials = [
        trial
        for study in optuna.get_all_study_summaries(storage)
        for trial in optuna.load_study(study_name=study.study_name, storage=storage).trials
        if RUN_ID in trial.user_attrs
    ]
    return pd.DataFrame(
        {
            MIXER: trial.user_attrs[MIXER],
            RATE: trial.params[RATE],
            SEED: trial.user_attrs[SEED],
            "accuracy": trial.value,
            # a run that was trained before has no evaluation
            "steps": max(trial.intermediate_values, default=steps) / steps,
        }
        for trial in trials
        for steps in [trial.user_attrs[NUM_STEPS]]
    )


def beside_all_runs(search: pd.DataFrame) -> pd.DataFrame:
    """What a search found of each mixer, and what all runs of the grid say."""
    rows = []
    for dense in accuracies(load_study(STUDY).runs):
        mixer = dense.setting[MIXER]
        runs = search[search[MIXER] == mixer]
        found = np.full(dense.table.shape, np.nan)
        for run in runs.to_dict("records"):
            rate = int(np.abs(np.log(dense.rates / run[RATE])).argmin())
            found[dense.table.index.get_loc(run[SEED]), rate] = run["accuracy"]
        there = np.isfinite(found).any(axis=0)
        mean = np.nanmean(found[:, there], axis=0)
        best = dense.rates[there][window.best(np.log10(dense.rates[there]), mean)]
        share = runs["steps"].sum() / dense.table.size
        rows.append({MIXER: mixer, "runs": len(runs), "steps": share})
        rows[-1] |= compared(dense, found, best)
    return pd.DataFrame(rows)


def write(table: pd.DataFrame, path: Path) -> None:
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")


def main() -> None:
    if len(sys.argv) > 1:
        write(searched(Path(sys.argv[1])), SEARCH)
    found = beside_all_runs(pd.read_csv(SEARCH))
    write(found, FOLDER / "found.csv")
    print_table(found.round(3))


if __name__ == "__main__":
    raise SystemExit(exit_code(main))

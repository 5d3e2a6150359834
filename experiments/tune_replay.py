"""What `zoorecall tune` would have found and saved on results that are there: searches replayed.

    python experiments/tune_replay.py

Pruning: the runs of a setting side by side, each evaluated when its curve was, and ended where a
rule says so. A rule's price are the solving runs that it ends, its gain the steps it saves; into
results/tune/pruning.csv.
Replay: each sampler searches the learning rates of grids/lr_fine.yaml, and is told the curve of
results/lr_fine at the nearest of its rates, with each of the three seeds first in turn; into
results/tune/replay.csv. Windows: zoorecall/analysis/windows.py, of the mean over the seeds there
are; `width` is the middle between inner and outer span.
Figure: results/tune/replay.png and .pdf.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from optuna.pruners import BasePruner
from optuna.storages import InMemoryStorage

from zoorecall.analysis.accuracy import Accuracies, accuracies, setting_columns
from zoorecall.analysis.windows import Window, learning_rate_window
from zoorecall.columns import DEPTH, MIXER, RATE, RUN_ID, SEED, SOLVED
from zoorecall.exits import exit_code
from zoorecall.files import replacing
from zoorecall.grid import load_space
from zoorecall.plots.searches import found_and_spent
from zoorecall.results import Results
from zoorecall.search import Search
from zoorecall.search.pruners import NUM_STEPS, PATIENCE, HalvingPruner, PlateauPruner
from zoorecall.search.window import ALIKE
from zoorecall.studies import draw, load_study, missing_runs, trained_studies
from zoorecall.tables import print_table

STUDY = "lr_fine"
FOLDER = Path("results/tune")
RANGE = "train.learning_rate={log: [1e-5, 1e-1]}"
GRID = (RANGE,)
"""What the searches change in the grid, besides the order of its seeds."""

SLOTS = 16
SAMPLERS = (("window", "plateau"), ("window", "none"), ("tpe", "plateau"), ("gp", "plateau"))
CLOSE = 0.25
"""Decades that a best rate or a window's width may be off."""

Curve = list[tuple[int, float]]
"""Evaluations of a run: step, test accuracy."""


def curves_of(results: Results) -> dict[str, Curve]:
    """The curve of each run by its id."""
    by_run = results.curves.sort_values("step").groupby(RUN_ID)
    return {
        str(run_id): [*zip(curve["step"].tolist(), curve["test_accuracy"].tolist(), strict=True)]
        for run_id, curve in by_run
    }


def rules() -> dict[str, BasePruner]:
    """Rules that end runs."""
    return {
        **{f"plateau, patience {x:g}": PlateauPruner(x) for x in (0.3, 0.4, 0.5, 0.6, 0.7)},
        **{f"halving, best 1 in {x}": HalvingPruner(x) for x in (2, 3, 4)},
    }


def pruning(name: str, results: Results, chosen: dict[str, BasePruner]) -> Iterator[dict]:
    """What each rule ends and saves, of the runs of a folder."""
    runs, curves = results.runs, curves_of(results)
    settings = runs.groupby(setting_columns(runs), dropna=False).groups.values()
    solves = dict(zip(runs[RUN_ID], runs["test_accuracy"] >= SOLVED, strict=True))
    for rule, pruner in chosen.items():
        ended: dict[str, int] = {}
        for group in settings:
            ended |= side_by_side(runs.loc[group], curves, pruner)
        whole = {run_id: curves[run_id][-1][0] for run_id in ended}
        fails = [run_id for run_id in ended if not solves[run_id]]
        yield {
            "folder": name,
            "rule": rule,
            "runs": len(ended),
            "solving": len(ended) - len(fails),
            "solving_ended": sum(solves[x] and ended[x] < whole[x] for x in ended),
            "steps_saved": 1 - sum(ended.values()) / sum(whole.values()),
            "of_failing_saved": 1 - sum(ended[x] for x in fails) / sum(whole[x] for x in fails),
        }


def side_by_side(
    runs: pd.DataFrame, curves: dict[str, Curve], pruner: BasePruner
) -> dict[str, int]:
    """The last step of each run of a setting, all trained at the same time under a pruner."""
    study = optuna.create_study(direction="maximize", pruner=pruner)
    live = {}
    for run_id, num_steps in zip(runs[RUN_ID], runs["num_steps"], strict=True):
        live[run_id] = study.ask()
        live[run_id].set_user_attr(NUM_STEPS, num_steps)
    ended = {run_id: 0 for run_id in live}
    steps = sorted({(step, run_id, x) for run_id in live for step, x in curves[run_id]})
    for step, run_id, accuracy in steps:
        if run_id in live:
            ended[run_id] = step
            live[run_id].report(accuracy, step)
            if step < curves[run_id][-1][0] and live[run_id].should_prune():
                study.tell(live.pop(run_id), state=optuna.trial.TrialState.PRUNED)
    return ended


def replay(results: Results, sampler: str, pruner: str, seeds: list[int]) -> Iterator[dict]:
    """A search with these seeds, the first of them first: what it found in each setting, beside
    what all runs say."""
    space = load_space(f"grids/{STUDY}.yaml", (*GRID, f"seed={seeds}"))
    curves, table = curves_of(results), results.runs.set_index([MIXER, DEPTH, SEED, RATE])[RUN_ID]
    dense = {(one.setting[MIXER], one.setting[DEPTH]): one for one in accuracies(results.runs)}
    rates = np.unique(results.runs[RATE])
    found = {key: np.full(one.table.shape, np.nan) for key, one in dense.items()}
    steps = dict.fromkeys(dense, 0)
    search = Search(space, storage=InMemoryStorage(), folder=".", sampler=sampler, pruner=pruner)
    live: dict[str, tuple[tuple[str, int], int, int, Curve]] = {}
    while not search.finished:
        for run in search.ask(SLOTS - len(live)):
            key = run.model.mixer.label, run.model.num_layers
            rate = int(np.abs(np.log(rates / run.train.learning_rate)).argmin())
            seed = dense[key].table.index.get_loc(run.seed)
            live[run.run_id] = key, seed, rate, [*curves[table[(*key, run.seed, rates[rate])]]]
        for run_id, (key, seed, rate, curve) in [*live.items()]:
            step, accuracy = curve.pop(0)
            ends = search.evaluated(run_id, step, {"test_accuracy": accuracy})
            if ends or not curve:
                search.ended(run_id, accuracy, pruned=ends)
                found[key][seed, rate] = accuracy
                steps[key] += step
                del live[run_id]
    for answer, setting in zip(search.answers(), space.settings, strict=True):
        run = setting.run(answer.values, seeds[0])
        key = run.model.mixer.label, run.model.num_layers
        whole = dense[key].table.size * run.train.num_steps
        yield {
            "sampler": sampler,
            "pruner": pruner,
            "first_seed": seeds[0],
            MIXER: key[0],
            DEPTH: key[1],
            "runs": answer.runs,
            "steps": steps[key] / whole,
            **compared(dense[key], found[key], answer.values[RATE]),
        }


def compared(dense: Accuracies, found: np.ndarray, best_rate: float) -> dict[str, float]:
    """Best rate and window of a search, given its accuracies [S, P], and those of all runs."""
    x, there = np.log10(dense.rates), np.isfinite(found).any(axis=0)
    near = int(np.abs(x - np.log10(best_rate)).argmin())
    as_good = x[dense.mean >= dense.mean.max() - ALIKE]
    ours = learning_rate_window(dense.rates[there], np.nanmean(found[:, there], axis=0))
    all_runs = learning_rate_window(dense.rates, dense.mean)
    width, dense_width = ((one.inner + one.outer) / 2 for one in (ours, all_runs))
    return {
        "best_rate": best_rate,
        "dense_best_rate": dense.rates[dense.best],
        "best_off": abs(np.log10(best_rate) - x[dense.best]),
        "off_as_good": np.abs(np.log10(best_rate) - as_good).min(),
        "accuracy_lost": dense.mean.max() - dense.mean[near],
        **ends("", dense.rates[there], ours),
        **ends("dense_", dense.rates, all_runs),
        "inner": ours.inner,
        "outer": ours.outer,
        "dense_inner": all_runs.inner,
        "dense_outer": all_runs.outer,
        "width_off": abs(width - dense_width),
    }


def ends(name: str, rates: np.ndarray, window: Window) -> dict[str, float]:
    """The window's first and last rate, and the failing ones on either side; NaN if none solves."""
    if not window.islands:
        return dict.fromkeys((f"{name}low", f"{name}high", f"{name}below", f"{name}above"), np.nan)
    first, last = np.searchsorted(rates, [window.low, window.high])
    return {
        f"{name}low": window.low,
        f"{name}high": window.high,
        f"{name}below": rates[max(first - 1, 0)],
        f"{name}above": rates[min(last + 1, len(rates) - 1)],
    }


def by_sampler(found: pd.DataFrame, *keys: str) -> pd.DataFrame:
    """How close the searches come: as shares of searches, and the worst."""
    found = found.assign(
        best_close=found["best_off"] <= CLOSE + 1e-6,
        as_good=found["off_as_good"] <= CLOSE + 1e-6,
        width_close=found["width_off"] <= CLOSE + 1e-6,
    )
    return (
        found.groupby(["sampler", "pruner", *keys], sort=False)
        .agg(
            searches=("runs", "size"),
            runs=("runs", "mean"),
            steps=("steps", "mean"),
            most_steps=("steps", "max"),
            best_close=("best_close", "mean"),
            best_as_good=("as_good", "mean"),
            most_lost=("accuracy_lost", "max"),
            width_close=("width_close", "mean"),
            most_off=("width_off", "max"),
        )
        .round(3)
        .reset_index()
    )


def write(table: pd.DataFrame, name: str) -> None:
    with replacing(FOLDER / f"{name}.csv") as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    FOLDER.mkdir(parents=True, exist_ok=True)
    results = load_study(STUDY)
    seeds = sorted(results.runs[SEED].unique().tolist())
    rows = [*pruning(STUDY, results, rules())]
    for name, other in trained_studies().items():
        if name != STUDY and len(other.curves):
            rows += pruning(name, other, {f"plateau, patience {PATIENCE:g}": PlateauPruner()})
    write(pd.DataFrame(rows), "pruning")
    print_table(pd.DataFrame(rows).round(3))
    orders = [[*seeds[i:], *seeds[:i]] for i in range(len(seeds))]
    found = pd.DataFrame(
        [row for x in SAMPLERS for order in orders for row in replay(results, *x, order)]
    )
    write(found, "replay")
    draw("tune", {"replay": found_and_spent(found)})
    print_table(by_sampler(found))
    print_table(by_sampler(found, MIXER, DEPTH))
    print(missing_runs(STUDY, results))


if __name__ == "__main__":
    raise SystemExit(exit_code(main))

"""The numbers in the READMEs of results/, against the tables beside them.

A function a folder yields pieces of its README, the numbers in them computed from its tables. Where
one is not in the page, either has changed: set right the README, or the piece. Whitespace does not
count, as the text is wrapped. The times in the READMEs are not in the tables, and are not held.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from math import log, log10
from pathlib import Path

import pandas as pd
import pytest
from scipy.stats import fisher_exact

from zoorecall.analysis.ablations import ablations as against_baseline
from zoorecall.analysis.accuracy import SOLVED, accuracies, best_accuracies
from zoorecall.analysis.bumps import classify, transitions
from zoorecall.analysis.intervals import mean_over_seeds
from zoorecall.analysis.key_value_sum import (
    AR,
    EACH,
    FORM,
    NON_AR,
    ONE,
    OPERANDS,
    PAIRS,
    TRAINED_ON,
    at_best_rate,
    by_form,
    having,
    main_size,
    size_columns,
)
from zoorecall.analysis.outcomes import outcomes
from zoorecall.analysis.precision import precision_differences
from zoorecall.analysis.sparse_grids import ZOOLOGY_RATES, miss_rates, reported
from zoorecall.analysis.summary import summarize
from zoorecall.analysis.windows import window_differences, windows
from zoorecall.claims.arora2023 import BASE_CONV, beside_published
from zoorecall.grid import load_grid
from zoorecall.results import Results, finished_run_ids, has_runs, load_results
from zoorecall.tables import readable
from zoorecall.tasks import make_task
from zoorecall.tasks.key_value_sum import best_guess as without_recall
from zoorecall.tasks.mqar import MQARConfig

ROOT = Path(__file__).parents[1]
RATE, ACCURACY, BEST = "train.learning_rate", "test_accuracy", "best_test_accuracy"
COLUMNS = {
    "layers": "model.num_layers",
    "width": "model.d_model",
    "length": "task.seq_len",
    "dropped": "model.embed_dropout",
    "positions": "model.positions",
    "precision": "train.precision",
    "data": "train.data",
    "rate": RATE,
}
WORDS = (
    *("no", "one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen"),
    *("fifteen", "sixteen", "seventeen", "eighteen"),
)
GUESSING = log(4096)
"""The loss of guessing among the values, of which there are 4,096."""


@cache
def study(name: str) -> Results:
    return load_results(ROOT / "results" / name)


def part(runs: pd.DataFrame, **where: object) -> pd.DataFrame:
    """The rows with these values, in the order of their seeds in the READMEs: 42, 123, 777."""
    for name, value in where.items():
        column = runs[COLUMNS.get(name, name)]
        runs = runs[(column.round(9) if name == "rate" else column) == value]
    assert len(runs), f"no runs of {where}"
    order = runs["seed"].map({42: -3, 123: -2, 777: -1}).fillna(runs["seed"])
    return runs.loc[order.sort_values().index]


def runs_of(name: str, **where: object) -> pd.DataFrame:
    return part(study(name).runs, **where)


def counted(name: str) -> str:
    """How many of how many runs of its grid a folder has."""
    total = len(load_grid(grid_of(name)).runs)
    return f"{len(study(name))} of the {total:,} runs of `grids/{name}.yaml`"


def grid_of(name: str) -> Path:
    return ROOT / "grids" / f"{name}.yaml"


def rate(x: float) -> str:
    """`2.2e-3`, `1e-3`."""
    mantissa, _, exponent = f"{x:.1e}".partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def fallen_back(runs: pd.DataFrame) -> pd.Series:
    """Which runs had recalled most pairs, and lost them again."""
    return (runs[BEST] >= 0.85) & (runs[ACCURACY] < runs[BEST] - 0.5)


def each(runs: pd.DataFrame, digits: int = 2, star: str = "") -> str:
    """The accuracies: `0.05 1.00 1.00`, with a star where a run has fallen back."""
    marks = fallen_back(runs).map({True: star, False: ""})
    return " ".join(f"{x:.{digits}f}{mark}" for x, mark in zip(runs[ACCURACY], marks, strict=True))


def by_rate(runs: pd.DataFrame, **how: object) -> dict[float, str]:
    return {x: each(part(runs, rate=x), **how) for x in sorted(runs[RATE].round(9).unique())}


def rows(*columns: dict[float, str], name: Callable[[float], str] = rate) -> Iterator[str]:
    """A table with a row a learning rate, and columns with the accuracies of every seed."""
    for x in sorted(set().union(*columns)):
        yield row(name(x), *(column.get(x, "") for column in columns))


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def span(values: Iterable[float], digits: int = 2, between: str = " to ") -> str:
    """`0.25 to 0.26`."""
    low, high = min(values), max(values)
    return f"{low:.{digits}f}{between}{high:.{digits}f}"


def with_range(values: pd.Series, digits: int = 2) -> str:
    """`0.93 [0.90, 0.95]`."""
    return f"{values.mean():.{digits}f} [{span(values, digits, ', ')}]"


def interval(found: pd.Series, name: str, digits: int = 2, unit: float = 1, between=", ") -> str:
    ends = [found[f"{name}_{end}"] * unit for end in ("low", "high")]
    return f"[{min(ends):.{digits}f}{between}{max(ends):.{digits}f}]"


def the(table: pd.DataFrame, **where: object) -> pd.Series:
    """The one row with these values."""
    for name, value in where.items():
        table = table[table[COLUMNS.get(name, name)] == value]
    assert len(table) == 1, f"{len(table)} rows of {where}"
    return table.iloc[0]


def at_best(runs: pd.DataFrame, **where: object) -> pd.Series:
    """The accuracies of one setting, held out, in the order of seeds in the READMEs."""
    (one,) = accuracies(part(runs, **where))
    found = one.held_out.rename_axis("seed").reset_index(name=ACCURACY)
    return part(found)[ACCURACY]


def at_one_rate(runs: pd.DataFrame, **where: object) -> pd.Series:
    """The accuracies of one setting at the rate that is best for all seeds."""
    runs = part(runs, **where)
    return part(runs, rate=round(best_accuracies(runs).iloc[0]["best_rate"], 9))[ACCURACY]


def mean(runs: pd.DataFrame, digits: int = 3, unit: float = 1, **where: object) -> str:
    """`0.644 [0.000, 1.000]`: held out, with its t interval."""
    found = best_accuracies(part(runs, **where)).iloc[0]
    return f"{found['accuracy'] * unit:.{digits}f} {interval(found, 'accuracy', digits, unit)}"


def decades(runs: pd.DataFrame, **where: object) -> pd.Series:
    return windows(part(runs, **where)).iloc[0]


def wide(found: pd.Series) -> str:
    """`1.00 to 1.50`, the spans of a window; `at least 1.00` at the grid's edge."""
    inner, outer = found["inner"], found["outer"]
    return f"at least {inner:.2f}" if found["edge"] else f"{inner:.2f} to {outer:.2f}"


def table_rows(name: str, *columns: str) -> Iterator[str]:
    """Rows of `zoorecall table`, some columns of it."""
    table = readable(summarize(study(name)).table())[list(columns)]
    for cells in table.itertuples(index=False):
        yield row(*cells)


def given_away(length: int, pairs: int) -> float:
    """How many pairs positions alone give away."""
    task = make_task(MQARConfig(seq_len=length, num_kv_pairs=pairs))
    return task.without_recall() * pairs


def solved(runs: pd.DataFrame, **where: object) -> int:
    return int((part(runs, **where)[ACCURACY] >= SOLVED).sum())


def lr_fine():
    runs = runs_of("lr_fine")
    yield f"{len(runs)} runs: {runs[RATE].nunique()} learning rates"
    columns = ["mixer", "layers", "best learning rate", "accuracy", "floor", "solved"]
    yield from table_rows("lr_fine", *columns, "runs there", "inner", "outer", "islands", "edge")
    lost = reported(runs)
    hyena = the(lost, mixer="hyena", layers=1)
    yield f"for every mixer but 1-layer Hyena ({hyena['lost']:.2f} {interval(hyena, 'lost')} less)"
    assert (lost["lost_low"] > 0.005).sum() == 1
    kinds = runs.assign(kind=runs["run_id"].map(outcomes(runs, study("lr_fine").curves)))
    for mixer, layers, text in (
        ("attention", 1, "1-layer attention fits its training examples in {} of {} runs"),
        ("hyena", 2, "2-layer Hyena in {} of {}"),
    ):
        of = part(kinds, mixer=mixer, layers=layers)["kind"]
        yield text.format((of == "fits only").sum(), len(of))
    back = (kinds["kind"] == "fell back").sum()
    yield f"{back} runs of {len(kinds)} had solved and fell back"
    nothing = runs[(runs[ACCURACY] < 0.05) & (runs[RATE] > 0.03)]
    yield f"the {len(nothing)} accuracies below 0.05 at 3.2e-2 and above"
    yield f"ended at {span(nothing['test_loss'], 1)}"
    yield f"{WORDS[(nothing[BEST] >= SOLVED).sum()]} of them after they had solved"
    toss = part(runs, mixer="attention", layers=2, rate=0.031622777)
    yield f"{WORDS[solved(toss)]} seed of three solves, {WORDS[fallen_back(toss).sum()]} fall back"
    newer = part(runs[runs["mixer"].isin(["mamba", "mamba2", "delta_net"])], layers=1)
    wider = window_differences(newer, {"mixer": "mamba"})
    for mixer, text in (
        ("mamba2", "1-layer Mamba2's window is wider than Mamba's by {} decades"),
        ("delta_net", "DeltaNet's by {}"),
    ):
        yield text.format(interval(the(wider, mixer=mixer), "wider"))
    for (_, device), group in runs.groupby(["seed", "device"]):
        yield f"| {len(group)} | {'one' if 'H100' in device else 'two'} {device} |"


def lr_fine_stop():
    kinds = []
    for name in ("lr_fine", "lr_fine_stop"):
        found = study(name)
        of = found.runs["run_id"].map(outcomes(found.runs, found.curves))
        rates = found.runs[RATE].map("{:.2e}".format)
        kinds.append(found.runs.assign(kind=of, rate=rates))
    one = ["mixer", "model.num_layers", "seed", "rate"]
    both = kinds[0].merge(kinds[1], on=one, suffixes=("", "_stop"))
    assert len(both) == len(kinds[0]) == len(kinds[1])
    yield f"The {len(both)} runs of `lr_fine`"
    table = pd.crosstab(both["kind"], both["kind_stop"])
    yield row("", *table)
    for kind, counts in table.iterrows():
        yield row(kind, *counts)
    back = both[both["kind"] == "fell back"]
    saved = WORDS[(back["kind_stop"] == "solved").sum()]
    yield f"Of the {len(back)} runs that had solved and fell back, {saved} count as solved here"
    widths = [windows(x).set_index(one[:2]) for x in kinds]
    wider = (widths[1]["inner"] - widths[0]["inner"])[widths[0]["islands"] > 0].round(9)
    higher = (widths[1]["high"] / widths[0]["high"]).dropna().map(log10).round(2)
    assert wider.min() == 0 and higher.min() == 0 and wider.max() == higher.max() == 0.25
    of = f"{WORDS[(wider > 0).sum()]} of {WORDS[len(wider)]} windows"
    yield f"{of} are a step of the grid (0.25 decades) wider"
    for (mixer, layers), x in widths[0][widths[0]["islands"] > 0].iterrows():
        other = widths[1].loc[(mixer, layers)]
        cells = (f"{y[name]:.2f}" for name in ("inner", "outer") for y in (x, other))
        yield row(mixer, layers, *cells, rate(x["high"]), rate(other["high"]))
    of_mamba = both[(both["mixer"] == "mamba") & (both[RATE] > 0.01)]
    solves = [of_mamba[name] >= SOLVED for name in (ACCURACY, f"{ACCURACY}_stop")]
    there, here = (solves[0] & ~solves[1]).sum(), (solves[1] & ~solves[0]).sum()
    yield f"of Mamba's {len(of_mamba)} above 1e-2, {there} solved only there, and {here} only here"
    steps = both["stopped_at_stop"].fillna(both["num_steps_stop"]).sum() / both["num_steps"].sum()
    ended = both["stopped_at_stop"].notna().sum()
    yield f"{ended} of the runs ended early, which left {100 * steps:.0f} % of the run-steps"

    runs = kinds[1].drop(columns=["kind", "rate"])
    again = pd.read_csv(ROOT / "results/lr_fine_stop/again.csv")
    again = runs.drop(columns=ACCURACY).merge(again, validate="one_to_one")
    assert len(again) == len(runs)
    twice = runs.merge(again[["run_id", ACCURACY]], on="run_id", suffixes=("", "_again"))
    other = (twice[ACCURACY] >= SOLVED) != (twice[f"{ACCURACY}_again"] >= SOLVED)
    high = twice[RATE] > 0.01
    yield f"{(~other).sum()} of the {len(twice)} came to the same answer"
    yield f"of the {other.sum()} others {(other & high).sum()} are among the {high.sum()} at rates"
    sure = twice.loc[other, "mixer"].isin(["delta_net", "hyena"])
    assert not sure.any()
    one, two = (windows(x).set_index(["mixer", "model.num_layers"]) for x in (runs, again))
    moved = (two["inner"] - one["inner"]).abs().round(9)
    assert moved.max() == 0.25 and (moved > 0).sum() == 2
    there = WORDS[(one["islands"] > 0).sum()]
    yield f"Of the {there} windows two have another width, by 0.25 decades"


def ablations():
    runs = runs_of("ablations")
    yield counted("ablations")
    verdicts = {True: "yes", False: "no"}
    for mixer, group in runs.groupby("mixer"):
        cells = {
            width: span(at_best(group, width=width), 3) for width in group["model.d_model"].unique()
        }
        solves = best_accuracies(group)["verdict"].eq("solves").all()
        fits = (group["train_accuracy"] >= 0.99).sum()
        came_to = [cells.get(64, ""), cells.get(128, ""), verdicts[solves]]
        yield row(mixer, *came_to, f"{fits} of {len(group)}")
    means = [at_best(runs, mixer=name).mean() for name in ("s6", "s6 (conv=True)")]
    yield "without and with a convolution in front: {:.2f} and {:.2f}".format(*means)
    plain = part(runs, mixer="mamba (conv=False)", width=128)
    beyond = plain[plain[ACCURACY] > 0.3]
    yield f"{WORDS[len(beyond)].capitalize()} run of {len(plain)} at width 128 goes beyond one pair"
    yield f"({beyond[ACCURACY].iloc[0]:.2f}, at {rate(beyond[RATE].iloc[0])})"
    yield f"and {WORDS[(plain[BEST] < 0.01).sum()]} never leaves the loss of guessing"


def conv1d():
    yield counted("conv1d")
    one, two = (runs_of("conv1d", layers=layers) for layers in (1, 2))
    names = ("initial weights of its authors", "of Zoology, N(0, 0.02^2)")
    for name, (_, group) in zip(names, one.groupby("mixer"), strict=True):
        yield row(name, f"{group[ACCURACY].min():.3f}", f"{group[ACCURACY].max():.3f}")
        yield f"highest of {len(group)} runs"
    seeds, rates = one["seed"].nunique(), sorted(one[RATE].unique())
    yield f"at any of {WORDS[len(rates)]} rates from {rate(rates[0])} to {rate(rates[-1])}"
    yield f"in any of {WORDS[seeds]} seeds"
    yield f"positions alone give away {given_away(64, 4):.2f} pairs"
    fits = (one["train_accuracy"] >= 0.99).sum()
    yield f"{fits} of {len(one)} runs fit their training examples"
    yield f"`results/lr_fine`: {at_best(runs_of('lr_fine'), mixer='mamba', layers=1).mean():.3f}"
    wider = at_best(runs_of("ablations"), mixer="mamba (conv=False)", width=128)
    yield f"({span(wider)} at the best rate of the others)"

    solving = two[two[ACCURACY] >= SOLVED]
    rates = sorted(two[RATE].unique())
    at = " and ".join(
        f"{WORDS[len(x)]} at {rate(value)}" for value, x in solving.groupby(RATE, sort=False)
    )
    yield f"{WORDS[len(solving)]} of {len(two)} do ({at})"
    yield f"{WORDS[len(rates)]} rates from {rate(rates[0])} to {rate(rates[-1])}"
    near = two[(two[ACCURACY] > 0.5) & (two[ACCURACY] < SOLVED)]
    yield f"one ends at {near[ACCURACY].item():.2f}"
    back = two[(two[BEST] > 0.5) & (two[ACCURACY] < 0.5)]
    yield f"{WORDS[len(back)]} had come to {span(back[BEST], 2, ' and ')} and fell back"
    rest = two[two[BEST] <= 0.5]
    yield f"The other {len(rest)} recall one pair at the most (up to {rest[BEST].max():.2f})"
    fits = (rest["train_accuracy"] >= 0.95).sum()
    yield f"and {fits} of those learn their examples by heart (a training accuracy of 95 % or more)"
    best = at_best(two)
    yield f"at its best rate {WORDS[(best >= SOLVED).sum()]} seeds of {WORDS[len(best)]} solve it"


def conv_on_values():
    runs = runs_of("conv_on_values")
    yield f"{len(runs)} runs"
    names = {
        "attention (conv=v)": "built in, 4 taps, causal",
        "experiments.centred_conv:ConvOnValues (centred=False)": "own module, 3 taps, causal",
        "experiments.centred_conv:ConvOnValues (centred=True)": "own module, 3 taps, centred",
    }
    for mixer, name in names.items():
        group = part(runs, mixer=mixer)
        yield row(name, with_range(at_best(group)), span(group[ACCURACY]))


def dynamics():
    results, runs = study("dynamics"), runs_of("dynamics")
    yield counted("dynamics")
    attention = part(runs, mixer="attention")
    yield f"stays at one pair of sixteen ({span(attention[ACCURACY], 3)})"
    lowest = results.curves.groupby("run_id")["test_loss"].min().rename("lowest").reset_index()
    narrow, wide = (part(attention.merge(lowest), width=width) for width in (64, 128))
    yield f"{span(narrow['lowest'], 1)} (width 64) or {span(wide['lowest'], 1)} (128)"
    yield f"the test loss rises, to {narrow['test_loss'].mean():.1f} and " + (
        f"{wide['test_loss'].mean():.1f} in the mean"
    )
    yield f"falls on, to {narrow['train_loss'].mean():.1f} and {wide['train_loss'].mean():.1f}"
    kinds = runs.merge(classify(runs, results.curves)[["run_id", "kind"]])
    smooth = part(kinds, mixer="attention")["kind"].eq("smooth")
    assert smooth.all()
    yield f"All {WORDS[len(smooth)]} curves are classified as smooth"
    for width, text in ((64, "a bump with gain in {} runs of nine"), (128, "{} in {} runs, each")):
        mamba = part(kinds, mixer="mamba", width=width)
        bumps = mamba[mamba["kind"] == "bump with gain"]
        number = WORDS[len(bumps)]
        yield text.format(*((number,) if width == 64 else (span(bumps[ACCURACY]), number)))
        assert len(mamba) == 9 and (bumps[ACCURACY].min() > 0.8)
        assert (mamba[mamba["kind"] != "bump with gain"][BEST] < 0.01).all()
    stepwise = attention.assign(**{"train.warmup": 0.0})
    depths = [0.15, 0.08, 0.05]
    for table, text in (
        (
            stepwise,
            f"on the clock of steps {{}} of {len(attention)} have one at a depth of {{}}, {{}} "
            "at {} and {} at {}",
        ),
        (attention, "on that of the learning rates {} at {}, {} at {} and {} at {}"),
    ):
        found = [transitions(table, results.curves, x) for x in depths]
        cells = [
            (WORDS[x["run_id"].nunique()], depth) for x, depth in zip(found, depths, strict=True)
        ]
        yield text.format(*(x for pair in cells for x in pair))
    falls = transitions(stepwise, results.curves, 0.05)
    warmup = int((attention["train.warmup"] * attention["num_steps"]).unique().item())
    assert falls["end"].max() < warmup
    first, last = falls["start"].min(), falls["end"].max()
    yield f"between steps {first} and {last:,}, within the warmup of {warmup:,}"
    kinds_of = outcomes(attention, results.curves)
    assert set(kinds_of) == {"does not fit"}
    narrow = part(runs, mixer="mamba", width=64)
    higher = narrow[(narrow[RATE] > 0.002) & (narrow[ACCURACY] > 0.9)]
    yield f"{span(higher[ACCURACY])} in {WORDS[len(higher)]} runs of six"
    falls = transitions(part(narrow, rate=0.003162278), results.curves).sort_values("start")
    steps = falls["end"] - falls["start"]
    yield f"{span(falls['depth'], 1)} nats within {steps.min()} to {steps.max():,} steps"
    after = span(falls["accuracy_after"] * 100, 0)
    yield f"accuracy goes from {falls['accuracy_before'].mean() * 100:.0f} % to {after} %"


def counts(runs: pd.DataFrame) -> dict[float, str]:
    return {x: str(solved(runs, rate=x)) for x in runs[RATE].round(9).unique()}


def embed_dropout():
    runs, without = runs_of("embed_dropout"), part(study("lengths").runs, layers=2)
    yield counted("embed_dropout")
    compared = [
        part(table, mixer=mixer, width=width, length=length)
        for mixer, width, length in (("attention", 64, 256), ("mamba", 64, 256))
        for table in (without, runs)
    ]
    broad = [part(x, mixer="attention", width=128, length=64) for x in (without, runs)]
    rates = set(compared[0][RATE].round(9)) - {1e-4}
    columns = [counts(x[x[RATE].round(9).isin(rates)]) for x in (*compared, *broad)]
    yield from rows(*columns)
    attention, mamba = compared[1], compared[3]
    window = decades(attention)
    yield f"over {wide(window)} decades of learning rates"
    yield f"without it nowhere surely, {solved(compared[0])} runs of 24 at the same rates"
    at = part(mamba, rate=0.002154435)[ACCURACY] * 100
    yield f"all three seeds solve at 2.2e-3, where it is at {span(at, 1)} %"
    below = [part(x, rate=1e-3)[ACCURACY] for x in (mamba, compared[2])]
    yield f"At 1e-3 they have {span(below[0])} ({span(below[1])} without)"
    high, high_without = (x[x[RATE] > 0.004] for x in (mamba, compared[2]))
    good = high[high[ACCURACY] >= SOLVED]
    yield f"{WORDS[len(good)]} runs of twelve solve, and better than at 2.2e-3"
    yield f"({span(good[ACCURACY], 3)}); the other {WORDS[12 - len(good)]} end at the loss"
    never, never_without = ((x[BEST] < 0.01).sum() for x in (high, high_without))
    yield f"{WORDS[never]} of which never left it and {WORDS[12 - len(good) - never]} (4.6e-2)"
    left = 12 - solved(high_without) - never_without
    yield f"{WORDS[solved(high_without)]} of twelve do, and {WORDS[left]} of the other eight"
    window, missed = decades(mamba), the(miss_rates(runs), mixer="mamba")
    yield f"a window of {wide(window)} decades {interval(window, 'decades')}"
    ends = [100 * missed[f"missed_{end}"] for end in ("least", "most")]
    yield f"{ends[0]:.0f} to {ends[1]:.0f} % of all grids"
    yield f"held out, Mamba has {mean(mamba)}"
    yield f"where the mean at 2.2e-3 is {at_one_rate(mamba).mean():.3f}"
    hyena = [at_best(x, mixer="hyena", width=64, length=256).mean() for x in (runs, without)]
    yield "{:.2f} at its best of six rates, {:.2f} without".format(*hyena)


def embed_dropout_small():
    runs = runs_of("embed_dropout_small")
    yield f"{len(runs)} runs"
    kinds = ({"data": "fixed", "dropped": 0.0}, {"data": "fixed", "dropped": 0.1})
    kinds += ({"data": "fresh", "dropped": 0.0},)

    def share(x: pd.DataFrame) -> str:
        return f"{solved(x)} of {len(x)}"

    columns = [
        {x: share(part(runs, rate=x, **kind)) for x in (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)}
        for kind in kinds
    ]
    yield from rows(*columns)
    ten = {x: part(runs, data="fixed", rate=3e-3, dropped=x) for x in (0.0, 0.03, 0.1, 0.3)}
    numbers = [solved(x) for x in ten.values()]
    none, little, tenth, most = numbers
    yield f"{tenth} seeds of ten instead of {none}"
    yield f"p = {fisher(tenth, none, 10):.3f}"
    first = (42, 123, 777)
    seven = [solved(x[~x["seed"].isin(first)]) for x in (ten[0.1], ten[0.0])]
    yield f"with the seven alone it is {seven[0]} of 7 against {seven[1]}"
    yield f"{none} solve where nothing is dropped, {little} with 0.03, {tenth} with 0.1 and {most}"
    good = ten[0.3][ten[0.3][ACCURACY] >= SOLVED]
    yield f"whose runs end a little lower ({span(good[ACCURACY])})"
    fail = part(runs, data="fixed", dropped=0.0)
    fail = fail[fail[ACCURACY] < SOLVED]
    gap = fail["test_loss"] - fail["train_loss"]
    yield f"end with a training loss {span(gap, 1)} nats below the test loss"


def fisher(first: int, second: int, of: int) -> float:
    """Fisher's exact test, two-sided, of two counts of equally many."""
    return fisher_exact([[first, of - first], [second, of - second]]).pvalue


def initial_weights():
    runs, fine = runs_of("initial_weights"), part(study("lr_fine").runs, layers=2)
    yield counted("initial_weights")
    pairs = [
        (part(fine, mixer=mixer), part(runs, mixer=f"{mixer} ({other})"))
        for mixer, other in (("hyena", "init_std=None"), ("mamba", "init_std=0.02"))
    ]
    for x in sorted(pairs[0][1][RATE].round(9).unique()):
        found = [part(table, rate=x)[ACCURACY] for table in pairs[0]]
        yield row(rate(x), *(with_range(y, 3) if x == 0.01 else f"{y.mean():.3f}" for y in found))
    yield f"{len(pairs[0][1])} runs: 2-layer Hyena"
    official, zoologys = pairs[1]
    yield f"{len(zoologys)} runs: 2-layer Mamba"
    same = official[official[RATE].round(9).isin(zoologys[RATE].round(9))]
    yield from rows(by_rate(same), by_rate(zoologys))
    found, other = decades(zoologys), decades(official)
    yield f"{wide(found)} decades {interval(found, 'decades')} against " + (
        f"{wide(other)} {interval(other, 'decades')}"
    )
    slow = [part(x, rate=0.000316228)[ACCURACY].mean() for x in (zoologys, official)]
    yield "{:.2f} against {:.2f} at 3.2e-4".format(*slow)
    high = [solved(x, rate=0.031622777) for x in (zoologys, official)]
    yield f"At 3.2e-2 {WORDS[high[0]]} seed solves with them and {WORDS[high[1]]} without"
    yield f"at 1e-1 {WORDS[solved(zoologys, rate=0.1)]} of three solve"


TABLE = (
    *("mixer", "layers", "width", "length", "best learning rate", "accuracy", "floor", "solved"),
    *("runs there", "inner", "outer", "islands", "edge"),
)
"""Columns of `zoorecall table` in a README."""

SUMS = {
    "attention": "attention",
    "attention (conv=qkv)": "attention, convolutions",
    "delta_net": "DeltaNet",
    "mamba2": "Mamba2",
}


FIRST_LOOK = (
    "train.data=fresh", "task.num_pairs=10", "task.recall=true", "seed=42",
    "train.learning_rate=[3e-4, 1e-3, 3e-3, 1e-2]",
    "model.mixer=[attention, {name: attention, conv: qkv}, mamba2, delta_net]",
)  # fmt: skip


def key_value_sum():
    runs = runs_of("key_value_sum")
    yield counted("key_value_sum")
    forms = by_form(runs)
    rows_of = at_best_rate(forms)
    names = size_columns(rows_of)
    main = main_size(rows_of, names)
    first = load_grid(grid_of("key_value_sum"), FIRST_LOOK).runs
    assert {run.run_id for run in first} <= set(runs["run_id"])
    yield f"{len(first)} runs, a first look with one seed and four rates"

    def cell(found: pd.DataFrame) -> str:
        if found.empty:
            return ""
        several = with_range(found["accuracy"]) if len(found) > 1 else ""
        return f"{several} at {rate(found[RATE].iloc[0])}"

    rows_of = rows_of[rows_of[TRAINED_ON] == ONE]
    base = having(rows_of, main)
    for number in sorted(base[PAIRS].unique()):
        for mixer, name in SUMS.items():
            found = having(base, {PAIRS: number, "mixer": mixer})
            if len(found):
                yield row(number, name, *(cell(found[found[FORM] == x]) for x in (AR, NON_AR)))
        yield f"{without_recall(number, 3, 10):.2f} of {number} pairs"
    new = rows_of[rows_of[COLUMNS["data"]] == "fresh"]
    by_size = [COLUMNS["layers"], COLUMNS["width"], OPERANDS]
    for size, found in new[new[PAIRS].eq(10) & new[FORM].eq(AR)].groupby(by_size):
        layers, width, operands = size
        cells = [f"{found[found['mixer'] == x]['accuracy'].mean():.2f}" for x in SUMS]
        yield row(
            f"{layers} layers, width {width}", operands, f"{without_recall(10, operands, 10):.2f}",
            *cells,
        )  # fmt: skip
    recalls = forms[forms[FORM] == AR]
    attention = part(recalls, mixer="attention")
    guess = [
        without_recall(*x, 10) for x in zip(attention[PAIRS], attention[OPERANDS], strict=True)
    ]
    gain = attention[ACCURACY] - guess
    yield f"None of its {len(attention)} runs is above that guess by more than {gain.max():.3f}"
    best = (attention[BEST] - guess)[attention[TRAINED_ON] == ONE]
    yield f"the {len(best)} trained on AR alone by their best evaluation not by more than " + (
        f"{best.max():.3f}"
    )
    alone = recalls[recalls[TRAINED_ON] == ONE]
    plain = having(alone, main)
    mamba = part(plain, mixer="mamba2")
    columns = [by_rate(having(mamba, {PAIRS: number})) for number in (10, 20, 50)]
    yield from rows(*columns)
    others = having(plain, {PAIRS: 20})
    yield "at {} to {} DeltaNet's three seeds all solve".format(
        *(rate(x) for x in all_solve(part(others, mixer="delta_net")))
    )
    worst = at_best(having(plain, {PAIRS: 20}), mixer="mamba2")
    yield f"{worst.mean():.2f} [{span(worst, 2, ', ')}] of 20 pairs"
    arithmetic = having(forms[forms[FORM] == NON_AR], main)
    on_both, arithmetic = (arithmetic[arithmetic[TRAINED_ON] == x] for x in (EACH, ONE))
    lost = on_both[on_both[ACCURACY] < SOLVED]
    yield f"{solved(on_both)} of the {len(on_both)} runs on both solve non-AR, and " + (
        f"{WORDS[len(lost)]}, Mamba2 at {rate(lost[RATE].item())}, had more than half of it"
    )
    assert lost["mixer"].item() == "mamba2" and lost[BEST].item() > 0.5
    here = [having(x, {PAIRS: 10}) for x in (plain, alone[alone["train.data"] == "fixed"])]
    here += [having(recalls[recalls[TRAINED_ON] == EACH], main)]
    for mixer, name in SUMS.items():
        each_way = [part(x, mixer=mixer) for x in here]
        if not any(map(solved, each_way)):
            yield row(name, "every", 0, 0, 0)
            continue
        for x in sorted(here[0][RATE].round(9).unique()):
            yield row(name, rate(x), *(solved(way, rate=x) for way in each_way))
            name = ""
        if mixer == "mamba2":
            of = [(solved(way), len(way)) for way in each_way]
            yield f"solves AR in {of[2][0]} of {of[2][1]} such runs, where {of[0][0]} of {of[0][1]}"
            new, fixed = (each(part(way, rate=1e-3)) for way in each_way[:2])
            yield f"at 1e-3 {fixed} against {new}"
        else:
            yield f"in {solved(each_way[2])} against {solved(each_way[0])}"
    on_new, on_fixed = (f"{solved(x)} of {len(x)}" for x in here[:2])
    yield f"{on_fixed} runs on 100,000 fixed examples and in {on_new} on new ones"
    yield f"{solved(arithmetic)} of {len(arithmetic)} runs of non-AR solve"
    lost = arithmetic[arithmetic[ACCURACY] < SOLVED]
    yield f"the other {WORDS[len(lost)]} had solved and end at {lost[ACCURACY].mean():.2f}"
    assert (lost[RATE] > 0.009).all() and (lost[PAIRS] == 20).all()
    assert (lost[BEST] >= SOLVED).all()
    ten = alone[alone[PAIRS].eq(10) & alone[OPERANDS].eq(3) & alone["train.data"].eq("fresh")]
    small, large = (
        part(ten, mixer="mamba2", seed=42, rate=1e-3, layers=x, width=y)[ACCURACY].item()
        for x, y in ((2, 64), (4, 128))
    )
    yield f"at 1e-3 it has {large:.2f} with 4 layers of width 128, {small:.2f} with 2 of width 64"


def key_value_sum_small():
    results, runs = study("key_value_sum_small"), runs_of("key_value_sum_small")
    yield f"All {len(runs)} runs"
    yield f"{runs['num_steps'].max():,} steps with {runs['train.batch_size'].max()} examples each"
    forms = by_form(runs)
    rows_of = at_best_rate(forms)
    kinds = [(form, trained_on) for form in (AR, NON_AR) for trained_on in (ONE, EACH)]
    mixers = {x: name for x, name in SUMS.items() if x in set(runs["mixer"])}
    for mixer, name in mixers.items():
        found = part(rows_of, mixer=mixer, data="fresh").groupby([FORM, TRAINED_ON])
        cells = (found.get_group(kind) for kind in kinds)
        yield row(name, *(f"{with_range(x['accuracy'])} at {rate(x[RATE].iloc[0])}" for x in cells))
    guess = without_recall(10, 2, 10)
    yield f"{guess:.2f} of the lists"
    recalls = part(forms, **{FORM: AR, TRAINED_ON: ONE})
    columns = [("attention", "fresh")]
    columns += [(x, data) for x in [*mixers][1:] for data in ("fresh", "fixed")]
    yield from rows(*(by_rate(part(recalls, mixer=x, data=data)) for x, data in columns))

    adding = part(forms, **{FORM: NON_AR})
    yield f"{solved(adding)} of {len(adding)} accuracies in non-AR are 95 % or more"
    other = adding[adding[ACCURACY] < SOLVED]
    yield f"the other is {other[ACCURACY].item():.3f}, at {rate(other[RATE].item())}"
    attention = part(recalls, mixer="attention")
    assert attention[BEST].max() < guess
    yield f"its accuracy never comes above {attention[BEST].max():.2f}"

    step = 1600
    before = results.curves[results.curves["step"] == step].set_index("run_id")
    gain = recalls[ACCURACY] - recalls["run_id"].map(before[ACCURACY])
    recalls = recalls.assign(gain=gain)
    open_yet = recalls[recalls[ACCURACY] < SOLVED]
    delta_net = part(recalls, mixer="delta_net", data="fresh", rate=3e-3)
    last = delta_net[delta_net[ACCURACY] < SOLVED]
    start = (last[ACCURACY] - last["gain"]).item()
    yield f"{start:.2f} at step {step:,} to {last[ACCURACY].item():.2f} at the end"
    assert len(delta_net) - len(last) == 2
    convolved = part(recalls, mixer="attention (conv=qkv)")
    above = convolved[convolved[ACCURACY] > guess]
    yield f"Of its {len(convolved)} runs {WORDS[len(above)]} come above the guess"
    assert set(above[RATE]) == {recalls[RATE].max()}
    yield f"they gain {span(above['gain'])} after step {step:,}"
    rising = open_yet[open_yet["gain"] > 0.05]
    yield f"Of {len(open_yet)} runs in AR that do not solve, {len(rising)} gain more than 0.05"
    large = runs_of("key_value_sum", mixer="attention (conv=qkv)", layers=2, width=64)
    large = large[large[OPERANDS].eq(2) & large[PAIRS].eq(10)]
    assert solved(large) and large["seed"].nunique() == 1
    yield f"{large['num_steps'].max():,} steps with {large['train.batch_size'].max()} examples"

    for data, text in (("fixed", "test accuracy by {:.3f} at the most"), ("fresh", "by {:.3f}.")):
        of = part(recalls, data=data)
        yield text.format((of["train_accuracy"] - of[ACCURACY]).max())
    high = part(recalls[recalls["mixer"] != "attention"], rate=1e-2)
    table = high.pivot(index=["mixer", "seed"], columns="train.data", values=ACCURACY)
    better = table["fixed"] - table["fresh"]
    yield f"{WORDS[(better > 0.05).sum()]} of {WORDS[len(better)]} pairs of runs by more than 0.05"
    yield f"and worse in {WORDS[(better < -0.05).sum()]}"
    both = part(forms, mixer="delta_net", rate=3e-3, **{FORM: AR, TRAINED_ON: EACH})
    yield f"at 3e-3 AR is {each(both)}, against {each(delta_net)} alone"
    gain = both[ACCURACY] - both["run_id"].map(before["slice.AR.test_accuracy"])
    yield f"all three gain {span(gain)} after step {step:,}"
    both = part(forms, **{FORM: AR, TRAINED_ON: EACH})
    assert not solved(both)
    yield f"none of {len(both)} runs solves AR in this budget"
    most = part(both, mixer="attention")[ACCURACY].max()
    assert most < guess
    yield f"Trained on both it ends at {most:.2f} at the most"


def all_solve(runs: pd.DataFrame) -> tuple[float, float]:
    """The lowest and the highest rate at which every seed solves."""
    every = runs.groupby(RATE)[ACCURACY].min() >= SOLVED
    return every[every].index.min(), every[every].index.max()


def recipe():
    runs = runs_of("recipe")
    yield f"All {len(runs)} runs"
    halves = [part(runs, **{"model.channel_mixer": x}) for x in ("none", "mlp")]
    elsewhere = runs_of("embed_dropout", mixer="mamba", length=256)
    elsewhere = elsewhere[elsewhere["run_id"].isin(runs["run_id"])]
    yield from rows(*map(by_rate, (*halves, elsewhere)))
    middle = [x[x[RATE].between(0.002, 0.011)] for x in halves]
    for (without, with_mlp), text in (
        (middle, "{} of {} from 2.2e-3 to 1e-2 against {} of {} with it, p = {:.3f}"),
        (halves, "{0} of {1} against {2}, p = {4:.3f}, by Fisher's exact test"),
    ):
        of, first, second = len(without), solved(without), solved(with_mlp)
        assert of == len(with_mlp)
        yield text.format(first, of, second, of, fisher(first, second, of))
    assert all(solved(x, rate=0.002154435) == 5 for x in halves)
    best = [mean(x, 1, 100) for x in halves]
    yield f"either solves with all five seeds: {best[1]} % with the MLP and {best[0]} without"
    spans = [decades(x) for x in halves]
    ends = [interval(x, "decades") for x in spans]
    yield f"{wide(spans[0])} decades {ends[0]} without and {wide(spans[1])} {ends[1]} with"
    fail = middle[1][middle[1][ACCURACY] < SOLVED]
    never, fit = fail[fail[BEST] < 0.1], fail[fail[BEST] >= 0.1]
    yield f"Of the {WORDS[len(fail)]} that do not solve"
    yield f"{WORDS[len(never)]} never rise above {never[BEST].max():.4f}; the other "
    yield f"other {WORDS[len(fit)]}, at 4.6e-3, end at {span(fit[ACCURACY])} with a training " + (
        f"accuracy of {span(fit['train_accuracy'])}"
    )
    assert (fit[RATE].round(4) == 0.0046).all()
    both = runs.merge(elsewhere, on="run_id", suffixes=("", "_h200"))
    pairs = both[[ACCURACY, f"{ACCURACY}_h200"]]
    flipped = both[(pairs.min(axis=1) < 0.1) & (pairs.max(axis=1) >= 0.93)]
    yield f"{len(both)} runs with the MLP were trained on both GPUs"
    yield f"{len(flipped)} of them recall 93 % or more on one"
    assert {(x, rate(y)) for x, y in zip(flipped["seed"], flipped[RATE], strict=True)} == {
        (42, "4.6e-3"), (123, "4.6e-3"), (123, "2.2e-2"), (777, "2.2e-2")
    }  # fmt: skip
    for name, found in zip(("without", "with"), halves, strict=True):
        curves = study("recipe").curves.merge(found[["run_id"]])
        reached = curves[curves[ACCURACY] >= 0.99].groupby("run_id")["step"].min()
        ends = found.set_index("run_id")[ACCURACY][reached.index]
        assert ends.min() >= SOLVED
        yield row(
            name, len(found), len(reached), f"{reached.min():,} to {reached.max():,}",
            span(ends, 3), solved(found),
        )  # fmt: skip
    yield "{:,} parameters against {:,}".format(*(x["parameters"].iloc[0] for x in halves))


DETAILS = {
    "as stated": {},
    "RMSNorm": {"model.norm": "rms"},
    "a tenth of the embedding dropped": {"model.embed_dropout": 0.1},
    "initial weights as Zoology draws them": {"model.initial_weights": "zoology"},
    "examples in a fixed order, the last batch short": {"train.order": "fixed"},
    "no weight decay on A_log and D": {"train.undecayed": "official"},
}
"""The details of recipe_details that have runs, and what tells them from what is stated."""


def recipe_details():
    runs = runs_of("recipe_details")
    yield counted("recipe_details")
    usual = {name: runs[name].mode().item() for of in DETAILS.values() for name in of}
    found = {text: part(runs, **(usual | of)) for text, of in DETAILS.items()}
    stated = solved(found["as stated"])
    for text, each_of in found.items():
        assert len(each_of) == 5
        p = "" if text == "as stated" else f"{fisher(solved(each_of), stated, 5):.2f}"
        yield row(text, each(each_of), solved(each_of), p)
    never = runs[runs[BEST] < 0.1]
    yield f"{len(never)} of the {len(runs)} runs never recall more than {never[BEST].max():.4f}"
    fit = runs[(runs[ACCURACY] < SOLVED) & (runs[BEST] >= 0.1)]
    yield f"other {WORDS[len(fit)]} that do not solve end at {span(fit[ACCURACY])}"
    yield f"training accuracy of {span(fit['train_accuracy'])}"
    assert (runs[BEST] - runs[ACCURACY]).max() < 0.01
    least = min(fisher(k, stated, 5) for k in range(6))
    yield f"the least that five seeds can show beside {stated} of 5 is p = {least:.3f}"


def lengths():
    runs = runs_of("lengths")
    yield counted("lengths")
    two = part(runs, layers=2)

    def column(mixer: str, width: int, length: int) -> dict[float, str]:
        return by_rate(part(two, mixer=mixer, width=width, length=length), star="\\*")

    for length in (256, 128):
        yield from rows(*(column(x, 64, length) for x in ("attention", "mamba", "hyena")))
    yield from rows(column("hyena", 128, 64), column("hyena", 256, 64))
    high = column("attention", 128, 64)
    yield f"at 1e-2 {high[0.01]}; at 2.2e-2 {high[0.021544347]}; at 4.6e-2 {high[0.046415888]}"
    low = part(two, mixer="attention", width=128, length=64)
    low = low[low[RATE] < 0.005]
    yield f"attention: {span(low[ACCURACY])} at every rate up to 4.6e-3"
    mamba, attention = (decades(two, mixer=x, length=128) for x in ("mamba", "attention"))
    yield f"a window of {wide(mamba)} decades {interval(mamba, 'decades')}"
    yield f"where attention's is {wide(attention)}"
    fine = part(study("lr_fine").runs, layers=2)
    yield f"it is {wide(decades(fine, mixer='mamba'))} decades at length 64"
    yield from table_rows("lengths", *TABLE)
    hyena = [at_best(two, mixer="hyena", width=x, length=64) for x in (128, 256)]
    narrow = at_best(fine, mixer="hyena").mean()
    yield f"{narrow:.2f} at width 64 (`lr_fine`), {hyena[0].mean():.2f} at 128, " + (
        f"{with_range(hyena[1])} at 256"
    )
    easy = part(two, mixer="hyena", length=64)
    yield f"of {len(easy)} runs at the two widths here, {WORDS[solved(easy)]} reaches 0.95"
    recalled = [at_best(two, mixer="hyena", length=x).mean() * x / 16 for x in (128, 256)]
    yield f"recalls {recalled[0]:.1f} pairs of 8"
    yield f"recalls {recalled[1]:.1f} pairs of 16"
    luck = part(two, mixer="attention", length=256)
    curves = study("lengths").curves.merge(luck[["run_id"]])
    first = curves[curves[ACCURACY] >= SOLVED].groupby("run_id")["step"].min()
    yield f"{WORDS[len(first)].capitalize()} of {len(luck)} come to 95 %, the first at step " + (
        f"{first.min():,}, the last at {first.max():,} of {curves['step'].max():,}"
    )
    deep = [solved(runs_of("width_depth", layers=2), rate=x) for x in (0.001, 0.002154435)]
    assert deep == [2, 2] and (part(luck, seed=42)[BEST] < SOLVED).all()
    high = part(two, mixer="mamba", length=256)
    high, below = high[high[RATE] > 0.004], part(high, rate=0.002154435)
    good = high[high[ACCURACY] >= SOLVED]
    yield f"either solves ({span(good[ACCURACY])}, at 2.2e-3 {span(below[ACCURACY])}) or ends at"
    yield f"which {WORDS[(high[BEST] < 0.01).sum()]} of the {WORDS[len(high) - len(good)]} never"
    lost = part(two, mixer="attention")
    lost = lost[(lost[BEST] >= SOLVED) & (lost[ACCURACY] < SOLVED)]
    yield f"{WORDS[len(lost)]} runs solved and fell back"
    one = part(runs, layers=1)
    plain = at_best(study("lr_fine").runs, mixer="attention", layers=1).mean()
    yield row("attention", f"{plain:.3f} (`lr_fine`)", span(at_best(one, mixer="attention"), 3))
    small, large = (at_best(one, mixer="hyena", width=x) for x in (64, 128))
    yield row("Hyena", span(small, 3), span(large, 3))
    yield f"Hyena gains {large.mean() - small.mean():.2f} from twice the width"
    yield f"{len(one)} runs, two seeds, for C4"


def mamba_norm_small():
    runs = runs_of("mamba_norm_small")
    yield f"All {len(runs)} runs"
    runs = runs.assign(fails=~(runs["test_loss"] < log(256) - 0.2))
    groups = [("mamba", "fp32"), ("mamba (norm=True)", "fp32"), ("mamba", "bf16")]
    columns = []
    for mixer, precision in groups:
        group = part(runs, mixer=mixer, precision=precision).groupby(RATE)["fails"]
        columns.append({x: f"{sum(y)} of {len(y)}" for x, y in group})
    yield from rows(*columns)
    first = part(runs, mixer="mamba", precision="fp32", rate=0.03, seed=42)[ACCURACY].iloc[0]
    yield f"comes back from there and ends at {first:.2f}"


def positions():
    runs = runs_of("positions")
    yield counted("positions")
    names = {"mamba": "Mamba", "mamba2": "Mamba2", "delta_net": "DeltaNet", "hyena": "Hyena"}
    for mixer, name in names.items():
        both = (at_best(runs, mixer=mixer, positions=x) for x in ("none", "learned"))
        yield row(name, *(span(x, 3) for x in both))
    table = against_baseline(runs, {"model.positions": "none"})
    hyena = the(table, mixer="hyena", positions="learned")
    taken = interval(hyena, "difference", 1, -100)
    yield f"take {-100 * hyena['difference']:.1f} points {taken} from Hyena"
    high = part(runs, mixer="mamba2", rate=0.046415888)
    without, learned = (list(part(high, positions=x)[ACCURACY]) for x in ("none", "learned"))
    yield f"from {without[0]:.3f} and {without[1]:.3f} to {learned[0]:.3f} and {learned[1]:.3f}"


def precision():
    runs = runs_of("precision")
    yield counted("precision")
    found = precision_differences(runs)
    for mixer, name in (("attention", "attention"), ("delta_net", "DeltaNet")):
        one = the(found, mixer=mixer)
        both = ", ".join(one[f"{name}_within"] for name in ("accuracy", "window"))
        for kind, start, end in (("bf16", "", ""), ("fp32", "reference_", both)):
            accuracy, wide = (
                f"{one[name] * unit:.2f} "
                f"[{one[f'{name}_min'] * unit:.2f}, {one[f'{name}_max'] * unit:.2f}]"
                for name, unit in ((f"{start}accuracy", 100), (f"{start}inner", 1))
            )
            yield row(f"{name}, {kind}", accuracy, wide, end)
    toss = part(runs, mixer="attention", rate=0.031622777)
    means = [part(toss, precision=x)[ACCURACY] for x in ("bf16", "fp32")]
    yield f"ends at {means[0].mean():.3f} in bf16 and {means[1].mean():.3f} in fp32"
    yield f"falls to {means[1].min():.2f}"
    attention = the(found, mixer="attention")
    apart = interval(attention, "accuracy_difference", 2, -100)
    points = -100 * attention["accuracy_difference"]
    yield f"attention is {points:.2f} {apart} points better in fp32"


ROSTER = {
    "delta_net": "DeltaNet",
    "gated_delta_net": "Gated DeltaNet",
    "gla (conv=True)": "GLA, convolutions",
    "attention (conv=qkv)": "attention, convolutions",
    "mamba2 (d_state=16, headdim=32)": "Mamba2",
    "mamba": "Mamba",
    "h3": "H3",
    "rwkv": "RWKV-4",
    "based": "Based",
    "attention": "attention",
    "hyena": "Hyena",
}


def roster_small():
    runs = runs_of("roster_small")
    yield f"All {len(runs)} runs"
    solves = {}
    for layers in (1, 2):
        for mixer, name in ROSTER.items():
            group = part(runs, mixer=mixer, layers=layers)
            solves[name.partition(",")[0] if name[0] == "G" else name, layers] = solved(group)
            marks = group["diverged_at"].notna().map({True: "\\*", False: ""})
            group = group.assign(mark=marks)
            cells = [
                " ".join(f"{y:.2f}{z}" for y, z in zip(x[ACCURACY], x["mark"], strict=True))
                for x in (part(group, rate=x) for x in sorted(group[RATE].round(9).unique()))
            ]
            yield row(name, *cells)
    state = {x: runs_of("roster_small", mixer=x, layers=1)["state_size"].iloc[0] for x in ROSTER}
    based = part(runs, mixer="based", layers=1)[ACCURACY]
    yield f"({span(based)}), though it has the larger state here"
    yield f"({state['based']:,} numbers against {state['attention']:,})"
    yield f"smallest by far ({min(state.values())} numbers)"
    assert min(state, key=state.get) == "rwkv"
    yield (
        "DeltaNet in {DeltaNet} runs of 18, Gated DeltaNet in {Gated DeltaNet}, GLA in {GLA}, "
        "Mamba2 in {Mamba2}, Mamba in {Mamba}; and attention with convolutions in {attention, "
        "convolutions}"
    ).format(**{name: number for (name, layers), number in solves.items() if layers == 1})
    assert solves["Gated DeltaNet", 2] == solves["Mamba2", 2]
    yield (
        f"GLA solves in {solves['GLA', 2]}, Gated DeltaNet and Mamba2 in {solves['Mamba2', 2]}, "
        f"Mamba in {solves['Mamba', 2]}"
    )


def width_depth():
    runs = runs_of("width_depth")
    yield counted("width_depth")
    names = {"attention": "attention", "mamba": "Mamba", "hyena": "Hyena"}
    given = given_away(256, 64)
    setting = ["mixer", "model.num_layers", "model.d_model"]
    for (mixer, layers, width), group in runs.groupby(setting):
        pairs = at_best(group) * 64
        shown = span(pairs, 1) if pairs.max() - pairs.min() > 2 else f"{pairs.mean():.1f}"
        accuracy = " ".join(f"{x / 64:.3f}" for x in pairs)
        parameters = f"{group['parameters'].iloc[0]:,}"
        yield row(f"{layers}-layer {names[mixer]}, width {width}", parameters, accuracy, shown)
    deep = part(runs, mixer="attention", layers=2)
    high = deep[deep[RATE] > 0.003]
    most = high.loc[high[ACCURACY].idxmax()]
    rest = high.drop(most.name)[ACCURACY] * 64
    yield f"recalls {most[ACCURACY] * 64:.1f} pairs with seed {most['seed']} at {rate(most[RATE])}"
    yield f"and {span(rest, 1)} else"
    assert [solved(deep, rate=x) for x in (0.000464159, 0.001, 0.002154435)] == [1, 2, 2]
    mamba = part(runs, mixer="mamba", width=128)
    held_out, best = at_best(mamba) * 100, at_one_rate(mamba) * 100
    yield f"to {held_out.mean():.0f} %** [{span(held_out, 0, ', ')}] held out"
    yield f"it has {best.mean():.0f} % [{span(best, 0, ', ')}]"
    hyena = at_one_rate(runs, mixer="hyena", width=256) * 64
    yield f"{at_best(runs, mixer='hyena', width=256).mean() * 64:.1f} pairs in the mean"
    yield f"{span(hyena, 1)} at the best rate of both seeds"
    hits = [part(mamba, rate=x)[ACCURACY].max() * 100 for x in (0.001, 0.004641589)]
    yield f"At 1e-3 one seed has {hits[0]:.0f} %, at 4.6e-3 one has {hits[1]:.0f} %"
    yield f"gives away {given:.1f} of the 64"


def zoology():
    runs = runs_of("zoology")
    yield counted("zoology")
    mixers = ("attention", "mamba (init_std=0.02)", "hyena")

    def bold(x: float) -> str:
        known = min(abs(log(x / y)) for y in ZOOLOGY_RATES) < 0.01
        return f"**{rate(x)}**" if known else rate(x)

    yield from rows(*(by_rate(part(runs, mixer=x)) for x in mixers), name=bold)
    hyena = the(reported(runs), mixer="hyena")
    yield f"{with_range(at_best(runs, mixer='hyena'))} at 4.6e-3, {hyena['accuracy']:.2f} at the"
    yield f"gains it {100 * hyena['lost']:.0f} points"


def zoology_figure2():
    runs = runs_of("zoology_figure2")
    yield counted("zoology_figure2")
    table = beside_published(runs).dropna(subset=["accuracy"])
    names = {"attention": "attention", "hyena": "Hyena", "rwkv": "RWKV", "h3": "H3"}
    for (length, mixer), points in table.groupby(["task.seq_len", "mixer"]):
        best = points.set_index(["model.num_layers", "train.order"])["accuracy"]
        variants = [(depth, order) for depth in (2, 4) for order in ("fixed", "shuffled")]
        cells = [f"{best[x]:.2f}" if x in best else "" for x in variants]
        named = names.get(mixer, "BaseConv")
        yield row(length, named, f"{points['published'].iloc[0]:.2f}", *cells).replace("  ", " ")
    off = {of: points["difference"] for of, points in table.groupby(["task.seq_len", "mixer"])}
    yield f"Hyena is above its point by {span(off[64, 'hyena'])}, of RWKV by"
    yield f"of RWKV by {span(off[64, 'rwkv'])}, and every one of BaseConv below by"
    yield f"BaseConv below by {span(-off[64, BASE_CONV])};"
    yield f"H3 is within {off[64, 'h3'].abs().max():.2f}. At length 128"
    yield f"H3 is above by {span(off[128, 'h3'])} and BaseConv below by"
    yield f"BaseConv below by {span(-off[128, BASE_CONV])}."
    assert off[64, "attention"].abs().max() < 0.01 and off[128, "attention"].abs().max() < 0.01

    one = ["task.seq_len", "mixer", "model.num_layers", "train.order"]
    best = runs.loc[runs.groupby(one)[ACCURACY].idxmax()]
    recurrent = part(best[best["mixer"].isin(["h3", "hyena", "rwkv"])], length=64)
    assert recurrent["train_accuracy"].min() > 0.995
    yield f"a test accuracy of {span(recurrent[ACCURACY])}"
    longer = part(best[best["mixer"].isin(["h3", "hyena", "rwkv"])], length=128)
    yield f"{span(longer['train_accuracy'])} in training, {span(longer[ACCURACY])} in test"

    pairs = runs.pivot_table(ACCURACY, [*one[:3], RATE], "train.order")
    gains = pairs["shuffled"] - pairs["fixed"]
    for length, text in ((64, "at length 64"), (128, "at 128")):
        found = mean_over_seeds(gains.loc[length])
        yield f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}] {text}"
    assert gains.abs().max() == -gains[64, "attention", 2].min() > 0.5
    deeper = part(best, length=64).pivot_table(
        ACCURACY, ["mixer", "train.order"], "model.num_layers"
    )
    gain = (deeper[4] - deeper[2]).dropna()
    yield f"by {span(gain.drop(BASE_CONV))} at the best rate;"
    yield f"BaseConv loses {span(-gain[BASE_CONV])})"
    rwkv = part(best, length=128, layers=2, mixer="rwkv")[ACCURACY]
    yield f"the same RWKV has {rwkv.max():.2f} and {rwkv.min():.2f} by the order alone"


def beyond_the_seeds(table: pd.DataFrame) -> pd.Series:
    """How far each published point is from the range of the seeds; below 0 within it."""
    below, above = table["least"] - table["published"], table["published"] - table["most"]
    return pd.concat([below, above], axis=1).max(axis=1)


def zoology_2023():
    runs = runs_of("zoology_2023")
    yield counted("zoology_2023")
    found = beside_published(runs).dropna(subset=["accuracy"])
    names = {"attention": "attention", "hyena": "Hyena", "rwkv": "RWKV", "h3": "H3"}
    one = ["task.seq_len", "mixer", "seed"]
    best = runs.loc[runs.groupby(one)[ACCURACY].idxmax()]
    for point in found.to_dict("records"):
        seeds = part(best, length=point["task.seq_len"], mixer=point["mixer"])
        named = f"{names.get(point['mixer'], 'BaseConv')}, {point['model.num_layers']:.0f} layers"
        numbers = (f"{point['published']:.2f}", each(seeds), f"{point['accuracy']:.2f}")
        yield row(point["task.seq_len"], named, *numbers, span(seeds["train_accuracy"]))
    outside = found.assign(by=beyond_the_seeds(found))
    near = outside["by"] <= 0.01
    assert len(found) == 10 and near.sum() == 8
    far = outside[~near].set_index(["task.seq_len", "mixer"])["by"]
    yield f"published {far[128, 'rwkv']:.2f} above the highest seed"
    yield f"published {far[128, 'h3']:.2f} below the lowest seed"
    h3 = part(best, length=128, mixer="h3")
    assert (h3[RATE] == h3[RATE].max()).all() and rate(h3[RATE].max()) == "1e-2"
    today = beside_published(runs_of("zoology_figure2")).dropna(subset=["accuracy"])
    of = today[today["task.seq_len"] == 64].groupby("mixer")["accuracy"].agg(list)
    yield f"there Hyena has {span(of['hyena'])} at length 64, RWKV {span(of['rwkv'])}, BaseConv"
    yield f"BaseConv {span(of[BASE_CONV])}."
    most = outside.loc[(outside["most"] - outside["least"]).idxmax()]
    assert (most["task.seq_len"], most["mixer"]) == (64, "rwkv")
    yield f"differ by up to {most['most'] - most['least']:.2f}** (RWKV at length 64)"
    longer = part(best, length=128)
    assert longer[longer["mixer"] != "attention"]["train_accuracy"].max() < 0.95
    yield f"the {longer['num_steps'].min():,.0f} steps that batches of 1,024"


def fresh():
    results, runs = study("fresh"), runs_of("fresh")
    assert len(results) == len(load_grid(grid_of("fresh")).runs)
    yield f"All {len(results)} runs of `grids/fresh.yaml`"
    assert rate(runs[RATE].min()) == "1e-3" and rate(runs[RATE].max()) == "2.2e-2"
    setting = ["mixer", "model.num_layers"]
    best = runs.loc[runs.groupby([*setting, "train.data", "seed"])[ACCURACY].idxmax()]
    for (mixer, layers), of in best.groupby(setting):
        for data, text in (("fixed", "100,000, fixed"), ("fresh", "new ones")):
            found = part(of, data=data)
            training = " ".join(f"{x:.2f}" for x in found["train_accuracy"])
            yield row(mixer, layers, text, each(found), training, span(found["test_loss"]))

    def of_seeds(mixer: str, layers: int, data: str = "fresh") -> str:
        return span(part(best, mixer=mixer, layers=layers, data=data)[ACCURACY])

    def both(mixer: str, layers: int) -> tuple[str, str]:
        return of_seeds(mixer, layers), of_seeds(mixer, layers, "fixed")

    yield "2-layer Hyena comes to {}, with fixed ones to {}".format(*both("hyena", 2))
    yield "RWKV-4 to {}, before {}".format(*both("rwkv", 2))
    yield "H3 to {}, before {}".format(*both("h3", 2))
    fixed = part(best, layers=2, data="fixed")
    assert (fixed["train_accuracy"] > 0.999).all()
    solved_by = best[best[ACCURACY] >= SOLVED].groupby(["mixer", "train.data"]).size()
    counts = [solved_by.get((x, y), 0) for x in ("hyena", "rwkv", "h3") for y in ("fixed", "fresh")]
    yield "Hyena {} and {} of three, RWKV-4 {} and {}, H3 {} and {}".format(
        *(WORDS[x] for x in counts)
    )
    yield "1-layer Hyena gains little ({} with new examples, {} with fixed ones)".format(
        *both("hyena", 1)
    )
    gap = (runs["train_accuracy"] - runs[ACCURACY])[runs["train.data"] == "fresh"].abs().max()
    yield f"by more than {gap:.2f}"
    of = [span(part(runs, mixer="attention", data=x)["test_loss"]) for x in ("fixed", "fresh")]
    yield "the test loss is {} nats with fixed examples and {} with new ones".format(*of)
    yield f"guessing among the values: {GUESSING:.2f}"

    on_values = part(runs, mixer="attention (conv=v)", data="fresh")
    stuck = on_values.groupby("seed")[ACCURACY].max() < 0.3
    (seed,) = stuck[stuck].index
    yield f"Seed {seed} stays at a quarter ({span(part(on_values, seed=seed)[ACCURACY])})"
    of_seed = part(runs, mixer="attention (conv=v)", seed=seed)[["run_id"]]
    early = results.curves[results.curves["step"] < 700].merge(of_seed)
    most = f"{early['test_accuracy'].max():.2f}"
    yield f"Up to step {early['step'].max()} no run of it has more than {most}"
    ends = part(runs, mixer="attention (conv=v)", data="fixed", seed=seed)[ACCURACY]
    yield f"those with fixed examples go on to {span(ends)}"


TARGETS = {
    "attention": ("0.30", "1.2", "0.60", "2.4"),
    "attention (conv=qkv)": ("0.40", "1.6", "0.80", "3.2"),
    "hyena": ("0.40", "1.6", "0.80", "3.2"),
    "delta_net": ("0.50", "2.0", "1.0", "4.0"),
    "mamba2": ("0.50", "2.0", "1.0", "4.0"),
    "mamba": ("0.90", "3.2", "1.8", "6.4"),
}
"""Milliseconds a run-step that were asked for, by width and length as in `SIZES`."""
SIZES = ((64, 64), (256, 64), (64, 256), (256, 256))


def bench():
    setting = ["mixer", "d_model", "seq_len"]
    times, alone = {}, {}
    for name in ("cpu", "h100"):
        record = json.loads((ROOT / "results/bench" / f"{name}.json").read_text())
        table = pd.DataFrame(record["measurements"])
        times[name] = table.groupby(setting)["ms_per_run_step"].min()
        alone[name] = table[table["pack_size"] == 1].set_index(setting)["ms_per_run_step"]
    yield f"takes {span(times['cpu'] / alone['cpu'])} of the time a run alone takes"
    met = 0
    for mixer, targets in TARGETS.items():
        cells = []
        for size, target in zip(SIZES, targets, strict=True):
            time = times["h100"][mixer, *size]
            shown = f"{time:.3f}" if time < 1 else f"{time:.2f}"
            met += time <= float(target)
            cells.append(f"{f'**{shown}**' if time <= float(target) else shown} ({target})")
        yield row(mixer, *cells)
    yield f"{WORDS[met].capitalize()} of {len(TARGETS) * len(SIZES)} are met"
    yield f"attention takes {alone['h100']['attention', 64, 64]:.3f} or"
    for name in ("rooms", "slots"):
        steps = pd.read_csv(ROOT / f"results/bench/{name}.csv").groupby(["mixer", "when"]).min()
        for mixer in ("attention", "hyena", "delta_net", "mamba"):
            before, after = (steps.loc[(mixer, x)] for x in ("before", "after"))
            each_step = [x["ms_per_run_step"] for x in (before, after)]
            first = [f"{x['first_step_seconds']:.0f}" for x in (before, after)]
            ratio = f"{each_step[1] / each_step[0]:.2f}"
            yield row(mixer, *(f"{x:.3f}" for x in each_step), ratio, *first)
    record = json.loads((ROOT / "results/bench/h200.json").read_text())
    shares = []
    for one in record["measurements"]:
        shares.append(100 * one["evaluation_share"])
        ms, gib, first = (one[x] for x in ("ms_per_run_step", "peak_gib", "first_step_seconds"))
        yield row(one["mixer"], f"{ms:.3f}", f"{shares[-1]:.1f} %", f"{gib:.1f}", f"{first:.0f}")
    within = sum(share <= 5 for share in shares)
    yield f"{WORDS[within].capitalize()} of the {WORDS[len(shares)]} keep to the 5 %"
    yield f"evaluations, of the steps' time | 5 % | {span(shares, 1)} %"
    busy = pd.read_csv(ROOT / "results/bench/utilization.csv")
    yield f"said for {busy['second'].max():,.0f} s"
    yield f"three shapes or more | 90 % | {busy['percent'].mean():.0f} % (below)"
    minutes = busy.groupby(busy["second"] // 60)["percent"].mean()
    first, nineteenth, last = (f"{minutes.iloc[i]:.0f} %" for i in (0, 18, -1))
    yield f"it is {first} in the first, in which three"
    yield f"{nineteenth} in the nineteenth, {last} in the last"
    assert minutes.drop([0, 18, minutes.index[-1]]).round().min() == 99
    both = pd.read_csv(ROOT / "results/bench/utilization_ray.csv", index_col="second")
    steady = both[(both.index >= 120) & (both.index < 540)]
    minutes = steady.groupby(steady.index // 60).mean().stack()
    yield f"both GPUs are busy {span(minutes, 0)} % of each minute"
    one = pd.read_csv(ROOT / "results/bench/lr_fine_stop.csv").iloc[-1]
    yield f"all {one['runs_finished']} runs on one H200"
    yield f"{one['seconds']:,} s by its display (`lr_fine_stop.csv`)"
    yield f"where {one['seconds']:,} were taken since"
    busy = pd.read_csv(ROOT / "results/bench/utilization_stop.csv", index_col="second")["percent"]
    yield f"busy {busy.mean():.0f} % of the whole (`utilization_stop.csv`)"
    yield f"{busy.loc[70:1330].mean():.0f} % from the 70th second"
    by_ray = pd.read_csv(ROOT / "results/bench/lr_fine_ray.csv").set_index("seconds", drop=False)
    yield f"which {by_ray['runs_finished'][540] - by_ray['runs_finished'][120]} rows"
    by_ray = by_ray.iloc[-1]
    assert by_ray["runs_finished"] == len(study("lr_fine_stop"))
    yield f"{by_ray['seconds']} s by its display"
    sizes = pd.read_csv(ROOT / "results/bench/pack_sizes.csv")
    low, high = sizes["two_gpus"].min(), sizes["two_gpus"].max()
    yield f"{low} to {high} for {WORDS[len(sizes)]} shapes of like speed"
    hyena = sizes[(sizes["mixer"] == "hyena") & (sizes["layers"] == 1)].iloc[0]
    yield f"and {hyena['two_gpus']} in one sweep and {hyena['one_gpu']:.0f} in another for 1-layer"
    dropping = pd.read_csv(ROOT / "results/bench/dropout.csv")
    ms = dropping.set_index(["form", "attention_dropout"])["ms_per_run_step"]
    yield f"takes {ms['kernel', 0.1]:.3f} ms"
    yield f"so {100 * (ms['kernel', 0.1] / ms['kernel', 0] - 1):.0f} % more than without"
    yield f"which it had before, {ms['plain', 0.1]:.3f}"
    yield f"without dropout the plain form takes {ms['plain', 0]:.3f}"
    ways = pd.read_csv(ROOT / "results/bench/comparison.csv")
    for way in ways.to_dict("records"):
        times = f"{way['times the fastest']:.2g}"
        ms = f"{way['ms a run-step']:.2f}"
        yield row(way["what"], way["precision"], way["runs"], ms, times)


def tune_small():
    yield f"All {len(study('tune_small'))} runs of `grids/tune_small.yaml`"
    found = pd.read_csv(ROOT / "results/tune_small/found.csv")
    search = pd.read_csv(ROOT / "results/tune_small/search.csv")
    for one in found.to_dict("records"):
        ends = [f"{rate(one[f'{of}low'])} to {rate(one[f'{of}high'])}" for of in ("", "dense_")]
        yield row(
            one["mixer"], one["runs"], f"{100 * one['steps']:.0f} %", rate(one["best_rate"]),
            rate(one["dense_best_rate"]), *ends, f"{one['width_off']:.2f}",
        )  # fmt: skip
        missed = search[(search["mixer"] == one["mixer"]) & (search[RATE] == one["below"])]
        of = "attention" if "conv" in one["mixer"] else "DeltaNet"
        place = f"at {rate(one['below'])} the first seed of {of} ends"
        yield (place if of == "attention" else f"at {rate(one['below'])} that of {of}") + (
            f" at {missed['accuracy'].item():.3f}"
        )
    assert found["accuracy_lost"].max() < 0.001 and set(found["runs"]) == {9}


def overview():
    points = beside_published(runs_of("zoology_2023")).dropna(subset=["accuracy"])
    near = (beyond_the_seeds(points) <= 0.03).sum()
    assert len(points) == 10
    yield f"of the ten points, {near} lie within 0.03 of the range of three seeds here"
    for name in FOLDERS:
        if not has_runs(ROOT / "results" / name):
            continue
        runs, total = len(study(name)), len(load_grid(grid_of(name)).runs)
        yield f"complete: {runs} runs" if runs == total else f"{runs} of {total:,} runs"
    for path in sorted((ROOT / "grids").glob("*.yaml")):
        folder = ROOT / "results" / path.stem
        found = finished_run_ids(folder) if has_runs(folder) else set()
        if path.stem != "quick" and (left := {x.run_id for x in load_grid(path).runs} - found):
            yield f"| `{path.stem}` | {len(left):,} |"
    attention, dropped = (
        part(runs_of(x), mixer="attention", length=256, layers=2)
        for x in ("lengths", "embed_dropout")
    )
    attention = attention[attention[RATE] > 2e-4]
    yield f"attention solves in {solved(attention)} of {len(attention)} runs over eight"
    yield f"of the embedding dropped in {solved(dropped)}"
    yield f"attention solves over {wide(decades(dropped))} decades"
    mamba = [part(runs_of(x), mixer="mamba", length=256) for x in ("lengths", "embed_dropout")]
    high = pd.concat([x[x[RATE] > 0.004] for x in mamba])
    bad = high[high["test_loss"] > GUESSING - 0.2]
    yield f"on {len(bad)} of {len(high)} runs, with and without dropout, end at the loss of"
    yield f"{(bad[BEST] < 0.01).sum()} of them never left it"
    gap = the(
        window_differences(part(runs_of("embed_dropout"), length=256), {"mixer": "attention"}),
        mixer="mamba",
    )
    least = -gap["wider_high"]
    yield f"attention's window is wider than Mamba's by {least:.2f} decades at the least"
    fine, longer = runs_of("lr_fine", layers=2), runs_of("lengths", layers=2)
    spans = [decades(fine, mixer="mamba"), decades(longer, mixer="mamba", length=128)]
    yield "{} decades at length 64 and {} at 128".format(*map(wide, spans))
    hyena = [at_best(longer, mixer="hyena", width=x, length=64).mean() for x in (128, 256)]
    yield "{:.2f}, {:.2f} and {:.2f}".format(at_best(fine, mixer="hyena").mean(), *hyena)
    lost = reported(longer)
    gains = [100 * the(lost, mixer="hyena", length=x, width=64)["lost"] for x in (256, 128)]
    yield "Hyena gains {:.0f} and {:.0f} points at lengths 256 and 128".format(*gains)
    yield f"has {mean(longer, mixer='mamba', length=256)} there without dropout"
    yield f"and {mean(runs_of('embed_dropout'), mixer='mamba', length=256)} with it"
    values = [at_best(runs_of("ablations"), mixer="attention (conv=v)", width=x) for x in (64, 128)]
    yield "({:.0f} % at width 64, {:.0f} % at 128)".format(*(100 * x.mean() for x in values))
    s6 = [at_best(runs_of("ablations"), mixer=x).mean() for x in ("s6 (conv=True)", "s6")]
    yield "({:.2f}) and not without ({:.2f})".format(*s6)
    yield f"in all of {len(runs_of('conv1d', layers=1))} runs of five seeds and eight rates"
    two = runs_of("conv1d", layers=2)
    yield f"Of two layers {WORDS[(two[ACCURACY] >= SOLVED).sum()]} of {len(two)} runs solve"
    new = runs_of("fresh", layers=2, data="fresh").groupby(["mixer", "seed"])[ACCURACY].max()
    assert (new[["rwkv", "h3"]] >= SOLVED).all() and (new["hyena"] >= SOLVED).sum() == 1
    rwkv, h3 = (f"{new[mixer].mean():.2f}" for mixer in ("rwkv", "h3"))
    hyena = span(new["hyena"])
    yield f"solve it in every seed ({rwkv} and {h3}) and Hyena in one of three ({hyena})"
    deep = runs_of("width_depth", layers=1)
    pairs = {x: at_best(deep, mixer="hyena", width=x) * 64 for x in (64, 128, 256)}
    yield f"goes from {pairs[64].mean():.1f} to {pairs[128].mean():.1f} pairs of 64"
    best = at_one_rate(deep, mixer="hyena", width=256) * 64
    yield f"and to {best.min():.1f} and {best.max():.1f} by four times at one rate"
    yield f"{pairs[256].min():.1f} and {pairs[256].max():.1f} held out"
    yield f"the order of the queries gives away {given_away(256, 64):.1f}"
    yield f"recalls {at_best(deep, mixer='attention', width=128).mean() * 64:.1f} pairs, not one"

    forms = by_form(runs_of("key_value_sum"))
    rows_of = at_best_rate(forms[forms[FORM].eq(AR) & forms[TRAINED_ON].eq(ONE)])
    sums = having(rows_of, main_size(rows_of, size_columns(rows_of)))
    means = sums.groupby(["mixer", PAIRS])["accuracy"].mean()
    yield f"added ({means['attention', 10]:.2f} of 10 pairs, where a guess from the list's values"
    yield f"has {without_recall(10, 3, 10):.2f})"
    yield f"from {means['mamba2', 10]:.2f} of 10 pairs to {means['mamba2', 20]:.2f} of 20"
    small = part(by_form(runs_of("key_value_sum_small")), **{FORM: AR, TRAINED_ON: ONE})
    yield f"does not recall ({at_best(small, mixer='attention').mean():.2f})"


def tune():
    pruned = pd.read_csv(ROOT / "results/tune/pruning.csv")
    fine = pruned[pruned["folder"] == "lr_fine"]
    for one in fine.to_dict("records"):
        saved = [f"{100 * one[x]:.0f} %" for x in ("steps_saved", "of_failing_saved")]
        yield row(one["rule"], one["solving_ended"], *saved)
    first = fine.iloc[0]
    yield f"Of the {first['runs']} runs of `lr_fine` {first['solving']} solve"
    others = pruned[pruned["folder"] != "lr_fine"]
    assert set(others["folder"]) == {*FOLDERS} - {"", "bench", "lr_fine", "tune"}
    yield f"{others['solving_ended'].sum()} of {others['solving'].sum()} solving runs"
    yield f"saves {span(100 * others['steps_saved'], 0)} % of the run-steps"
    replayed = pd.read_csv(ROOT / "results/tune/replay.csv")
    for names, found in replayed.groupby(["sampler", "pruner"]):
        steps = [f"{100 * x:.0f} %" for x in (found["steps"].mean(), found["steps"].max())]
        best, good, wide = (
            f"{(found[x] <= 0.25 + 1e-6).sum()} of {len(found)}"
            for x in ("best_off", "off_as_good", "width_off")
        )
        lost = f"{found['accuracy_lost'].max():.3f}"
        yield row(*names, f"{found['runs'].mean():.1f}", *steps, best, good, lost, wide)
    ours = replayed[(replayed["sampler"] == "window") & (replayed["pruner"] == "plateau")]
    for key, found in ours.groupby(["mixer", COLUMNS["layers"]]):
        most = found[["width_off", "best_off", "accuracy_lost"]].max()
        off = [f"{most.iloc[0]:.3f}", f"{most.iloc[1]:.2f}", f"{most.iloc[2]:.3f}"]
        yield row(*key, f"{100 * found['steps'].mean():.0f} %", *off)
    far = ours[ours["best_off"] > 0.25 + 1e-6]["mixer"].value_counts()
    yield f"The {far.sum()} searches of `window` whose rate is not close to the best are "
    yield f"{far['attention']} of 1-layer attention"
    yield f"and {far['attention (conv=qkv)']} of attention with a convolution"
    toss = runs_of("lr_fine", mixer="attention", layers=2, rate=0.1)["steps_to_solve"]
    late = [f"{round(x, -2):,.0f}" for x in sorted(toss.dropna())]
    yield f"{' and '.join(late)} steps of 9,750 and then solves"


FOLDERS = {
    "": overview,
    "ablations": ablations,
    "bench": bench,
    "conv1d": conv1d,
    "conv_on_values": conv_on_values,
    "dynamics": dynamics,
    "embed_dropout": embed_dropout,
    "embed_dropout_small": embed_dropout_small,
    "fresh": fresh,
    "initial_weights": initial_weights,
    "key_value_sum": key_value_sum,
    "key_value_sum_small": key_value_sum_small,
    "lengths": lengths,
    "lr_fine": lr_fine,
    "lr_fine_stop": lr_fine_stop,
    "mamba_norm_small": mamba_norm_small,
    "positions": positions,
    "precision": precision,
    "recipe": recipe,
    "recipe_details": recipe_details,
    "roster_small": roster_small,
    "tune": tune,
    "tune_small": tune_small,
    "width_depth": width_depth,
    "zoology": zoology,
    "zoology_2023": zoology_2023,
    "zoology_figure2": zoology_figure2,
}


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("name", FOLDERS)
def test_the_numbers_of_a_readme_are_those_of_its_tables(name):
    page = flat((ROOT / "results" / name / "README.md").read_text())
    missing = [piece for piece in map(flat, FOLDERS[name]()) if piece not in page]
    assert not missing, f"not in results/{name}/README.md, by its tables:\n" + "\n".join(missing)


def test_the_readme_tells_the_speed_that_was_measured():
    ways = pd.read_csv(ROOT / "results/bench/comparison.csv").groupby("what")["ms a run-step"].min()
    times = ways / ways["zoorecall"]
    page = flat((ROOT / "README.md").read_text())
    assert f"{times['Zoology']:.0f} times less than in the peer lab" in page
    best = times[times.index.str.startswith("plain loop")].min()
    assert f"{best:.0f} times less than in the best plain loop" in page
    seconds = pd.read_csv(ROOT / "results/bench/utilization_stop.csv")["second"].max() + 10
    assert f"each ended at 99 %, took one GPU {seconds // 60} minutes" in page


def test_every_readme_of_results_is_held():
    assert set(FOLDERS) == {
        path.parent.relative_to(ROOT / "results").as_posix().replace(".", "")
        for path in (ROOT / "results").rglob("README.md")
    }

"""What verdicts on claims are made of: findings that hold, do not, or are open, and their words.

That a model does not solve, or gains nothing, where it was run says nothing of where it was not.
So a claim that something can be done, at any size or at every, is not refuted from a corner of its
sizes: it is open, and within what was run the answer is no.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from ..analysis.accuracy import Accuracies, accuracies, best_numbers
from ..analysis.three_valued import Row, all_of, any_of
from ..analysis.windows import window_differences, window_numbers
from ..columns import DEPTH, LENGTH, QUERIES, SOLVED, WIDTH
from ..results import Results

SETTING = ["mixer", DEPTH, WIDTH, LENGTH, QUERIES]

LENGTHS, WIDTHS = (64, 128, 256, 512), (64, 128, 256, 512, 1024, 2048)
"""Those of Okpekpe and Orvieto 2025."""

LEAST_SEEDS = 3
"""The least seeds from which a statement about solving or about windows is made: two that happen to
agree leave an interval of no width."""

RECURRENT = ("h3", "hyena", "rwkv", "mamba", "mamba2", "delta_net")

REPRODUCED, NOT_REPRODUCED, OPEN = "reproduced", "not reproduced", "open"
OPEN_NO = "open (within what was run: no)"


@dataclass(frozen=True)
class Studies(Mapping[str, Results]):
    """The results of each grid that was run, by its name, and the accuracy from which a task
    counts as solved."""

    results: Mapping[str, Results]
    solved: float = SOLVED

    def __getitem__(self, name: str) -> Results:
        return self.results[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)


@dataclass(frozen=True)
class Verdict:
    """What the tables say of one claim: `verdict` is one of the four above."""

    claim: str
    statement: str
    verdict: str
    evidence: str
    grids: tuple[str, ...]


class Finding(NamedTuple):
    """One part of a claim: whether it holds, and the numbers; `whole` says whether a no would be
    one of the claim, as all was run that it speaks of."""

    holds: bool | None
    text: str
    whole: bool = True


def judge(
    claim: str, statement: str, findings: Sequence[Finding], grids: Sequence[str], studies: Studies
) -> Verdict:
    """A claim is reproduced if all of its parts hold, not reproduced if one does not. It rests on
    those of the grids that were run."""
    run = tuple(name for name in grids if name in studies)
    if not run:
        return Verdict(claim, statement, OPEN, "not run", tuple(grids))
    refuted = [finding.whole for finding in findings if finding.holds is False]
    if refuted:
        verdict = NOT_REPRODUCED if any(refuted) else OPEN_NO
    else:
        verdict = REPRODUCED if all_of(finding.holds for finding in findings) else OPEN
    return Verdict(claim, statement, verdict, "; ".join(f.text for f in findings), run)


def every_size(rows: pd.DataFrame) -> bool:
    """Whether every length and width of the paper was run."""
    return set(itertools.product(LENGTHS, WIDTHS)) <= set(
        zip(rows[LENGTH], rows[WIDTH], strict=True)
    )


def with_room(row: Row, baseline: Row) -> Row:
    """A difference whose interval has room for what rates beyond the grid's edge could add."""
    up, down = ((1 - x["accuracy"]) if x["edge"] else 0 for x in (row, baseline))
    low, high = row["difference_low"] - down, row["difference_high"] + up
    return {**row, "difference_low": low, "difference_high": high}


def unanimous(rows: pd.DataFrame, shown: pd.Series) -> bool | None:
    """Whether all runs show something, or none does; open where some do, or one seed of a width."""
    if rows.empty or rows.groupby(WIDTH)["seed"].nunique().min() < 2:
        return None
    found = set(shown[rows.index])
    return found.pop() if len(found) == 1 else None


def several(holds: bool | None, *counts: int) -> bool | None:
    """A general finding, but open where it holds and rests on less than two of a kind: of sizes,
    say, or of mixers."""
    return None if holds and min(counts) < 2 else holds


def num_sizes(rows: pd.DataFrame) -> int:
    """How many lengths and widths rows are of."""
    return len(rows[[LENGTH, WIDTH]].drop_duplicates()) if len(rows) else 0


def solved(rows: pd.DataFrame) -> list[bool | None]:
    """Whether each setting solves the task."""
    return [{"solves": True, "does not solve": False}.get(name) for name in rows["verdict"]]


def solved_nowhere(rows: pd.DataFrame) -> bool | None:
    """Whether none of the settings solves, which takes more than one width to say."""
    found = any_of(solved(rows))
    return None if found is None or (found is False and rows[WIDTH].nunique() < 2) else not found


def settings(
    studies: Studies, grids: Sequence[str], mixers: Sequence[str], layers: int | None = None
) -> pd.DataFrame:
    """One row a setting of some mixers, of one depth if given: its `best_numbers` and those of its
    window, whose edge is `window_edge`; see `each_once`."""
    tables = [
        pd.DataFrame([_row(one, studies.solved) for one in accuracies(runs)]).assign(
            **{QUERIES: runs[QUERIES].iloc[0]}
        )
        for runs in by_pairs(studies, grids, mixers, layers)
    ]
    return each_once(tables)


def _row(one: Accuracies, solved: float) -> dict[str, Any]:
    window, best = window_numbers(one, solved), best_numbers(one, solved)
    if best["seeds"] < LEAST_SEEDS:
        best["verdict"] = "undecided"
    return {**one.setting, **window, **best, "window_edge": window["edge"]}


def window_gaps(
    studies: Studies, grids: Sequence[str], mixer: str, baseline: str, at_layers: int | None = None
) -> pd.DataFrame:
    """`window_differences` of a mixer from another, of the same depth or of `at_layers`; see
    `each_once`."""
    of = {"mixer": baseline} | ({} if at_layers is None else {DEPTH: at_layers})
    tables = []
    for runs in by_pairs(studies, grids, (mixer, baseline)):
        has_baseline = (runs[list(of)] == pd.Series(of)).all(axis=1).any()
        if has_baseline and (runs["mixer"] == mixer).any():
            table = window_differences(runs, of, studies.solved)
            table = table.assign(**{QUERIES: runs[QUERIES].iloc[0]})
            table.loc[table["seeds"] < LEAST_SEEDS, "verdict"] = "undecided"
            tables.append(pick(table, [mixer]))
    return each_once(tables)


def each_once(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table of several, in which a setting stands once: as in the table with the most seeds
    for it, of equals the first."""
    found = [table for table in tables if len(table)]
    if not found:
        return pd.DataFrame(columns=[*SETTING, "verdict", "accuracy"])
    table = pd.concat(found, ignore_index=True)
    table = table.sort_values("seeds", ascending=False, kind="stable").drop_duplicates(SETTING)
    return table.sort_values(SETTING, ignore_index=True)


def by_pairs(
    studies: Studies, grids: Sequence[str], mixers: Sequence[str], layers: int | None = None
) -> list[pd.DataFrame]:
    """The runs of some mixers, of one depth if given: a table for each grid and number of queries,
    which in MQAR is that of the pairs."""
    tables = [pick(studies[name].runs, mixers, layers) for name in grids if name in studies]
    return [runs for table in tables for _, runs in table.groupby(QUERIES)]


def pick(rows: pd.DataFrame, mixers: Sequence[str], layers: int | None = None) -> pd.DataFrame:
    """The rows of some mixers, of one depth if given."""
    rows = rows[rows["mixer"].isin(list(mixers))]
    return rows if layers is None else rows[rows[DEPTH] == layers]


def percent(row: Row, name: str = "accuracy") -> str:
    """`97.5 % [96.0, 98.8]`, or `97.5 % (one seed)`."""
    return _interval(row, name, 100, " %", ".1f")


def decades(row: Row) -> str:
    """`1.25 to 1.75 decades [1.10, 1.90]`: the spans of the window of the mean, and the interval
    of a seed's own; `at least` where a window touches the grid's edge."""
    window = span(row["inner"], row["outer"], row["window_edge"]) if row["islands"] else "none"
    islands = f" (of {row['islands']} islands)" if row["islands"] > 1 else ""
    return f"{window}{islands} {seeds(row, 'decades', 1, '.2f')}"


def span(inner: float, outer: float, edge: str) -> str:
    """`1.25 to 1.75 decades`, or `at least 1.25`."""
    return f"at least {inner:.2f} decades" if edge else f"{inner:.2f} to {outer:.2f} decades"


def _interval(row: Row, name: str, unit: float, word: str, digits: str) -> str:
    return f"{row[name] * unit:{digits}}{word} {seeds(row, name, unit, digits)}"


def seeds(row: Row, name: str, unit: float, digits: str) -> str:
    """`[1.10, 1.90]`, or `(one seed)`."""
    low, high = (row[f"{name}_{end}"] * unit for end in ("low", "high"))
    return f"[{low:{digits}}, {high:{digits}}]" if low <= high else "(one seed)"


def lowest(rows: pd.DataFrame, name: str = "accuracy") -> dict[Any, Any]:
    return rows.sort_values(name, kind="stable").iloc[0].to_dict()


def highest(rows: pd.DataFrame, name: str = "accuracy") -> dict[Any, Any]:
    return rows.sort_values(name, kind="stable").iloc[-1].to_dict()


def place(row: Row) -> str:
    """`length 64, width 128`."""
    return f"length {row[LENGTH]}, width {row[WIDTH]}"


def model(row: Row) -> str:
    """`2-layer mamba`."""
    return f"{row[DEPTH]}-layer {row['mixer']}"


def gap(row: Row) -> str:
    """`1.00 to 1.50 against 2.25 to 2.75 decades, a difference of [-1.60, -0.80]`, of
    `window_gaps`."""
    one = span(row["inner"], row["outer"], row["edge"])
    other = span(row["baseline_inner"], row["baseline_outer"], row["baseline_edge"])
    return f"{one} against {other}, a difference of {seeds(row, 'wider', 1, '.2f')}"


def covers(rows: pd.DataFrame) -> str:
    """`lengths 64, 128, widths 64; not run lengths 256, 512, widths 128, ...`."""
    sizes = {"lengths": (LENGTH, LENGTHS), "widths": (WIDTH, WIDTHS)}
    run = {word: sorted(rows[column].unique()) for word, (column, _) in sizes.items()}
    left = {word: [x for x in all_ if x not in run[word]] for word, (_, all_) in sizes.items()}
    words = [
        ", ".join(f"{word} {', '.join(map(str, of))}" for word, of in each.items() if of)
        for each in (run, left)
    ]
    return "; not run ".join(filter(None, words))


def counted(kinds: pd.Series) -> str:
    """`smooth in 2, spike in 1 of 3 runs`."""
    counts = ", ".join(f"{kind} in {count}" for kind, count in kinds.value_counts().items())
    return f"{counts} of {len(kinds)} runs" if len(kinds) else "not run"

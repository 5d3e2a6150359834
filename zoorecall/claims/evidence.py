"""What verdicts on claims are made of: findings that hold, do not, or are open, and their words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from ..analysis.accuracy import best_accuracies, setting_columns
from ..analysis.three_valued import Row, all_of, any_of
from ..analysis.windows import window_differences, windows
from ..columns import DEPTH, LENGTH, QUERIES, WIDTH
from ..results import Results

SETTING = ["mixer", DEPTH, WIDTH, LENGTH, QUERIES]

LENGTHS, WIDTHS = (64, 128, 256, 512), (64, 128, 256, 512, 1024, 2048)
"""Those of Okpekpe and Orvieto 2025."""

WINDOW_SEEDS = 3
"""The least seeds from which a statement about windows is made: of two, an interval is no more than
their range."""

RECURRENT = ("h3", "hyena", "rwkv", "mamba", "mamba2", "delta_net")

Studies = Mapping[str, Results]
"""The results of each grid that was run, by its name."""


@dataclass(frozen=True)
class Verdict:
    """What the tables say of one claim: `verdict` is reproduced, not reproduced or open."""

    claim: str
    statement: str
    verdict: str
    evidence: str
    grids: tuple[str, ...]


class Finding(NamedTuple):
    """One part of a claim: whether it holds, and the numbers."""

    holds: bool | None
    text: str


def judge(
    claim: str, statement: str, findings: Sequence[Finding], grids: Sequence[str], studies: Studies
) -> Verdict:
    """A claim is reproduced if all of its parts hold, not reproduced if one does not. It rests on
    those of the grids that were run."""
    run = tuple(name for name in grids if name in studies)
    if not run:
        return Verdict(claim, statement, "open", "not run", tuple(grids))
    names = {True: "reproduced", False: "not reproduced", None: "open"}
    verdict = names[all_of(finding.holds for finding in findings)]
    return Verdict(claim, statement, verdict, "; ".join(f.text for f in findings), run)


def with_room(row: Row, baseline: Row) -> Row:
    """A difference whose interval has room for what rates beyond the grid's edge could add."""
    up, down = ((1 - x["accuracy"]) if x["edge"] else 0 for x in (row, baseline))
    low, high = row["difference_low"] - down, row["difference_high"] + up
    return {**row, "difference_low": low, "difference_high": high}


def unanimous(rows: pd.DataFrame, shown: pd.Series) -> bool | None:
    """Whether all runs show something, or none does; open where some do, or one seed ran."""
    if rows["seed"].nunique() < 2:
        return None
    found = set(shown[rows.index])
    return found.pop() if len(found) == 1 else None


def solved(rows: pd.DataFrame) -> list[bool | None]:
    """Whether each setting solves the task."""
    return [{"solves": True, "does not solve": False}.get(name) for name in rows["verdict"]]


def solved_anywhere(rows: pd.DataFrame) -> bool | None:
    """Whether one of the settings solves; that none does takes more than one width to say."""
    found = any_of(solved(rows))
    return None if found is False and rows[WIDTH].nunique() < 2 else found


def settings(
    studies: Studies, grids: Sequence[str], mixers: Sequence[str], layers: int | None = None
) -> pd.DataFrame:
    """One row a setting of some mixers, of one depth if given: `best_accuracies`, and of its
    window `decades` with interval and `window_edge`; see `each_once`."""
    tables = []
    for runs in by_pairs(studies, grids, mixers, layers):
        found = windows(runs).rename(columns={"edge": "window_edge"})
        spans = ["decades", "decades_low", "decades_high", "window_edge"]
        found = found[[*setting_columns(runs), *spans]]
        tables.append(best_accuracies(runs).merge(found).assign(**{QUERIES: runs[QUERIES].iloc[0]}))
    return each_once(tables)


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
            table = window_differences(runs, of).assign(**{QUERIES: runs[QUERIES].iloc[0]})
            table.loc[table["seeds"] < WINDOW_SEEDS, "verdict"] = "undecided"
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
    """`1.36 decades [1.20, 1.51]`, `at least` that where the window touches the grid's edge."""
    at_least = "at least " if row.get("window_edge") else ""
    return at_least + _interval(row, "decades", 1, " decades", ".2f")


def _interval(row: Row, name: str, unit: float, word: str, digits: str) -> str:
    value, low, high = (row[key] * unit for key in (name, f"{name}_low", f"{name}_high"))
    seeds = f"[{low:{digits}}, {high:{digits}}]" if low <= high else "(one seed)"
    return f"{value:{digits}}{word} {seeds}"


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
    """`1.36 against 2.32 decades, a difference of -0.96 [-1.10, -0.80]`, of `window_gaps`."""
    least = ["at least " if row[edge] else "" for edge in ("edge", "baseline_edge")]
    spans = (
        f"{least[0]}{row['decades']:.2f} against {least[1]}{row['baseline_decades']:.2f} decades"
    )
    return f"{spans}, a difference of {_interval(row, 'difference', 1, '', '.2f')}"


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

"""Verdicts on the claims of Okpekpe and Orvieto 2025 (arXiv 2508.19029, versions 1 and 2) that
the grids test: one function each, from the tables of the grids. Those on variants of a mixer, C7 to
C9, C11 and C16, are in `okpekpe2025_variants`.

Accuracies are held out, at the learning rate that is best for the other seeds. What the papers
leave vague is fixed by the constants here, and so: to gain is more than nothing by the interval
over seeds, from a model that does not solve yet to one that recalls more than positions alone give
away. What holds at every size takes two sizes at least to say; that something does not happen
(no model of a kind solves, no loss has a bump, no sparse grid misses a window, no finer one finds
more) takes all of the paper's sizes, and one on its widest model the widest. That 1-layer attention
recalls one pair is said of sequences with room for more queries than there are: 64 queries fill the
rest of 256 tokens, and give 2.2 pairs away.
"""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from ..analysis.accuracy import best_accuracies, setting_columns
from ..analysis.bumps import classify
from ..analysis.floors import without_recall
from ..analysis.intervals import mean_difference, mean_over_seeds
from ..analysis.outcomes import FITS
from ..analysis.scaling import whole_gains
from ..analysis.sparse_grids import lost_by_seed, miss_rates
from ..analysis.three_valued import Row, above, agreed, all_of, any_of, unsure, within
from ..columns import DEPTH, LENGTH, QUERIES, RATE, RUN_ID, WIDTH
from ..results import Results
from .evidence import (
    LEAST_SEEDS,
    LENGTHS,
    RECURRENT,
    SETTING,
    WIDTHS,
    Finding,
    Studies,
    Verdict,
    by_pairs,
    counted,
    covers,
    decades,
    every_size,
    gap,
    highest,
    judge,
    lowest,
    model,
    num_sizes,
    percent,
    pick,
    place,
    seeds,
    settings,
    several,
    solved,
    solved_nowhere,
    unanimous,
    window_gaps,
)

ATTENTION = ("attention",)

WIDE = 1.0
"""Decades that a wide window has at least."""

AS_WIDE = 0.25
"""Decades by which a window may be narrower and still be as wide: one step of lr_fine."""

NOTICEABLE = 0.01
"""What a finer grid must add to an accuracy to raise it."""

DEEPEST = 2
"""Layers of the paper's deepest model."""

FAR = 4
"""A length of so many times the width is far above it."""


def c1(studies: Studies, grids: Sequence[str] = ("lr_fine", "lengths", "width_depth")) -> Verdict:
    rows = settings(studies, grids, ATTENTION, layers=2)
    findings = [Finding(None, "2-layer attention is not run")]
    if len(rows):
        holds = several(all_of(solved(rows)), rows[WIDTH].nunique(), rows[LENGTH].nunique())
        worst, narrow = lowest(rows), lowest(rows, "decades_low")
        where = f"({covers(rows)}), lowest {percent(worst)} at {place(worst)}"
        count, whole = int((rows["verdict"] == "solves").sum()), every_size(rows)
        wide = all_of(
            unsure(above(row, "decades", WIDE), False, row["window_edge"])
            if row["seeds"] >= LEAST_SEEDS
            else None
            for row in rows.to_dict("records")
        )
        findings = [
            Finding(
                holds, f"solves {count} of {len(rows)} settings by its interval {where}", whole
            ),
            Finding(wide, f"narrowest window {decades(narrow)} at {place(narrow)}", whole),
        ]
    text = "2-layer attention solves every width and length, over a decade of rates or more"
    return judge("C1", text, findings, grids, studies)


def c2(studies: Studies, grids: Sequence[str] = ("lr_fine", "lengths")) -> Verdict:
    findings = []
    for mixer in ("hyena", "mamba"):
        rows = settings(studies, grids, [mixer], layers=2)
        if rows.empty:
            findings.append(Finding(None, f"{mixer} is not run"))
            continue
        best = highest(rows)
        words = f"{mixer} reaches {percent(best)} at {place(best)}"
        findings.append(Finding(any_of(solved(rows)), words, every_size(rows)))
        gaps = window_gaps(studies, grids, mixer, "attention")
        narrow = gaps.merge(rows.loc[rows["islands"] > 0, SETTING])
        if len(narrow):
            row = lowest(narrow, "wider")
            words = f"its window and attention's {gap(row)} at {place(row)}"
            findings.append(Finding(agreed(narrow["verdict"], "narrower", "wider"), words))
    tables = [
        miss_rates(runs, solved=studies.solved)
        for runs in by_pairs(studies, grids, ("hyena", "mamba"), 2)
    ]
    missed = [row for x in tables for row in x.dropna(subset="missed_most").to_dict("records")]
    if missed:
        row = max(missed, key=lambda row: (row["missed_least"], row["missed_most"]))
        least, most = (100 * row[f"missed_{end}"] for end in ("least", "most"))
        words = f"of grids as sparse as Zoology's {least:.0f} to {most:.0f} % "
        words += f"{seeds(row, 'missed', 100, '.0f')} miss {row['mixer']}'s at {place(row)}"
        can = any_of(
            unsure(above(row, "missed", 0), True, row["edge"])
            if row["seeds"] >= LEAST_SEEDS
            else None
            for row in missed
        )
        findings.append(Finding(can, words, every_size(pd.DataFrame(missed))))
    text = "2-layer Hyena's and Mamba's windows are narrower than attention's; four rates miss them"
    return judge("C2", text, findings, grids, studies)


def c3(studies: Studies, grids: Sequence[str] = ("lengths",)) -> Verdict:
    findings = []
    tables = [studies[name].runs for name in grids if name in studies]
    if tables:
        runs = pick(pd.concat(tables).drop_duplicates(RUN_ID), ("hyena", "mamba"), layers=2)
        lost = lost_by_seed(runs)
        sizes = runs.groupby([LENGTH, WIDTH])["mixer"].nunique()
        whole = every_size(sizes[sizes == runs["mixer"].nunique()].reset_index())
        for mixer in ("hyena", "mamba"):
            if mixer not in lost:
                is_run = mixer in set(runs["mixer"])
                why = "no setting has the same seeds of both" if is_run else f"{mixer} is not run"
                findings.append(Finding(None, why))
                continue
            gain = mean_over_seeds(lost[mixer]).columns("gain")
            words = f"{mixer} gains {percent(gain, 'gain')} over those of Zoology's rates it has"
            findings.append(Finding(above(gain, "gain", NOTICEABLE), words, whole))
        if len(lost.columns) == 2:
            more = mean_difference(lost["mamba"], lost["hyena"])[0].columns("more")
            words = f"Mamba {percent(more, 'more')} more"
            findings.append(Finding(above(more, "more", 0), words, whole))
        rows = settings(studies, grids, ["mamba"], layers=2)
        rows = rows[rows[LENGTH] >= FAR * rows[WIDTH]]
        words = f"Mamba at a length of {FAR} times its width "
        words += f"{percent(highest(rows))} ({place(highest(rows))})" if len(rows) else "not run"
        findings.append(Finding(any_of(solved(rows)), words, whole))
    text = "a finer grid raises Hyena, and more so Mamba, which solves lengths far above its width"
    return judge("C3", text, findings, grids, studies)


def c4(studies: Studies) -> Verdict:
    grids = ("lr_fine", "lengths")
    rows = settings(studies, grids, ATTENTION, layers=1)
    findings = [Finding(None, "1-layer attention is not run")]
    if len(rows):
        best = highest(rows)
        words = f"1-layer attention reaches {percent(best)} at {place(best)} ({covers(rows)})"
        names = ["accuracy", "accuracy_low", "accuracy_high"]
        pairs = rows[names].mul(rows[QUERIES].astype(float), axis=0)
        one = all_of(
            unsure(within(row, "accuracy", 0.5, 1.5), True, edge)
            for row, edge in zip(pairs.to_dict("records"), rows["edge"], strict=True)
        )
        span = f"{pairs['accuracy'].min():.2f} to {pairs['accuracy'].max():.2f}"
        findings = [
            Finding(solved_nowhere(rows), words),
            Finding(one, f"it recalls {span} pairs of each example"),
        ]
    findings.append(_gain(studies, WIDTH, RECURRENT, 1, grids))
    text = "1-layer attention recalls one pair at any width; 1-layer recurrent models gain by width"
    return judge("C4", text, findings, grids, studies)


def c5(studies: Studies) -> Verdict:
    grids = ["width_depth"]
    rows = settings(studies, grids, ATTENTION)
    deep, wide = pick(rows, ATTENTION, layers=2), pick(rows, ATTENTION, layers=1)
    finding = Finding(None, "attention of both depths and two widths is not run")
    if len(deep) and wide[WIDTH].nunique() > 1:
        small, large = lowest(deep, WIDTH), highest(wide, WIDTH)
        more = {"more_low": small["accuracy_low"] - large["accuracy_high"],
                "more_high": small["accuracy_high"] - large["accuracy_low"]}  # fmt: skip
        better = unsure(above(more, "more", 0), True, large["edge"])
        better = unsure(better, False, small["edge"])
        if better and small["parameters"] >= large["parameters"]:
            better = None
        words = [
            f"{model(x)} of {x['parameters']:,} parameters {percent(x)}" for x in (small, large)
        ]
        finding = Finding(better, ", ".join(words))
    gains = [
        _gain(studies, WIDTH, RECURRENT, None, grids),
        _gain(studies, DEPTH, ATTENTION, None, grids),
    ]
    text = "recurrent models gain from width and attention from depth, whatever the parameters"
    return judge("C5", text, [*gains, finding], grids, studies)


def c6(studies: Studies) -> Verdict:
    findings = []
    if "dynamics" in studies:
        runs, curves = studies["dynamics"].runs, studies["dynamics"].curves
        best = best_accuracies(runs, studies.solved).rename(columns={"best_rate": RATE})
        kinds = runs.merge(classify(runs, curves)[["run_id", "kind"]])
        attention = pick(kinds, ATTENTION, layers=1).merge(best[[*setting_columns(runs), RATE]])
        mamba = pick(kinds, ["mamba"], layers=1)
        in_none = f"Mamba solves in none of {len(mamba)} runs" if len(mamba) else "Mamba is not run"
        mamba = mamba[mamba["test_accuracy"] >= studies.solved]
        bump = unanimous(attention, attention["kind"] == "bump without gain")
        widest = attention[WIDTH].max() >= WIDTHS[-1]
        settled = None if unanimous(mamba, mamba["kind"].str.startswith("bump")) is None else True
        words = f"Mamba's runs that solve{_widths(mamba)}: {counted(mamba['kind'])}"
        findings = [
            Finding(bump, f"attention{_widths(attention)}: {counted(attention['kind'])}", widest),
            Finding(settled, words if len(mamba) else in_none),
        ]
    text = "1-layer attention's loss has a bump without gain; whether Mamba's is smooth is settled"
    return judge("C6", text, findings, ["dynamics"], studies)


def c10(studies: Studies) -> Verdict:
    grids = ("lr_fine", "lengths")
    mamba2 = window_gaps(studies, grids, "mamba2", "mamba")
    delta_net = window_gaps(studies, grids, "delta_net", "attention", at_layers=2)
    wider = agreed(mamba2["verdict"], "wider", "narrower")
    robust = [
        row["verdict"] == "wider" or _not_narrower(row) for row in delta_net.to_dict("records")
    ]
    wider = several(wider, num_sizes(mamba2))
    as_robust = several(all_of(robust), num_sizes(delta_net))
    findings = [
        Finding(wider, f"Mamba2 and Mamba: {_least(mamba2)}"),
        Finding(as_robust, f"DeltaNet and 2-layer attention: {_least(delta_net)}"),
    ]
    text = "Mamba2's window is wider than Mamba's, DeltaNet's as wide as 2-layer attention's"
    return judge("C10", text, findings, grids, studies)


def c18(studies: Studies) -> Verdict:
    grids = ("lr_fine", "lengths", "width_depth")
    rows = settings(studies, grids, ["hyena"], layers=1)
    rows = rows[rows[WIDTH] > rows[LENGTH]]
    finding = Finding(None, "1-layer hyena of more width than length is not run")
    if len(rows):
        holds = several(all_of(solved(rows)), len(rows))
        count, worst = int((rows["verdict"] == "solves").sum()), lowest(rows)
        words = (
            f"solves {count} of {len(rows)} settings of more width than length by its interval, "
        )
        words += f"lowest {percent(worst)} at {place(worst)}"
        run = set(zip(rows[LENGTH], rows[WIDTH], strict=True))
        whole = {(length, width) for length in LENGTHS for width in WIDTHS if width > length} <= run
        finding = Finding(holds, words, whole)
    text = "1-layer Hyena solves once its width exceeds the length"
    return judge("C18", text, [finding], grids, studies)


def c19(studies: Studies) -> Verdict:
    grids = ("lr_fine", "lengths", "width_depth")
    rows = settings(_of_training(studies, grids), grids, ATTENTION, layers=1)
    finding = Finding(None, "1-layer attention is not run")
    if len(rows):
        most, least = highest(rows), lowest(rows)
        words = f"it recalls {percent(most)} of its training examples at {place(most)}, "
        words += f"{percent(least)} at {place(least)} with {least[QUERIES]} pairs"
        finding = Finding(solved_nowhere(rows), words)
    text = "1-layer attention does not fit its training examples either"
    return judge("C19", text, [finding], grids, studies)


def _of_training(studies: Studies, grids: Sequence[str]) -> Studies:
    """The same runs by their accuracy on the examples that they were trained on, solved where a run
    counts as fitting them."""
    found = {}
    for name in grids:
        if name in studies and "train_accuracy" in studies[name].runs:
            runs = studies[name].runs.dropna(subset="train_accuracy")
            runs = runs.assign(test_accuracy=runs["train_accuracy"])
            found[name] = Results(runs, studies[name].curves)
    return replace(studies, results=found, solved=FITS)


def _gain(
    studies: Studies, axis: str, mixers: Sequence[str], layers: int | None, grids: Sequence[str]
) -> Finding:
    """Whether all mixers gain along an axis, of those whose smallest model does not solve."""
    tables = [
        whole_gains(runs, axis).assign(
            **{QUERIES: runs[QUERIES].iloc[0]}, floor=without_recall(runs).iloc[0]
        )
        for runs in by_pairs(studies, grids, mixers, layers)
    ]
    rows = [row for table in tables for row in table.to_dict("records")]
    rows = [row for row in rows if row["first_accuracy"] < studies.solved]
    word, last = {WIDTH: ("width", WIDTHS[-1]), DEPTH: ("depth", DEEPEST)}[axis]
    if not rows:
        return Finding(None, f"no gain from {word} to see yet for {', '.join(mixers)}")
    least = min(rows, key=lambda row: row["gain"])
    words = f"least gain from {word} {least['first']} to {least[axis]} of {len(rows)}: "
    words += f"{percent(least, 'gain')} ({model(least)}, {place(least)})"
    if not above(least, "accuracy", least["floor"]):
        given = f"positions give away {100 * least['floor']:.1f} %"
        words += f" to {percent(least)}, where {given}"
    refuted = [row for row in rows if _gains(row) is False]
    whole = any(row[axis] >= last for row in refuted)
    gain = all_of(_gains(row) for row in rows)
    models = {row["mixer"] for row in rows}
    return Finding(gain if len(mixers) == 1 else several(gain, len(models)), words, whole)


def _gains(row: Row) -> bool | None:
    """Whether a row of `whole_gains` gains; open where learning rates beyond the grid's edge may
    tell otherwise, and where what is reached may be no recall."""
    gain = unsure(unsure(above(row, "gain", 0), True, row["first_edge"]), False, row["edge"])
    return None if gain and not above(row, "accuracy", row["floor"]) else gain


def _widths(rows: pd.DataFrame) -> str:
    """Where the runs are, ` (width 64, 128)`."""
    widths = sorted(set(rows[WIDTH]))
    return f" (width {', '.join(map(str, widths))})" if widths else ""


def _not_narrower(row: Row) -> bool | None:
    """Whether a window is as wide as its baseline's, which may be wider yet at the grid's edge."""
    if row["seeds"] < LEAST_SEEDS:
        return None
    if row["wider_low"] >= -AS_WIDE and not row["baseline_edge"]:
        return True
    return False if row["verdict"] == "narrower" else None


def _least(gaps: pd.DataFrame) -> str:
    """The least of some differences between windows."""
    if gaps.empty:
        return "not run"
    row = lowest(gaps, "wider")
    wider = f"wider for sure at {(gaps['verdict'] == 'wider').sum()} of {len(gaps)} settings"
    return f"{wider}, at the least ({model(row)}, {place(row)}) {gap(row)}"

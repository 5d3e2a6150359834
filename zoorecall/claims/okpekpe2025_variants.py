"""Verdicts on the claims about variants of a mixer (C7, C8, C9, C11 and C16); see `claims`."""

from collections.abc import Mapping, Sequence

import pandas as pd

from .. import words as in_words
from ..analysis.ablations import ablations
from ..analysis.accuracy import setting_columns
from ..analysis.three_valued import all_of, any_of, within
from ..columns import POSITIONS, QUERIES, WIDTH
from .evidence import (
    RECURRENT,
    Finding,
    Studies,
    Verdict,
    by_pairs,
    every_size,
    highest,
    judge,
    model,
    num_sizes,
    percent,
    place,
    settings,
    several,
    solved,
    solved_nowhere,
    with_room,
)

HARDLY = 0.05
"""The most by which an accuracy changes that hardly changes."""


def c7(studies: Studies) -> Verdict:
    expected: dict[Sequence[str], bool] = {
        ("attention",): False,
        ("attention (conv=qkv)",): True,
        ("attention (conv=k)",): True,
        ("attention (conv=v)",): True,
        ("attention (conv=q)",): False,
    }
    text = "1-layer attention solves with a convolution on Q, K and V, on K, on V; not on Q alone"
    return _variants("C7", text, expected, ("ablations", "lr_fine"), studies)


def c8(studies: Studies) -> Verdict:
    expected: dict[Sequence[str], bool] = {
        ("mamba (gating=False)",): True,
        ("s6", "s6 (conv=True)"): True,
    }
    text = "1-layer Mamba without its gate solves, and so does S6 followed by an MLP"
    return _variants("C8", text, expected, ["ablations"], studies)


def c9(studies: Studies) -> Verdict:
    text = "1-layer Mamba without its convolution solves (version 1; version 2 has it fail)"
    return _without_convolution("C9", text, 1, ("conv1d", "ablations", "dynamics"), studies)


def c11(studies: Studies) -> Verdict:
    findings = [Finding(None, "no mixer is run both with and without")]
    tables = [
        ablations(runs, {POSITIONS: "none"})
        for runs in by_pairs(studies, ["positions"], RECURRENT)
        if POSITIONS in setting_columns(runs) and (runs[POSITIONS] == "none").any()
    ]
    rows = [row for table in tables for row in table.dropna(subset="difference").to_dict("records")]
    without = {(model(row), place(row)): row for row in rows if row["is_baseline"]}
    rows = [row for row in rows if not row["is_baseline"]]
    if rows:
        same = [
            within(with_room(row, without[model(row), place(row)]), "difference", -HARDLY, HARDLY)
            for row in rows
        ]
        most = max(rows, key=lambda row: abs(row["difference"]))
        sizes = num_sizes(pd.DataFrame(rows))
        words = f"of {len(rows)} recurrent models of {in_words.count(sizes, 'size')} {model(most)} "
        words += f"changes most, by {percent(most, 'difference')}"
        same_everywhere = several(all_of(same), sizes, len({row["mixer"] for row in rows}))
        findings = [Finding(same_everywhere, words)]
    text = f"learned positions change recurrent models by {100 * HARDLY:.0f} % at most"
    return judge("C11", text, findings, ["positions"], studies)


def c16(studies: Studies) -> Verdict:
    text = "2-layer Mamba keeps solving without its convolution"
    return _without_convolution("C16", text, 2, ["conv1d"], studies)


def _without_convolution(
    claim: str, text: str, layers: int, grids: Sequence[str], studies: Studies
) -> Verdict:
    """A claim that Mamba of so many layers solves without its convolution, by either of its initial
    weights."""
    mixers = ("mamba (conv=False)", "mamba (init_std=0.02, conv=False)")
    rows = settings(studies, grids, mixers, layers)
    best = [highest(group) for _, group in rows.groupby(["mixer", QUERIES])]
    words = [f"{x['mixer']} {percent(x)} of {x[QUERIES]} pairs at width {x[WIDTH]}" for x in best]
    missing = f"{layers}-layer mamba (conv=False) is not run"
    findings = [Finding(any_of(solved(rows)), ", ".join(words) or missing, every_size(rows))]
    return judge(claim, text, findings, grids, studies)


def _variants(
    claim: str,
    text: str,
    expected: Mapping[Sequence[str], bool],
    grids: Sequence[str],
    studies: Studies,
) -> Verdict:
    """A claim on which 1-layer mixers solve; of several that share a key, one is enough."""
    findings = []
    for mixers, does in expected.items():
        rows = settings(studies, grids, mixers, layers=1)
        holds = any_of(solved(rows)) if does else solved_nowhere(rows)
        best = [highest(group) for _, group in rows.groupby("mixer")]
        words = ", ".join(f"{x['mixer']} {percent(x)} at {place(x)}" for x in best)
        whole = every_size(rows) or not does
        findings.append(Finding(holds, words or f"{mixers[0]} is not run", whole))
    return judge(claim, text, findings, grids, studies)

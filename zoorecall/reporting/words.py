"""Tables in words: every number in a sentence is one of the tables', and what they leave open is
said to be open."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..analysis import outcomes
from ..analysis.accuracy import Accuracies
from ..analysis.intervals import Estimate, share
from ..analysis.summary import Setting, Summary
from ..analysis.windows import Window
from ..columns import MIXER, RATE, SEED, SOLVED, TASK
from ..words import count, listing, percent, rate

OUTCOMES = {
    "solves": ("solves the task", "solve the task"),
    "reaches": ("reaches {solved} in one seed", "reach {solved} in one seed each"),
    "undecided": ("is undecided", "are undecided"),
    "stays below": ("stays below {solved} in one seed", "stay below {solved} in one seed each"),
    "does not solve": ("does not solve it", "do not solve it"),
}
"""What a setting can come to, of one mixer and of several."""


def overview(found: Summary, kinds: Iterable[str] = (), unfinished: int | None = None) -> list[str]:
    """What the whole table shows; `kinds` of training, one a run, and the number of planned runs
    that are not finished, where that is known."""
    return [
        *_extent(found),
        *_seeds(found.settings),
        *_widest(found.settings),
        *_gaps(found, unfinished),
        *_outcomes(found.outcomes),
        *_kinds(kinds),
    ]


def _extent(found: Summary) -> Iterator[str]:
    runs = found.runs
    rates, mixers = runs[RATE], runs[MIXER].nunique()
    seeds = sorted(runs[SEED].unique())
    named = f" ({', '.join(map(str, seeds))})" if len(seeds) <= 10 else ""
    tasks = listing(sorted(runs[TASK].unique())) if TASK in runs else ""
    span = f" from {rate(rates.min())} to {rate(rates.max())}" if rates.nunique() > 1 else ""
    settings, of_rates = count(len(found.settings), "setting"), rates.nunique()
    yield (
        f"{count(len(runs), 'run')} of {count(mixers, 'mixer')}{f' on {tasks}' if tasks else ''}: "
        f"{settings}, {count(of_rates, 'learning rate')}{span}, {count(len(seeds), 'seed')}{named}."
    )


def _seeds(found: Sequence[Setting]) -> Iterator[str]:
    numbers = [finding.one.seeds for finding in found]
    single = numbers.count(1)
    if single == len(found):
        yield (
            "Every setting has one seed: no number here has an interval, and another seed may say "
            "otherwise."
        )
        return
    few = min(number for number in numbers if number > 1)
    yield (
        "An accuracy is held out: each seed's at the learning rate that is best for the others. "
        "In brackets behind it stands the 95 % t interval of its mean over seeds, which takes "
        "numbers that scatter like a normal; behind a count of seeds that solve, the 95 % Wilson "
        "interval of their share; behind a window, the 95 % interval of the width of a seed's "
        "own, with the room that the steps of the grid leave. Here a setting has "
        f"{few if few == max(numbers) else f'{few} to {max(numbers)}'} seeds."
    )
    if single:
        yield f"{count(single, 'setting')} of {len(found)} with one seed: no interval there."


def _widest(found: Sequence[Setting]) -> Iterator[str]:
    solving = sorted((x for x in found if x.solves), key=lambda x: -x.windows.mean.inner)
    if not solving:
        yield f"No setting reaches {percent(SOLVED, 0)} at any learning rate."
        return
    widest, narrowest = solving[0], solving[-1]
    text = f"The widest window of learning rates has {widest.title} ({widest.place}): "
    text += _spans(widest)
    if len(solving) > 1:
        text += f"; the narrowest of the {len(solving)} that reach {percent(SOLVED, 0)} has "
        text += f"{narrowest.title} ({narrowest.place}): {_spans(narrowest)}"
    yield text + "."
    at_edge = [finding for finding in solving if finding.windows.edge]
    if at_edge:
        of_all = f"{len(at_edge)} of {count(len(solving), 'window')}"
        yield f"{of_all} at the grid's edge: what lies beyond is not known."


def _gaps(found: Summary, unfinished: int | None) -> Iterator[str]:
    diverged = found.runs.loc[found.runs["diverged_at"].notna(), MIXER].value_counts()
    if len(diverged):
        by_mixer = listing(f"{found.titles[str(mixer)]} ({n})" for mixer, n in diverged.items())
        yield f"{diverged.sum()} of {count(len(found.runs), 'run')} diverged: {by_mixer}."
    else:
        yield "No loss became infinite or NaN."
    if unfinished:
        are = "is" if unfinished == 1 else "are"
        yield f"{count(unfinished, 'planned run')} {are} not finished and {are} missing here."
    elif unfinished == 0:
        yield "Every planned run is here."


def _outcomes(kinds: pd.Series) -> Iterator[str]:
    counts = kinds.value_counts()
    told = [
        f"{counts[kind]} {kind} ({meaning})"
        for kind, meaning in outcomes.KINDS.items()
        if kind in counts
    ]
    yield f"What the runs came to: {listing(told)}."


def _kinds(kinds: Iterable[str]) -> Iterator[str]:
    numbers = pd.Series(list(kinds), dtype=object).value_counts()
    if len(numbers):
        named = listing(f"{kind} ({number})" for kind, number in numbers.items())
        yield f"Kinds of training, by the course of the loss: {named}."


@dataclass(frozen=True)
class Place:
    """A panel of the figure in words: who solves the task there, and a sentence a mixer."""

    title: str
    headline: str
    sentences: list[str]


def places(found: Sequence[Setting]) -> list[Place]:
    """The settings but for their mixers, in the order of the figure's panels."""
    mixers = list(dict.fromkeys(finding.title for finding in found))
    all_rates = len({float(x) for finding in found for x in finding.one.rates})
    settings = pd.DataFrame([finding.values for finding in found]).drop(columns=MIXER)
    told = []
    for _, rows in settings.groupby(list(settings), dropna=False):
        here = [found[int(i)] for i in rows.index]
        sentences = [sentence(finding, all_rates) for finding in here]
        absent = [mixer for mixer in mixers if mixer not in {finding.title for finding in here}]
        if absent:
            sentences.append(f"Not run here: {listing(absent)}.")
        told.append(Place(here[0].place, _headline(here), sentences))
    return told


def _headline(found: Sequence[Setting]) -> str:
    parts = []
    for outcome, verbs in OUTCOMES.items():
        named = [_named(finding) for finding in found if finding.outcome == outcome]
        if named:
            verb = verbs[len(named) > 1].format(solved=percent(SOLVED, 0))
            parts.append(f"{listing(named)} {verb}")
    return "; ".join(parts) + "."


def _named(finding: Setting) -> str:
    """Its mixer; where it does not solve, also what its runs at the best rate came to."""
    if finding.outcome in ("solves", "reaches"):
        return finding.title
    kinds = [kind for kind in outcomes.KINDS if kind in set(finding.at_best)]
    return f"{finding.title} ({listing(kinds)})"


def sentence(finding: Setting, all_rates: int) -> str:
    """One setting: its accuracy, how many seeds solve, its best learning rate and what the runs
    there came to, its window, and what is not known of it; `all_rates` are the different learning
    rates of the whole table."""
    one, seeds, best = finding.one, len(finding.one.held_out), finding.one.rates[finding.one.best]
    text = f"{finding.title}: {percent(finding.accuracy.value)}"
    if seeds == 1:
        text += f" at learning rate {rate(best)} (one seed, {finding.at_best.iloc[0]})"
    else:
        text += f"{_interval(finding.accuracy, 100, 1)}; {finding.solved} of {seeds} seeds solve"
        text += f"{_interval(share(finding.solved, seeds), 100, 0)} %; "
        text += f"best learning rate {rate(best)} ({outcomes.counted(finding.at_best)})"
    if finding.solves:
        text += f"; {percent(SOLVED, 0)} or more {_ends(finding.windows.mean)}, {_spans(finding)}."
    else:
        reaches = "rate reaches" if seeds == 1 else "rate's mean reaches"
        text += f"; no {reaches} {percent(SOLVED, 0)}."
        text += _beyond(one)
    if len(one.rates) < all_rates:
        text += f" Only {len(one.rates)} of the {all_rates} learning rates were run."
    missing, cells = int(one.table.isna().to_numpy().sum()), one.table.size
    if missing:
        are = "is" if missing == 1 else "are"
        text += f" {missing} of {cells} runs {are} missing."
    if finding.diverged:
        low, high = min(finding.diverged), max(finding.diverged)
        where = f"at {rate(low)}" if low == high else f"from {rate(low)} to {rate(high)}"
        text += f" {count(len(finding.diverged), 'run')} diverged, {where}."
    return text


def _spans(finding: Setting) -> str:
    """`a window of 2.25 to 2.75 decades [2.02, 3.01]`: from its first to its last rate that solves,
    and between the rates that fail."""
    window = finding.windows.mean
    spans = f"{window.inner:.2f} to {window.outer:.2f}"
    spans = f"at least {window.inner:.2f}" if finding.windows.edge else spans
    text = f"a window of {spans} decades{_interval(finding.windows.decades, 1, 2)}"
    return text + (f", the widest of {window.islands} islands" if window.islands > 1 else "")


def _ends(window: Window) -> str:
    if window.low == window.high:
        return f"at {rate(window.low)} alone"
    low, high = rate(window.low), rate(window.high)
    low = f"the grid's lowest rate {low}" if window.touches_lowest else low
    high = f"the grid's highest rate {high}" if window.touches_highest else high
    return f"from {low} to {high}"


def _beyond(one: Accuracies) -> str:
    """What may lie beyond the grid, where no rate of it solves the task."""
    if len(one.rates) == 1:
        return " It is the only rate that was run."
    ends = {"low": "lowest", "high": "highest"}
    return f" It is the grid's {ends[one.edge]}: a better one may lie beyond." if one.edge else ""


def _interval(estimate: Estimate, scale: float, digits: int) -> str:
    if np.isnan(estimate.low):
        return ""
    return f" [{scale * estimate.low:.{digits}f}, {scale * estimate.high:.{digits}f}]"


KINDS = {
    "divergence": "the loss is no longer finite, or the training loss gives back most of its fall",
    "bump with gain": "the test loss falls suddenly, and accuracy rises with it",
    "bump without gain": "the test loss falls suddenly, and accuracy hardly moves",
    "memorization": "the training loss falls, the test loss does not follow",
    "spike": "the loss rises and comes back",
    "smooth": "the loss neither falls suddenly nor rises and comes back",
}
"""What `analysis.bumps.classify` calls the kinds of training."""


def transition(row: dict) -> str:
    """A row of `analysis.bumps.transitions`."""
    before, after = percent(row["accuracy_before"]), percent(row["accuracy_after"])
    return (
        f"Between steps {row['start']:,} and {row['end']:,} the test loss falls suddenly, "
        f"{row['depth']:.2f} nats below any before; accuracy goes from {before} to {after}."
    )

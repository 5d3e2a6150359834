"""Loss bumps: sudden falls of the loss after a plateau, and what kind of training each run had.

Olsson et al. 2022 (arXiv 2209.11895) saw induction heads form in a short phase in which the loss,
which otherwise falls ever more slowly, falls faster than before; Okpekpe and Orvieto 2025 (arXiv
2508.19029, section 5 and figure 5) see such a bump in one-layer attention, without a gain in
accuracy. Here it is a `Transition`: the loss stands still for at least as long as its fall then
takes, reaches a depth it never had, and settles. The rule has no time scale of its own, and a loss
that falls ever more slowly, however fast, does not meet it.

Shape letters: E evaluations, C candidate falls.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

MIN_DEPTH = 0.1
"""The least fall or rise that counts, as a share of the loss before training."""

MIN_NOISE = 8.0
"""The same in standard deviations of the noise."""

STILL = 0.15
"""A loss stands still while it changes by less than this share of the fall."""

MIN_GAIN = 0.1
"""The least gain in accuracy that makes a bump a bump with gain."""

MIN_GAP = 0.5
"""A run memorizes if the test loss does not follow this share of the training loss's fall."""


@dataclass(frozen=True)
class Transition:
    """A sudden fall of the loss between two steps, after a plateau of `plateau` steps."""

    start: int
    end: int
    plateau: int
    depth: float
    """nats"""
    steepness: float
    """nats a step"""
    accuracy_before: float
    accuracy_after: float

    @property
    def gain(self) -> float:
        return self.accuracy_after - self.accuracy_before


def find_transitions(
    steps: np.ndarray, loss: np.ndarray, accuracy: np.ndarray, min_depth: float = MIN_DEPTH
) -> list[Transition]:
    """The transitions of one loss curve, in order of time; steps, loss and accuracy are [E].

    Every pair of evaluations is a candidate fall. Of those that meet the rule the deepest, weighed
    by how sudden it is, comes first, and each next one must not overlap those before it.
    """
    known = np.isfinite(loss)
    t, raw, accuracy = steps[known].astype(float), loss[known], accuracy[known]
    if len(raw) < 5:
        return []
    y, noise = _median_of_three(raw), _noise(raw)
    last = len(y) - 1
    start, end = np.triu_indices(len(y), k=1)  # [C]
    depth, time = y[start] - y[end], t[end] - t[start]
    lowest = np.minimum.accumulate(y)
    least = max(min_depth * raw[0], MIN_NOISE * noise)
    deep = (depth >= least) & (lowest[start] - y[end] >= least)
    start, end, depth, time = (array[deep] for array in (start, end, depth, time))

    # how far the loss strays between each earlier evaluation and the start, below the end's after
    tolerance = np.maximum(STILL * depth, 3 * noise)[:, None]
    before = np.stack([_strays(abs(y - y[i])[: i + 1][::-1], len(y)) for i in range(len(y))])
    after = np.stack([_strays((y[j] - y)[j:], len(y)) for j in range(len(y))])
    still_before = (before[start] <= tolerance).sum(axis=1) - 1  # evaluations
    still_after = (after[end] <= tolerance).sum(axis=1) - 1
    plateau = t[start] - t[start - still_before]
    settled = (t[end + still_after] - t[end] >= time) | (end + still_after == last)
    found = (still_before >= 2) & (plateau >= time) & settled

    transitions: list[Transition] = []
    score = np.where(found, depth * plateau / (plateau + time), 0.0)
    while score.any():
        best = int(score.argmax())
        i, j = start[best], end[best]
        transitions.append(
            Transition(
                start=int(t[i]),
                end=int(t[j]),
                plateau=int(plateau[best]),
                depth=float(depth[best]),
                steepness=float(depth[best] / time[best]),
                accuracy_before=float(np.median(accuracy[max(i - 2, 0) : i + 1])),
                accuracy_after=float(np.median(accuracy[j : j + 3])),
            )
        )
        score[(start < j) & (end > i)] = 0.0
    return sorted(transitions, key=lambda found: found.start)


def _strays(distance: np.ndarray, size: int) -> np.ndarray:
    """The farthest so far, filled up with infinity: [size]."""
    farthest = np.full(size, np.inf)
    farthest[: len(distance)] = np.maximum.accumulate(distance)
    return farthest


def _median_of_three(y: np.ndarray) -> np.ndarray:
    """Each value's median with its neighbours; the ends as they are."""
    inside = np.median(np.stack([y[:-2], y[1:-1], y[2:]]), axis=0)
    return np.concatenate([y[:1], inside, y[-1:]])


def _noise(y: np.ndarray) -> float:
    """The standard deviation of the noise, from the median distance of a value to the mean of
    its neighbours, which neither a trend nor a few jumps change much."""
    distance = np.abs(y[1:-1] - (y[:-2] + y[2:]) / 2)
    return float(np.median(distance) / 0.6745 / np.sqrt(1.5))


def _spike(loss: np.ndarray) -> float:
    """The height, in nats, of the highest rise that was undone: over the lowest loss before it
    and over the lowest after it."""
    before = np.minimum.accumulate(loss)
    after = np.minimum.accumulate(loss[::-1])[::-1]
    return float((loss - np.maximum(before, after)).max())


def transitions(curves: pd.DataFrame, min_depth: float = MIN_DEPTH) -> pd.DataFrame:
    """One row a transition in the test loss of each run of a table of curves."""
    rows = []
    for (run_id, mixer), run in curves.groupby(["run_id", "mixer"], sort=False):
        found = find_transitions(*_columns(run), min_depth)
        rows += [{"run_id": run_id, "mixer": mixer, **vars(x), "gain": x.gain} for x in found]
    names = ["run_id", "mixer", *Transition.__dataclass_fields__, "gain"]
    return pd.DataFrame(rows, columns=names)


def _columns(run: pd.DataFrame) -> list[np.ndarray]:
    return [run[name].to_numpy() for name in ("step", "test_loss", "test_accuracy")]


def classify(
    curves: pd.DataFrame, min_depth: float = MIN_DEPTH, min_gain: float = MIN_GAIN
) -> pd.DataFrame:
    """One row a run: its kind of training, and what that rests on.

    The kind is the first that fits of: `divergence` (the loss is no longer finite, or the training
    loss ends above its beginning), `bump with gain`, `bump without gain`, `memorization` (the
    training loss falls, the test loss does not follow), `spike` (a rise that is undone), `smooth`.
    `gap` is the share of the training loss's fall that the test loss did not follow, `gain` the
    largest gain in accuracy across a transition, `spike` the height of the highest spike in nats.
    """
    rows = []
    for (run_id, mixer), run in curves.groupby(["run_id", "mixer"], sort=False):
        steps, loss, accuracy = _columns(run)
        known, train = loss[np.isfinite(loss)], run["train_loss"].dropna().to_numpy()
        first, end, train_end = known[0], np.median(known[-3:]), np.median(train[-3:])
        found = find_transitions(steps, loss, accuracy, min_depth)
        gain = max((x.gain for x in found), default=np.nan)
        least, spike = max(min_depth * first, MIN_NOISE * _noise(known)), _spike(known)
        gap = (end - train_end) / (first - train_end) if first - train_end >= least else 0.0
        diverged = len(known) < len(loss) or train_end > first + least
        kinds = {
            "divergence": diverged,
            "bump with gain": gain >= min_gain,
            "bump without gain": bool(found),
            "memorization": gap >= MIN_GAP,
            "spike": spike >= least,
            "smooth": True,
        }
        rows.append(
            {
                "run_id": run_id,
                "mixer": mixer,
                "kind": next(kind for kind, fits in kinds.items() if fits),
                "transitions": len(found),
                "gain": gain,
                "gap": gap,
                "spike": spike if spike >= least else 0.0,
            }
        )
    return pd.DataFrame(rows)

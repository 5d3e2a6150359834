"""Loss bumps: sudden falls of the loss, and what kind of training each run had.

Olsson et al. 2022 (arXiv 2209.11895) saw induction heads form in a short phase in which the loss,
otherwise ever slower to fall, falls faster than before; Okpekpe and Orvieto 2025 (arXiv
2508.19029, section 5 and figure 5) see such a bump in one-layer attention, without a gain in
accuracy. Here it is a `Transition`: a fall to a depth never reached before, at least twice as
fast as over the same time before it. The rule has no time scale of its own, and a loss that is
ever slower to fall, however fast it starts, does not meet it. Of 20,000 made-up curves of that
kind with noise up to 2.5 % of the first loss (`tests/made_up.py`) 30 raised a false alarm.

What it does not see, and where it errs:

- Depth. A fall of less than `MIN_DEPTH` of the first loss does not count.
- Noise. It is told from a fall by its size alone. Of 300 curves that are ever slower to fall, with
  noise of 5 % of the first loss, none raised a false alarm where evaluations are independent, 9
  where the noise of neighbours correlates by 0.8, and 23 by 0.9.
- The warmup. Time is what the learning rates add up to (`_clock`), on which a loss that only waits
  for the warmup does not stand still. A fall within the warmup is seldom sudden on that clock. That
  of 1-layer attention is such a one: on the clock of steps all of its runs may have a transition,
  by the depth that is asked for, and on this one none (`results/dynamics/README.md`).

Shape letters: E evaluations, C candidate falls.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..columns import WARMUP

KINDS = (
    "divergence", "bump with gain", "bump without gain", "memorization", "spike", "smooth",
)  # fmt: skip
"""Of training, in the order in which `classify` asks for them."""

MIN_DEPTH = 0.15
"""The least fall or rise that counts, as a share of the loss before training. To learn which half
of 128 words the answers come from is 0.14, ln 2 / ln 128; of 8,192 words 0.08."""

MIN_NOISE = 8.0
"""The same in standard deviations of the noise."""

LASTING = 20
"""Noise is looked for over up to a twentieth of a curve's evaluations."""

SUDDEN = 2.0
"""How many times as fast as before the loss must fall."""

TAIL = 0.2
"""A fall lasts while its speed is at least this share of that of its steepest part."""

MIN_GAIN = 0.1
"""The least gain in accuracy that makes a bump a bump with gain. To learn which values stand in the
example, and guess among them, gains 1 / num_kv_pairs; where that is not to count, ask for more."""

MIN_GAP = 0.5
"""A run memorizes if the test loss does not follow this share of the training loss's fall."""

MAX_GIVEN_BACK = 0.5
"""A run diverges if its training loss ends having given back more than this share of its fall."""


@dataclass(frozen=True)
class Transition:
    """A sudden fall of the loss between two steps."""

    start: int
    end: int
    depth: float
    """nats below the lowest loss before"""
    steepness: float
    """nats a step"""
    accuracy_before: float
    accuracy_after: float

    @property
    def gain(self) -> float:
        return self.accuracy_after - self.accuracy_before


def find_transitions(
    steps: np.ndarray,
    loss: np.ndarray,
    accuracy: np.ndarray,
    warmup_steps: float = 0.0,
    min_depth: float = MIN_DEPTH,
) -> list[Transition]:
    """The transitions of one loss curve, in order of time; steps, loss and accuracy are [E].

    Every pair of evaluations is a candidate fall. Of those that meet the rule, the deepest for
    the square root of its time comes first, the measure that finds a step in noise best, and is
    given its whole head and tail. The next must not overlap it.
    """
    known = np.isfinite(loss)
    steps, raw, accuracy = steps[known], loss[known], accuracy[known]
    if len(raw) < 5:
        return []
    t, y = _clock(steps, warmup_steps), _median_of_three(raw)
    start, end = np.triu_indices(len(y), k=1)  # [C]
    lowest = np.minimum.accumulate(y)
    depth, time = lowest[start] - y[end], t[end] - t[start]
    deep = depth >= _least(raw, min_depth)
    start, end, depth, time = (array[deep] for array in (start, end, depth, time))

    # the stretch before: as long as the fall, or down to half of that at the start of training;
    # in it the loss was not far above (a fast fall, or a spike) nor below (a way up to a spike)
    first = np.searchsorted(t, t[start] - time)
    before = t[start] - t[first]
    above = _extreme(raw, np.maximum)[first, start] - y[start]
    below = y[start] - _extreme(raw, np.minimum)[first, start]
    slow, fast = above / before.clip(1e-9), depth / time
    found = (start - first >= 2) & (before >= time / 2)
    found &= (slow * SUDDEN <= fast) & (below <= depth / 4)

    transitions = []
    speed = -np.diff(y) / np.diff(t)
    score = np.where(found, depth / np.sqrt(time), 0.0)
    while score.any():
        best = int(score.argmax())
        i, j = _ends(speed, start[best], end[best], slow[best], fast[best])
        transitions.append(
            Transition(
                start=int(steps[i]),
                end=int(steps[j]),
                depth=float(lowest[i] - y[j]),
                steepness=float((lowest[i] - y[j]) / (steps[j] - steps[i])),
                accuracy_before=float(np.median(accuracy[max(i - 2, 0) : i + 1])),
                accuracy_after=float(np.median(accuracy[j : j + 3])),
            )
        )
        score[(start < j) & (end > i)] = 0.0
        speed[i:j] = -np.inf
    return sorted(transitions, key=lambda one: one.start)


def _ends(speed: np.ndarray, i: int, j: int, slow: float, fast: float) -> tuple[int, int]:
    """Move the ends of a fall to where it speeds up from `slow` and where `fast` has died down."""
    while speed[i] - slow < TAIL * (fast - slow):
        i += 1
    while i > 0 and speed[i - 1] - slow >= TAIL * (fast - slow):
        i -= 1
    while j < len(speed) and speed[j] >= TAIL * fast:
        j += 1
    return i, j


def _least(loss: np.ndarray, min_depth: float) -> float:
    """The least change of a loss curve that counts, in nats."""
    return max(min_depth * float(loss[0]), MIN_NOISE * _noise(loss))


def _clock(steps: np.ndarray, warmup_steps: float) -> np.ndarray:
    """Time as what the learning rates add up to, in steps at the peak: on it, a loss that only
    waits for the warmup does not stand still. (The decay that follows slows a loss down, which
    is no bump on either clock, and is left out.)"""
    warm = np.minimum(steps, warmup_steps)
    return steps - warm + warm**2 / (2 * max(warmup_steps, 1))


def _extreme(y: np.ndarray, larger: np.ufunc) -> np.ndarray:
    """The largest (or least) of `y` from evaluation i to j >= i, [E, E]."""
    upper = np.where(np.tri(len(y), dtype=bool).T, y, y[:, None])
    return larger.accumulate(upper, axis=1)


def _median_of_three(y: np.ndarray) -> np.ndarray:
    """Each value's median with its neighbours; the ends as they are."""
    inside = np.median(np.stack([y[:-2], y[1:-1], y[2:]]), axis=0)
    return np.concatenate([y[:1], inside, y[-1:]])


def _noise(y: np.ndarray) -> float:
    """The standard deviation of the noise, from the median distance of a value to the mean of two
    neighbours, which neither a trend nor a few jumps change much; the largest over neighbours that
    are up to a `LASTING` of the curve away, as noise that lasts shows little between adjacent
    ones."""
    if len(y) < 3:
        return 0.0
    lags = range(1, max(1, len(y) // LASTING) + 1)
    each = [np.median(np.abs(y[h:-h] - (y[: -2 * h] + y[2 * h :]) / 2)) for h in lags]
    return float(max(each) / 0.6745 / np.sqrt(1.5))


def _spike(loss: np.ndarray) -> float:
    """The height, in nats, of the highest rise that was undone: over the lowest loss before it
    and over the lowest after it."""
    before = np.minimum.accumulate(loss)
    after = np.minimum.accumulate(loss[::-1])[::-1]
    return float((loss - np.maximum(before, after)).max())


def _given_back(loss: np.ndarray, min_depth: float) -> float:
    """The share of a loss's fall, from its beginning to its lowest, that it has lost again at its
    end: 1 if it ends at its beginning or above, 0 if the rise is too small to count."""
    lowest = _median_of_three(loss).min()
    rise = float(np.median(loss[-3:]) - lowest)
    return rise / max(rise, float(loss[0] - lowest)) if rise >= _least(loss, min_depth) else 0.0


def transitions(
    runs: pd.DataFrame, curves: pd.DataFrame, min_depth: float = MIN_DEPTH
) -> pd.DataFrame:
    """One row a transition in the test loss of a run: its mixer, and the fields of `Transition`."""
    rows = []
    for run, curve in _each(runs, curves):
        steps, loss, accuracy = _columns(curve)
        found = find_transitions(steps, loss, accuracy, run["warmup_steps"], min_depth)
        rows += [
            {"run_id": run["run_id"], "mixer": run["mixer"], **vars(x), "gain": x.gain}
            for x in found
        ]
    names = ["run_id", "mixer", *Transition.__dataclass_fields__, "gain"]
    return pd.DataFrame(rows, columns=names)


def classify(
    runs: pd.DataFrame,
    curves: pd.DataFrame,
    min_depth: float = MIN_DEPTH,
    min_gain: float = MIN_GAIN,
) -> pd.DataFrame:
    """One row a run: its kind of training, and what that rests on.

    The kind is the first that fits of: `divergence` (the loss is no longer finite, or the training
    loss ends having given back more than half of its fall; the test loss, which rises where a model
    memorizes, is not asked), `bump with gain`, `bump without gain`, `memorization` (the training
    loss falls, the test loss does not follow), `spike` (a rise that is undone), `smooth`.
    `gap` is the share of the training loss's fall that the test loss did not follow, `given_back`
    the share of it that the training loss lost again, `gain` the largest gain in accuracy across a
    transition, `spike` the height of the highest spike in nats.
    """
    rows = []
    for run, curve in _each(runs, curves):
        steps, loss, accuracy = _columns(curve)
        known, train = loss[np.isfinite(loss)], curve["train_loss"].dropna().to_numpy()
        if not len(known):  # it never was
            names = {"run_id": run["run_id"], "mixer": run["mixer"], "kind": "divergence"}
            rows.append({**names, "transitions": 0})
            continue
        first, end = known[0], np.median(known[-3:])
        train_end = np.median(train[-3:]) if len(train) else first
        found = find_transitions(steps, loss, accuracy, run["warmup_steps"], min_depth)
        gain = max((x.gain for x in found), default=np.nan)
        least, spike = _least(known, min_depth), _spike(known)
        gap = (end - train_end) / (first - train_end) if first - train_end >= least else 0.0
        given_back = _given_back(np.append(first, train), min_depth)
        kinds = {
            "divergence": len(known) < len(loss) or given_back > MAX_GIVEN_BACK,
            "bump with gain": gain >= min_gain,
            "bump without gain": bool(found),
            "memorization": gap >= MIN_GAP,
            "spike": spike >= least,
            "smooth": True,
        }
        rows.append(
            {
                "run_id": run["run_id"],
                "mixer": run["mixer"],
                "kind": next(kind for kind, fits in kinds.items() if fits),
                "transitions": len(found),
                "gain": gain,
                "gap": gap,
                "given_back": given_back,
                "spike": spike if spike >= least else 0.0,
            }
        )
    return pd.DataFrame(rows)


def _each(runs: pd.DataFrame, curves: pd.DataFrame) -> Iterator[tuple[dict, pd.DataFrame]]:
    """Each run's row, with `warmup_steps`, and its evaluations."""
    by_id = dict(iter(curves.groupby("run_id")))
    warmup_steps = runs[WARMUP] * runs["num_steps"]
    for run in runs.assign(warmup_steps=warmup_steps).to_dict("records"):
        yield run, by_id[run["run_id"]]


def _columns(curve: pd.DataFrame) -> tuple[np.ndarray, ...]:
    names = ("step", "test_loss", "test_accuracy")
    return tuple(curve[name].to_numpy(dtype=float) for name in names)

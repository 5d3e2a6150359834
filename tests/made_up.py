"""Made-up results with known answers: accuracies over learning rates, and labelled loss curves."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

EVALUATIONS = 60


def made_up_runs(
    accuracy: Callable[..., float],
    mixers: Sequence[str] = ("attention",),
    layers: Sequence[int] = (1,),
    widths: Sequence[int] = (64,),
    lengths: Sequence[int] = (64,),
    rates: Sequence[float] = tuple(np.logspace(-5, -1, 17)),
    seeds: Sequence[int] = (42, 123, 777),
) -> pd.DataFrame:
    """A table of runs whose test accuracy is `accuracy(mixer, layers, width, length, x, seed)`,
    x being the log10 of the learning rate."""
    axes = (mixers, layers, widths, lengths, rates, seeds)
    names = ["mixer", "model.num_layers", "model.d_model", "task.seq_len", "train.learning_rate", "seed"]
    runs = pd.MultiIndex.from_product(axes, names=names).to_frame(index=False)
    exact = zip(*(runs[name] for name in names), strict=True)
    found = [accuracy(m, n, d, l, float(np.log10(r)), s) for m, n, d, l, r, s in exact]
    width, depth = runs["model.d_model"], runs["model.num_layers"]
    return runs.assign(
        **{"run_id": [f"run{i}" for i in range(len(runs))], "model.mixer.name": runs["mixer"]},
        test_accuracy=found,
        diverged_at=np.nan,
        parameters=8192 * width + 12 * depth * width**2,
        state_size=16 * depth * width,
    )


def hat(x: float, low: float, high: float, slope: float = 0.1) -> float:
    """1 between `low` and `high`, falling to 0 within `slope` decades beyond."""
    return float(np.clip(1 - max(low - x, x - high) / slope, 0, 1))


KINDS = (
    "smooth", "bump with gain", "bump without gain", "spike", "divergence", "memorization",
)  # fmt: skip


def labelled_curves(count: int, seed: int) -> tuple[pd.DataFrame, pd.Series]:
    """Evaluations of `count` made-up runs, and the kind of each, by run id; all kinds in turn."""
    rng = np.random.default_rng(seed)
    kinds = {f"run{i}": KINDS[i % len(KINDS)] for i in range(count)}
    curves = [_curve(rng, kind).assign(run_id=run_id) for run_id, kind in kinds.items()]
    return pd.concat(curves, ignore_index=True), pd.Series(kinds)


def smooth_curves(count: int, seed: int) -> pd.DataFrame:
    """Evaluations of `count` made-up runs that learn without a transition."""
    rng = np.random.default_rng(seed)
    curves = [_curve(rng, "smooth").assign(run_id=f"run{i}") for i in range(count)]
    return pd.concat(curves, ignore_index=True)


def _curve(rng: np.random.Generator, kind: str) -> pd.DataFrame:
    """One run's evaluations; time t runs from 0 to 1, losses are in units of the first, 1."""
    num_steps = int(rng.integers(800, 12000))
    steps = np.unique(np.round(num_steps * (np.arange(EVALUATIONS + 1) / EVALUATIONS) ** 2))
    t = steps / num_steps
    first, noise = np.log(rng.choice([64, 256, 8192])), rng.uniform(0.001, 0.015)
    loss = _smooth(rng, t)
    accuracy = (1 - loss) * rng.uniform(0.2, 1)
    if kind.startswith("bump"):
        step = _step(rng, t)
        loss = loss * 0 + 1 - rng.uniform(0, 0.12) * (1 - loss) - step
        gain = rng.uniform(0.2, 0.95) if kind == "bump with gain" else rng.uniform(0, 0.04)
        accuracy = gain * step / step.max()
    train = loss.copy()
    if kind == "memorization":
        test_fall = rng.uniform(0, 0.15)
        loss = 1 - test_fall * (1 - _smooth(rng, t)) + rng.uniform(0, 0.6) * np.clip(t - 0.3, 0, 1)
        train = 1 - rng.uniform(0.75, 0.99) * (1 - _decay(rng.uniform(0.05, 0.3), t))
        accuracy = test_fall * t
    if kind == "spike":
        for at in rng.choice(np.arange(8, EVALUATIONS - 5), size=rng.integers(1, 3), replace=False):
            height, half_life = rng.uniform(0.2, 1.0), rng.uniform(0.3, 1.2)
            shape = height * np.exp(-np.arange(len(t) - at) / half_life)
            loss[at:] += shape
            train[at:] += 0.7 * shape
    loss, train = (
        first * (y + noise * rng.normal(size=len(t)) * (0.3 + 0.7 * y)) for y in (loss, train)
    )
    accuracy = np.clip(accuracy + 0.01 * rng.normal(size=len(t)), 0, 1)
    train[0] = np.nan
    last = len(t)
    if kind == "divergence":
        last = int(rng.integers(10, len(t)))
        loss[last - 1], train[last - 1], accuracy[last - 1] = np.nan, np.nan, 0.0
    return pd.DataFrame(
        {
            "mixer": "attention",
            "step": steps.astype(int),
            "train_loss": train,
            "test_loss": np.maximum(loss, 0),
            "test_accuracy": accuracy,
        }
    ).iloc[:last]


def _smooth(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """A loss from 1 that falls ever more slowly once the warmup is over, or hardly at all."""
    warmup = rng.choice([0.0, 0.1])
    if warmup:  # what the learning rates add up to
        t = np.where(t < warmup, t**2 / (2 * warmup), t - warmup / 2)
    fall = rng.choice([0.02, 0.3, 0.6, 0.95, 1.0])
    shape = rng.integers(4)
    if shape == 0:
        y = _decay(10 ** rng.uniform(-2, 0), t)
    elif shape == 1:
        y = (1 + t / 10 ** rng.uniform(-3, -1)) ** -rng.uniform(0.2, 1.5)
    elif shape == 2:
        share = rng.uniform(0.2, 0.8)
        y = share * _decay(0.01, t) + (1 - share) * _decay(rng.uniform(0.1, 1), t)
    else:
        y = np.exp(-((t / rng.uniform(0.02, 0.4)) ** rng.uniform(0.4, 1)))
    return 1 - fall * (1 - y)


def _decay(time: float, t: np.ndarray) -> np.ndarray:
    return np.exp(-t / time)


def _step(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """A sudden fall: 0, then its depth; the plateau before is at least 2.5 times as long as it."""
    at = rng.uniform(0.06, 0.8)
    width = at * rng.uniform(0.02, 0.07)  # of the logistic; it falls from 90 % to 10 % in 4.4
    return rng.uniform(0.2, 0.85) / (1 + np.exp(-(t - at) / width))

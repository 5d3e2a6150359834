"""Made-up results with known answers: accuracies over learning rates, and labelled loss curves."""

import json
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from zoorecall import columns, parquet

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
    names = [
        "mixer",
        "model.num_layers",
        "model.d_model",
        "task.seq_len",
        "train.learning_rate",
        "seed",
    ]
    runs = pd.MultiIndex.from_product(axes, names=names).to_frame(index=False)
    rows = zip(*(runs[name] for name in names), strict=True)
    found = [accuracy(m, n, d, length, np.log10(rate), s) for m, n, d, length, rate, s in rows]
    width, depth = runs["model.d_model"], runs["model.num_layers"]
    return runs.assign(
        **{
            "run_id": [f"run{i}" for i in range(len(runs))],
            "mixer.name": [name.partition(" (")[0] for name in runs["mixer"]],
            "mixer.options": runs["mixer"].map(options_of),
        },
        test_accuracy=found,
        diverged_at=np.nan,
        parameters=8192 * width + 12 * depth * width**2,
        state_size=16 * depth * width,
    )


def whole_row(row: dict) -> dict:
    """A row of a shard with the columns that it lacks: text empty, counts 1, shares 0, all else
    NaN."""

    def value(name: str) -> object:
        if name in columns.TEXTS:
            return ""
        return 1 if name in columns.WHOLE else 0.0 if name in parquet.SHARES else np.nan

    rest = {name: value(name) for name in parquet.ROW if name not in columns.NEWER}
    count = len(row["curve.step"])
    lists = {f"curve.{x}": [value(x)] * count for x in parquet.MEASURED if x not in columns.NEWER}
    return rest | lists | row


def options_of(label: str) -> str:
    """The options of a mixer as JSON, from its label: `mamba2 (d_state=16, headdim=32)`."""
    pairs = [one.split("=", 1) for one in label.partition(" (")[2].rstrip(")").split(", ") if one]
    plain = {"True": True, "False": False}
    return json.dumps({key: plain.get(x, int(x) if x.isdecimal() else x) for key, x in pairs})


def hat(x: float, low: float, high: float, slope: float = 0.1) -> float:
    """1 between `low` and `high`, falling to 0 within `slope` decades beyond."""
    return float(np.clip(1 - max(low - x, x - high) / slope, 0, 1))


KINDS = (
    "smooth", "bump with gain", "bump without gain", "spike", "divergence", "memorization",
)  # fmt: skip


def labelled_curves(
    count: int, seed: int, kinds: Sequence[str] = KINDS
) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series]:
    """Made-up runs, of all kinds in turn: a row a run, a row an evaluation, the kind by run id."""
    rng = np.random.default_rng(seed)
    runs = pd.DataFrame(
        {
            "run_id": [f"run{i}" for i in range(count)],
            "mixer": "attention",
            "num_steps": rng.integers(800, 12000, count),
            "train.warmup": rng.choice([0.0, 0.1], count),
        }
    )
    labels = pd.Series([kinds[i % len(kinds)] for i in range(count)], index=runs["run_id"])
    made = zip(runs["run_id"], labels, runs["num_steps"], runs["train.warmup"], strict=True)
    curves = [_curve(rng, kind, n, w).assign(run_id=run_id) for run_id, kind, n, w in made]
    return runs, pd.concat(curves, ignore_index=True), labels


def _curve(rng: np.random.Generator, kind: str, num_steps: int, warmup: float) -> pd.DataFrame:
    """One run's evaluations. Losses are shares of the first one until the last lines; t is time,
    0 to 1, as a sum of learning rates."""
    steps = np.unique(np.round(num_steps * (np.arange(EVALUATIONS + 1) / EVALUATIONS) ** 2))
    t = steps / num_steps
    t = np.where(t < warmup, t**2 / (2 * warmup or 1), t - warmup / 2)
    shape = _smooth(rng, t)
    loss = 1 - rng.choice([0.02, 0.3, 0.6, 0.95]) * (1 - shape)
    accuracy = (1 - loss) * rng.uniform(0.2, 1)
    if kind.startswith("bump") or (kind == "divergence" and rng.random() < 0.5):
        step = _step(rng, t)
        loss = 1 - rng.uniform(0, 0.25) * step.max() * (1 - shape) - step
        gain = rng.uniform(0.15, 0.95) if kind == "bump with gain" else rng.uniform(0, 0.06)
        accuracy = gain * step / step.max()
    train = loss - 0.02 * t
    not_finite = kind == "divergence" and rng.random() < 0.5
    if kind == "divergence" and not not_finite:  # the loss rises back for good
        at = int(rng.integers(6, len(t) - 8))
        fall = rng.uniform(0.35, 0.98)
        loss = 1 - fall * (loss[0] - loss) / (loss[0] - loss[at])
        late = 1 - np.exp(-np.arange(len(t) - at) / rng.uniform(0.2, 1.5))
        loss[at:] = loss[at] + fall * rng.uniform(0.6, 1.1) * late
        train = loss - rng.uniform(0, 0.1) * fall * t
    if kind.startswith("bump") and rng.random() < 0.3:  # it overfits in the end
        loss = loss + rng.uniform(0, 0.4) * np.clip(t - 0.6, 0, 1)
    if kind == "memorization":
        fall = rng.uniform(0, 0.3)
        loss = 1 - fall * (1 - _smooth(rng, t)) + rng.uniform(0, 0.6) * np.clip(t - 0.3, 0, 1)
        train = 1 - rng.uniform(0.75, 0.99) * (1 - np.exp(-t / rng.uniform(0.05, 0.3)))
        accuracy = fall * t
    if kind == "spike" or (kind.startswith("bump") and rng.random() < 0.2):
        for at in rng.choice(np.arange(8, len(t) - 5), size=rng.integers(1, 3), replace=False):
            spike = rng.uniform(0.25, 1) * np.exp(-np.arange(len(t) - at) / rng.uniform(0.3, 1.5))
            loss[at:] += spike
            train[at:] += 0.7 * spike
    first, noise = np.log(rng.choice([128, 1024, 8192])), rng.uniform(0.001, 0.025)
    loss, train = (
        first * (y + _noise(rng, len(t)) * noise * (0.3 + 0.7 * y)) for y in (loss, train)
    )
    accuracy = np.clip(accuracy + 0.01 * _noise(rng, len(t)), 0, 1)
    train[0], last = np.nan, len(t)
    if not_finite:
        last = int(rng.integers(10, len(t)))
        loss[last - 1], train[last - 1], accuracy[last - 1] = np.nan, np.nan, 0.0
    columns = {"step": steps.astype(int), "train_loss": train, "test_loss": np.maximum(loss, 0)}
    return pd.DataFrame({"mixer": "attention", **columns, "test_accuracy": accuracy}).iloc[:last]


def slowing_curves(
    count: int, seed: int, noise: float, correlation: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Made-up runs whose loss is ever slower to fall, under noise of a standard deviation that is a
    share of the first loss, and correlated from one evaluation to the next."""
    rng = np.random.default_rng(seed)
    runs, curves, _ = labelled_curves(count, seed, ("smooth",))
    for _, curve in curves.groupby("run_id"):
        t = curve["step"].to_numpy() / curve["step"].max()
        loss = 1 - rng.choice([0.02, 0.3, 0.6, 0.95]) * (1 - _smooth(rng, t))
        lasting = rng.normal(size=len(t))
        for i in range(1, len(t)):
            lasting[i] = correlation * lasting[i - 1] + (1 - correlation**2) ** 0.5 * lasting[i]
        curves.loc[curve.index, "test_loss"] = 9 * (loss + noise * lasting).clip(0)
    return runs.assign(**{"train.warmup": 0.0}), curves


def _smooth(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """From 1 towards 0, ever more slowly."""
    shape = rng.integers(4)
    if shape == 0:
        return np.exp(-t / 10 ** rng.uniform(-2, 0.3))
    if shape == 1:
        return (1 + t / 10 ** rng.uniform(-3, -1)) ** -rng.uniform(0.2, 1.5)
    if shape == 2:
        share = rng.uniform(0.2, 0.8)
        return share * np.exp(-t / 0.01) + (1 - share) * np.exp(-t / rng.uniform(0.1, 1))
    return np.exp(-((t / rng.uniform(0.02, 0.4)) ** rng.uniform(0.4, 1)))


def _step(rng: np.random.Generator, t: np.ndarray) -> np.ndarray:
    """A sudden fall: 0, then its depth. Its 10 to 90 % take 0.09 to 0.7 of the time before."""
    at = rng.uniform(0.05, 0.8)
    width = at * rng.uniform(0.02, 0.12)  # of the logistic function, whose 10 to 90 % take 4.4
    return rng.uniform(0.25, 0.75) / (1 + np.exp(-(t - at) / width))


def _noise(rng: np.random.Generator, count: int) -> np.ndarray:
    """Of standard deviation 1, half of it slow."""
    white = rng.normal(size=count)
    slow = np.convolve(rng.normal(size=count + 4), np.full(5, 5**-0.5), mode="valid")
    return (white + slow) / np.sqrt(2)

"""Two suspects for Mamba's failures at high learning rates: its unbounded output, and bf16.

    python experiments/mamba_norm_small.py

In results/lengths and results/embed_dropout many of Mamba's runs above its best learning rate never
leave the loss of guessing. Nothing in Mamba (Gu and Dao 2023, arXiv 2312.00752) bounds what it adds
to the residual stream, a product of step, input, B, C and gate; in Mamba2 (Dao and Gu 2024, arXiv
2405.21060) a norm in front of out_proj does. This counts how many seeds fail with and without such
a norm, and in either precision, and measures how the output grows in the first steps.

Grid: grids/mamba_norm_small.yaml, trained into results/mamba_norm_small if nothing of it is there
(an hour and a half of two CPU cores); the growth is trained anew each time, in seconds. Figure, as
.png and .pdf: learning_rates.
"""

import math

import pandas as pd
import torch

from zoorecall.columns import PRECISION, RATE
from zoorecall.exits import exit_code
from zoorecall.grid import load_grid
from zoorecall.plots import figure
from zoorecall.studies import draw, load_study, missing_runs
from zoorecall.tables import print_table, readable
from zoorecall.training.trainer import PackTrainer, Slot

GUESSING = math.log(256)
"""The loss of the values' frequencies, in nats: half of the 512 tokens are values."""
STEPS = 100
"""In which the growth is measured."""


def ends(runs: pd.DataFrame) -> pd.DataFrame:
    """The median accuracy, and how many seeds fail: end less than 0.2 nats below guessing, or
    diverge."""
    fails = ~(runs["test_loss"] < GUESSING - 0.2)
    runs = runs.assign(fails=fails)
    settings = [PRECISION, "mixer", RATE]
    found = runs.groupby(settings).agg(
        accuracy=("test_accuracy", "median"), fails=("fails", "sum"), seeds=("seed", "count")
    )
    return found.reset_index()


def growth(mixer: str) -> pd.DataFrame:
    """What each layer's mixer adds, over what it is added to: norms of vectors, their median over
    positions. And how much of the last norm's output `varies`: its variance over positions, over
    its mean square. Of one seed at two learning rates, at every third evaluation of the first
    steps."""
    rates = "train.learning_rate=[3e-2, 1e-1]"
    grid = load_grid("grids/mamba_norm_small.yaml", ("seed=42", f"model.mixer={mixer}", rates))
    runs = [run for run in grid.runs if run.train.precision == "fp32"]
    trainer, rows = PackTrainer(runs, torch.device("cpu")), []
    while trainer.running[0].step < STEPS:
        for slot in trainer.advance():
            if len(slot.curve.step) % 3 == 1:
                name, rate = slot.run.model.mixer.label, slot.run.train.learning_rate
                row = {"mixer": name, "learning rate": rate, "step": slot.step}
                rows.append(row | added_by_layers(trainer, slot))
    return pd.DataFrame(rows).sort_values(["learning rate", "step"], kind="stable")


@torch.no_grad()
def added_by_layers(trainer: PackTrainer, slot: Slot) -> dict[str, float]:
    """`growth` of a run as it is."""
    tokens, found = trainer.feed.tests(slot.run).tokens[:, :64], {}
    with trainer.pack.alone(slot.place) as model:
        x = model.embedding(tokens)
        for i, layer in enumerate(model.each_layer(), 1):
            added = layer.mixer(layer.sequence.norm(x)).norm(dim=-1)
            found[f"layer {i} adds"] = float((added / x.norm(dim=-1)).median())
            x = layer(x)
        seen = model.norm(x).flatten(1, 2)
    varies = seen.var(1, unbiased=False).sum() / seen.square().mean(1).sum()
    return found | {"varies": float(varies)}


def main() -> None:
    results = load_study("mamba_norm_small")
    draw("mamba_norm_small", {"learning_rates": figure("rates", results)})
    print_table(readable(ends(results.runs)))
    print("\nwhat a mixer adds, in units of the residual stream it is added to")
    mixers = ("mamba", "{name: mamba, norm: true}")
    print_table(readable(pd.concat([growth(mixer) for mixer in mixers])))
    print(missing_runs("mamba_norm_small", results))


if __name__ == "__main__":
    raise SystemExit(exit_code(main))

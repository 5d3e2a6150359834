"""How much faster is a sweep than its runs one after another in a plain torch loop?

    python experiments/solo_baseline.py [grids/quick.yaml] [--steps 60]

The baseline trains the same models on the same examples with torch's own modules around them:
one run at a time, logits at every position, torch.optim.AdamW, all cores for the one run. It takes
`--steps` steps of every run and is scaled to the whole grid; the sweep is run whole, with the
start of its workers and all evaluations, which the baseline is spared.
"""

import argparse
import tempfile
import time

import torch
import torch.nn.functional as F

from zoorecall import load_grid, sweep
from zoorecall.cli import exit_code
from zoorecall.config import RunConfig
from zoorecall.model.model import build_model
from zoorecall.seeding import Stream
from zoorecall.tasks import make_task
from zoorecall.training.optim import learning_rates


def solo_seconds(run: RunConfig, steps: int) -> float:
    """Seconds of one step of a run, full logits and labels at every position."""
    model, train = build_model(run), run.train
    examples = make_task(run.task).examples(train.train_examples, run.seed, "train")
    tokens = torch.from_numpy(examples.tokens).long()
    labels = torch.full_like(tokens, -100)
    labels.scatter_(
        1,
        torch.from_numpy(examples.query_positions).long(),
        torch.from_numpy(examples.targets).long(),
    )
    rates = learning_rates(train)
    optimizer = torch.optim.AdamW(
        model.parameters(), betas=train.betas, eps=train.eps, weight_decay=train.weight_decay
    )
    order = torch.from_numpy(Stream(run.seed, "order", 0).permutation(len(tokens)))
    everywhere = torch.arange(run.task.seq_len)
    started = time.perf_counter()
    for step in range(steps):
        batch = order[step * train.batch_size :][: train.batch_size]
        x, y = tokens[batch], labels[batch]
        logits = model(x[None], everywhere.expand(1, len(batch), -1))
        loss = F.cross_entropy(logits.flatten(0, -2), y.flatten(), ignore_index=-100)
        optimizer.param_groups[0]["lr"] = float(rates[step])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (time.perf_counter() - started) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("grid", nargs="?", default="grids/quick.yaml")
    parser.add_argument("--steps", type=int, default=60, help="steps of the baseline's runs")
    args = parser.parse_args()
    grid = load_grid(args.grid)
    solo = 0.0
    for run in grid.runs:
        solo_seconds(run, 3)  # warm up
        solo += solo_seconds(run, args.steps) * run.train.num_steps
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        sweep(grid, folder, device="cpu")
        packed = time.perf_counter() - started
    print(f"one after another {solo:.0f} s, sweep {packed:.0f} s: {solo / packed:.2f} times faster")


if __name__ == "__main__":
    raise SystemExit(exit_code(main))

"""How much faster is a pack of runs than one run in a plain torch loop, and than the peer lab?

    python experiments/speed_comparison.py [--device cuda] [--peer CHECKOUT_OF_ZOOLOGY]
    python experiments/speed_comparison.py --grid grids/quick.yaml

The first times a training step of attention on MQAR: in a plain loop (a model of torch.nn, one run,
logits at every position, torch.optim.AdamW), on a GPU also in bfloat16, compiled with a fused
AdamW, and captured in a CUDA graph; then in packs of this lab, of which the last is the size that
a sweep would take. With `--peer`, Zoology's own trainer is timed too, in float32 as its README runs
it. The batches lie on the device but for the peer, which moves them there as it always does. On a
CPU each has one core. The table goes into results/bench/comparison.csv, where measurements of other
devices and sizes stay.

The second trains a whole grid, with the start of its workers and all evaluations, which the
baseline is spared: steps of each of its runs, one after another, scaled to their number of steps.
"""

import argparse
import functools
import inspect
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoorecall import load_grid, sweep
from zoorecall.bench import bench, bench_run, ceilings
from zoorecall.config import RunConfig
from zoorecall.errors import UserError
from zoorecall.exits import exit_code
from zoorecall.files import replacing
from zoorecall.model.model import build_model
from zoorecall.sweeps.provenance import provenance
from zoorecall.sweeps.sweeper import resolve_device
from zoorecall.tables import print_table
from zoorecall.tasks import make_task

OUT = Path("results/bench/comparison.csv")
WARMUP = 3
"""Steps before those that are timed."""

SIZES = {"cuda": (64, 64, 512, 2), "cpu": (32, 32, 64, 1)}
"""Width, length, batch size and layers by device: of the papers, and of grids/quick.yaml."""

LOOPS = (  # name, bfloat16, compiled, captured
    ("plain loop", False, False, False),
    ("plain loop", True, False, False),
    ("plain loop, compiled", True, True, False),
    ("plain loop, compiled and captured", True, True, True),
)
SAME = ["device", "width", "length", "batch", "layers"]
"""What tells one comparison from another."""


class Block(nn.Module):
    """Attention and MLP, each behind a norm: [B, L, D] -> the same."""

    def __init__(self, d_model: int, d_hidden: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(d_model)
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.fc1 = nn.Linear(d_model, d_hidden)
        self.fc2 = nn.Linear(d_hidden, d_model)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unsqueeze(1).chunk(3, dim=-1)  # one head
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).squeeze(1))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Transformer(nn.Module):
    """A run's model of attention in torch's own modules: tokens [B, L] -> logits [B, L, V]."""

    def __init__(self, run: RunConfig):
        super().__init__()
        D, model = run.model.d_model, run.model
        self.positions = nn.Parameter(0.02 * torch.randn(run.task.seq_len, D))
        self.embedding = nn.Embedding(run.task.vocab_size, D)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(D, model.mlp_ratio * D) for _ in range(model.num_layers))
        self.norm = nn.LayerNorm(D)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.positions
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.embedding.weight)


class OneRun(nn.Module):
    """A run's model of this lab, of whatever mixer, as `Transformer`."""

    def __init__(self, run: RunConfig):
        super().__init__()
        self.model = build_model(run)

    def forward(self, tokens: Tensor) -> Tensor:
        everywhere = torch.arange(tokens.shape[1], device=tokens.device).expand(1, *tokens.shape)
        return self.model(tokens[None], everywhere)[0]


def batches(run: RunConfig, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Tokens and labels [B, L] of an epoch's batches; a label is -100 where nothing is asked."""
    made = make_task(run.task).examples(run.train.train_examples, run.data_seed, "train")
    tokens, positions, targets = (torch.from_numpy(x).long() for x in made[:3])
    labels = torch.full_like(tokens, -100).scatter_(1, positions, targets)
    size = run.train.batch_size
    parts = zip(tokens.to(device).split(size), labels.to(device).split(size), strict=True)
    return [part for part in parts if len(part[0]) == size]


def loop_ms(
    run: RunConfig,
    model: nn.Module,
    device: torch.device,
    steps: int,
    bf16: bool = False,
    compiled: bool = False,
    captured: bool = False,
) -> float:
    """Milliseconds of a step of one run in a plain loop."""
    model.to(device)

    def loss_of(tokens: Tensor, labels: Tensor) -> Tensor:
        logits = model(tokens).flatten(0, 1)
        return F.cross_entropy(logits, labels.flatten(), ignore_index=-100)

    # with its loss: alone, that would pass over all logits some times more
    loss_of_batch: Any = torch.compile(loss_of) if compiled else loss_of
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=run.train.learning_rate,
        betas=run.train.betas,
        eps=run.train.eps,
        weight_decay=run.train.weight_decay,
        fused=compiled,
        capturable=captured,
    )
    data = batches(run, device)
    x, y = (part.clone() for part in data[0])  # where a captured step finds its batch

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, bf16, cache_enabled=not captured):
            loss = loss_of_batch(x, y)
        loss.backward()
        optimizer.step()

    def time_steps(count: int, step: Any) -> float:
        started = time.perf_counter()
        for i in range(count):
            for place, values in zip((x, y), data[i % len(data)], strict=True):
                place.copy_(values)
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - started) / count

    if captured:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            time_steps(WARMUP, train)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            train()
        train = graph.replay
    time_steps(WARMUP, train)
    return time_steps(steps, train)


def peer_ms(run: RunConfig, checkout: str, device: torch.device, steps: int) -> float:
    """The same of Zoology's own model and trainer, from a checkout of its repository."""
    sys.path.insert(0, checkout)
    try:
        import zoology.model
        from zoology.config import ModelConfig, ModuleConfig
        from zoology.train import Trainer
    except ImportError as error:
        raise UserError(
            f"--peer {checkout}: {error}; Zoology's README says how to install"
        ) from error

    mixer = {"name": "zoology.mixers.attention.MHA", "kwargs": {"dropout": 0.1, "num_heads": 1}}
    config = ModelConfig(
        vocab_size=run.task.vocab_size,
        d_model=run.model.d_model,
        n_layers=run.model.num_layers,
        max_position_embeddings=run.task.seq_len,
        sequence_mixer=ModuleConfig(**mixer),
    )
    # its newest versions put embeddings on a GPU, wherever they train
    embeddings = functools.partial(zoology.model.TokenEmbeddings, device=device.type)
    zoology.model.TokenEmbeddings = embeddings
    model = zoology.model.LanguageModel(config)
    if "return_embeddings" in inspect.signature(model.forward).parameters:
        # its newest versions return embeddings by default, where its trainer expects logits
        model.forward = functools.partial(model.forward, return_embeddings=False)
    seconds = []

    class Timed(Trainer):
        def train_epoch(self, epoch_idx: int) -> None:
            started = time.perf_counter()
            super().train_epoch(epoch_idx)  # which reads every step's loss
            seconds.append((time.perf_counter() - started) / len(self.train_dataloader))

        def test(self, epoch_idx: int) -> dict:
            return {}

    class Silent:
        def log(self, values: dict) -> None: ...

    data = [(*part, None) for part in batches(run, torch.device("cpu"))]
    rates = {"learning_rate": run.train.learning_rate, "weight_decay": run.train.weight_decay}
    epochs = 1 + -(-steps // len(data))
    Timed(model, data, data, max_epochs=epochs, device=device.type, logger=Silent(), **rates).fit()
    return 1e3 * statistics.median(seconds[1:])


def comparison(
    run: RunConfig, packs: list[int | None], device: torch.device, steps: int, peer: str | None
) -> pd.DataFrame:
    """A row for each way to train such runs; `run` is in float32, None the pack of a sweep."""
    rows: list[tuple[str, str, int, float]] = []
    if peer:
        rows.append(("Zoology", "fp32", 1, peer_ms(run, peer, device, steps)))
    for name, *how in LOOPS if device.type == "cuda" else LOOPS[:1]:
        ms = loop_ms(run, Transformer(run), device, steps, *how)
        rows.append((name, "bf16" if how[0] else "fp32", 1, ms))
    precision = "bf16" if device.type == "cuda" else "fp32"
    train = run.train.model_copy(update={"precision": precision})
    ours = run.model_copy(update={"train": train})
    for m in bench([ours], packs, device, ceilings(device, precision)):
        rows.append(("zoorecall", precision, m.pack_size, m.ms_per_run_step))
    table = pd.DataFrame(rows, columns=["what", "precision", "runs", "ms a run-step"])
    fastest = table["ms a run-step"].min()
    return table.assign(**{"times the fastest": table["ms a run-step"] / fastest})


def written(table: pd.DataFrame, out: Path) -> None:
    """Write a comparison; those of other devices and sizes stay."""
    if out.exists():
        earlier = pd.read_csv(out)
        here = table[SAME].iloc[0]
        table = pd.concat([earlier[(earlier[SAME] != here).any(axis=1)], table])
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        table.to_csv(temporary, index=False)


def whole_grid(path: str, steps: int) -> None:
    """Print how long a grid's runs take one after another on the CPU, and as a sweep."""
    grid, cpu = load_grid(path), torch.device("cpu")
    each = (loop_ms(r, OneRun(r), cpu, steps) * r.train.num_steps / 1e3 for r in grid.runs)
    alone = sum(each)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        sweep(grid, folder, device="cpu")
        packed = time.perf_counter() - started
    print(
        f"one after another {alone:.0f} s, sweep {packed:.0f} s: {alone / packed:.2f} times faster"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--steps", type=int, default=60, help="that are timed of a loop (60)")
    for name in ("width", "length", "batch", "layers"):
        parser.add_argument(f"--{name}", type=int, help="of the papers on a GPU, smaller on a CPU")
    parser.add_argument("--packs", type=int, nargs="*", default=[1, 8], help="runs a pack (1 8)")
    parser.add_argument("--peer", metavar="PATH", help="a checkout of Zoology, to time it too")
    parser.add_argument("--out", type=Path, default=OUT, help=f"the table ({OUT})")
    parser.add_argument("--grid", metavar="GRID", help="time this whole grid on the CPU instead")
    args = parser.parse_args()
    if args.grid:
        whole_grid(args.grid, args.steps)
        return
    device = torch.device(resolve_device(args.device))
    torch.set_num_threads(1)  # as a sweep's workers have, one a core
    given = (args.width, args.length, args.batch, args.layers)
    sizes = [x or usual for x, usual in zip(given, SIZES[device.type], strict=True)]
    width, length, batch, layers = sizes
    run = bench_run("attention", width, length, layers, batch, precision="fp32")
    table = comparison(run, [*args.packs, None], device, args.steps, args.peer)
    print_table(table.round(3))
    where = provenance(device)
    machine = {name: where[name] for name in ("device", "torch_version", "git_commit")}
    shape = dict(zip(SAME[1:], sizes, strict=True))
    written(table.assign(**shape, **machine), args.out)
    print(f"\n{where['device']}: {args.out}")


if __name__ == "__main__":
    raise SystemExit(exit_code(main))

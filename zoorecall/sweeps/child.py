"""A process that trains packs. `python -m zoorecall.sweeps.child` reads orders from its input.

One line of JSON an order comes in, `{"train": runs}` or `{"size": run}`, the latter to measure how
many runs like it make a pack; one line of JSON an event goes out. When the input ends, because
the sweep stopped or died, the worker saves a checkpoint at the next evaluation and goes too.
"""

import contextlib
import json
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .. import results
from ..columns import slice_accuracy
from ..config import RunConfig
from ..errors import ResultsError
from ..model import count_parameters, forward_flops, state_size
from ..tasks import sizes
from ..training.trainer import Curve, PackTrainer, RunResult
from .plan import PlannedPack
from .provenance import provenance, user_code
from .sizing import measured_size, release_memory

Emit = Callable[[dict[str, Any]], None]


def train_pack(
    pack: PlannedPack,
    folder: Path,
    device: torch.device,
    checkpoint_seconds: float,
    emit: Emit,
    stopping: Callable[[], bool] = lambda: False,
) -> bool:
    """Train a pack to its shard, or to a checkpoint if `stopping`; says whether it finished."""
    state = results.read_checkpoint(folder, pack.pack_id) or {"trainer": None, "left": {}}
    left: dict[str, dict[str, Any]] = state["left"]  # rows of runs that the trainer has no more
    runs = [run for run in pack.runs if run.run_id not in left]
    trainer = PackTrainer(runs, device, state["trainer"])
    saved = time.monotonic()
    while not trainer.finished:
        trainer.advance()
        best = {run_id: row["best_test_accuracy"] for run_id, row in left.items()}
        for run, curve in zip(trainer.runs, trainer.curves, strict=True):
            best[run.run_id] = max(curve.test_accuracy)
        emit(
            {
                "event": "progress",
                "pack_id": pack.pack_id,
                "step": trainer.step,
                "accuracy": [best[run.run_id] for run in pack.runs],
            }
        )
        if trainer.half_empty:
            active = trainer.active.tolist()
            for result, goes_on in zip(trainer.results(), active, strict=True):
                if not goes_on:
                    left[result.run.run_id] = _row(result, pack, trainer)
            trainer = trainer.of_active()
        stop = stopping() and not trainer.finished
        if stop or time.monotonic() - saved > checkpoint_seconds:
            checkpoint = {"trainer": trainer.state(), "left": left}
            results.write_checkpoint(folder, pack.pack_id, checkpoint)
            saved = time.monotonic()
        if stop:
            return False
    rows = left | {result.run.run_id: _row(result, pack, trainer) for result in trainer.results()}
    results.write_shard(folder, pack.pack_id, [rows[run.run_id] for run in pack.runs])
    return True


def _row(result: RunResult, pack: PlannedPack, trainer: PackTrainer) -> dict[str, Any]:
    """A run's row as it stands in a shard."""
    run = result.run
    measured = _columns(result)
    del measured["run"], measured["curve"]
    for name in ("steps_to_solve", "diverged_at", "stopped_at"):
        measured[name] = math.nan if measured[name] is None else float(measured[name])
    tokens = trainer.step * run.train.batch_size * run.task.seq_len
    return {
        "run_id": run.run_id,
        "mixer": run.model.mixer.label,
        "config": run.model_dump_json(),
        **sizes(run.task),
        **measured,
        "num_steps": run.train.num_steps,
        "parameters": count_parameters(run),
        "state_size": state_size(run),
        "forward_flops": forward_flops(run),
        "pack_id": pack.pack_id,
        "pack_size": len(pack.runs),
        "seconds": trainer.seconds,
        "tokens_per_second": tokens / max(trainer.seconds, 1e-9),
        **provenance(trainer.device),
        "user_code": user_code(run.model.mixer),
        **{f"curve.{name}": values for name, values in _columns(result.curve).items()},
    }


def _columns(fields: RunResult | Curve) -> dict[str, Any]:
    """The fields by name, the accuracy of each slice in a column of its own."""
    columns = dict(vars(fields))
    by_slice = columns.pop("slice_test_accuracy")
    return columns | {slice_accuracy(name): value for name, value in by_slice.items()}


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the sweep decides what a Ctrl-C means
    output, sys.stdout = sys.stdout, sys.stderr  # a user's mixer may print
    lock, stop = threading.Lock(), threading.Event()

    def emit(event: dict[str, Any]) -> None:
        with lock:
            try:
                output.write(json.dumps(event) + "\n")
                output.flush()
            except BrokenPipeError:
                stop.set()

    setup = json.loads(sys.stdin.readline())
    folder, device = Path(setup["folder"]), torch.device(setup["device"])
    if device.type == "cuda":
        torch.cuda.set_device(device)  # captures and kernels go to the current one
    torch.set_num_threads(setup["threads"])
    orders: list[dict] = []
    arrived, measuring = threading.Condition(), threading.Event()

    def listen() -> None:
        for line in sys.stdin:
            with arrived:
                orders.append(json.loads(line))
                arrived.notify()
        stop.set()
        if measuring.is_set():
            os._exit(0)  # there is nothing to save
        with arrived:
            arrived.notify()

    threading.Thread(target=listen, daemon=True).start()
    while True:
        with arrived:
            arrived.wait_for(lambda: orders or stop.is_set())
            if stop.is_set():
                break
            order = orders.pop(0)
        try:
            if "size" in order:
                measuring.set()
                run = RunConfig.model_validate_json(order["size"])
                size = measured_size(run, device)
                measuring.clear()
                emit({"event": "sized", "pack_key": run.pack_key, "size": size})
            else:
                pack = PlannedPack(tuple(map(RunConfig.model_validate_json, order["train"])))
                seconds = setup["checkpoint_seconds"]
                finished = train_pack(pack, folder, device, seconds, emit, stop.is_set)
                emit({"event": "finished" if finished else "stopped", "pack_id": pack.pack_id})
        except Exception as error:
            with contextlib.suppress(OSError):  # the log may be on the disk that is full
                traceback.print_exc(file=sys.stderr)
                sys.stderr.flush()
            if "size" in order:
                break  # whatever it was, the next worker trains on a GPU in a known state
            kind = "disk" if isinstance(error, ResultsError) else "failed"
            if isinstance(error, torch.OutOfMemoryError):
                kind = "out of memory"
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            emit({"event": kind, "reason": reason})
        release_memory(device)  # the next pack has other shapes
    sys.stdout.flush()
    os._exit(0)  # the listening thread may still hold standard input


if __name__ == "__main__":
    main()

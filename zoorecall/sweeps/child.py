"""A process that trains packs. `python -m zoorecall.sweeps.child` reads orders from its input.

One line of JSON an order comes in, `{"train": runs}` or `{"size": run}`, the latter to measure how
many runs like it make a pack; one line of JSON an event goes out. When the input ends, because
the sweep stopped or died, the worker saves a checkpoint at the next evaluation and goes too.
"""

import contextlib
import functools
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch

from ..config import RunConfig
from ..errors import ResultsError
from .pack_job import train_pack
from .plan import PlannedPack
from .sizing import measured_size, release_memory


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the sweep decides what a Ctrl-C means
    output, sys.stdout = sys.stdout, sys.stderr  # a user's mixer may print
    lock, stop = threading.Lock(), threading.Event()

    def emit(event: dict[str, object]) -> None:
        with lock:
            try:
                output.write(json.dumps(event) + "\n")
                output.flush()
            except BrokenPipeError:
                stop.set()

    def tell(pack: PlannedPack, step: int, accuracy: Sequence[float]) -> None:
        emit({"event": "progress", "pack_id": pack.pack_id, "step": step, "accuracy": accuracy})

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
                progress = functools.partial(tell, pack)
                finished = train_pack(pack, folder, device, seconds, progress, stop.is_set)
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

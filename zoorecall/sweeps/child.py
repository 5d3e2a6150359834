"""A worker process of `local`: it reads orders from one pipe and writes events to another.

Its standard streams are not for messages: a user's mixer may print. It dies with its sweep.
"""

import contextlib
import os
import queue
import signal
import sys
import threading
import time
import traceback

import torch

from .events import Job, JobEvent, Setup, Stop, Train, order_from, to_line
from .executor import perform

GRACE_SECONDS = 5
"""For so long a worker whose sweep died may go on to its next evaluation and save a checkpoint."""


def main() -> None:
    """Carry out orders; the command line has the numbers of the two pipes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the sweep decides what a Ctrl-C means
    orders_fd, events_fd = map(int, sys.argv[1:])
    for fd in (orders_fd, events_fd):
        os.set_inheritable(fd, False)  # not for what a user's mixer starts
    orders, events = os.fdopen(orders_fd, "rb"), os.fdopen(events_fd, "wb")
    setup = order_from(orders.readline())
    assert isinstance(setup, Setup)
    device = torch.device(setup.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # captures and kernels go to the current one
    torch.set_num_threads(setup.threads)
    jobs: queue.SimpleQueue[Job | Stop] = queue.SimpleQueue()
    emitting, stop, training = threading.Lock(), threading.Event(), threading.Event()

    def listen() -> None:
        try:
            for line in orders:
                order = order_from(line)
                if isinstance(order, Job):
                    jobs.put(order)
                else:
                    leave()
        finally:  # the sweep died, perhaps within a line
            leave()
            time.sleep(GRACE_SECONDS)
            os._exit(1)

    def leave() -> None:
        stop.set()
        jobs.put(Stop())
        if not training.is_set():
            os._exit(0)  # there is nothing to save

    def emit(event: JobEvent) -> None:
        with emitting, contextlib.suppress(BrokenPipeError):  # `listen` hears of it, too
            events.write(to_line(event))
            events.flush()

    threading.Thread(target=listen, daemon=True).start()
    try:
        while not isinstance(job := jobs.get(), Stop):
            if isinstance(job, Train):
                training.set()
            perform(job, setup, emit, stop.is_set)
            training.clear()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)  # at once, whatever threads there are

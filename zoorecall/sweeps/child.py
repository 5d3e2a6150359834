"""A worker process of `local`: it reads orders from one pipe and writes events to another.

Its standard streams are not for messages: a user's mixer may print. It dies with its sweep.
"""

import contextlib
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable

import torch

from .events import Died, JobEvent, Order, Setup, Stop, Train, order_from, to_line
from .executor import Inbox, perform

GRACE_SECONDS = 5
"""For so long a worker whose sweep died may go on to its next evaluation and save a checkpoint."""


def main() -> None:
    """Carry out orders; the command line has the numbers of the two pipes."""
    orders_fd, events_fd = map(int, sys.argv[1:])
    for fd in (orders_fd, events_fd):
        os.set_inheritable(fd, False)  # not for what a user's mixer starts
    orders, events = os.fdopen(orders_fd, "rb"), os.fdopen(events_fd, "wb")
    setup = order_from(orders.readline())
    assert isinstance(setup, Setup)
    worker = Worker(setup)

    emitting = threading.Lock()

    def emit(event: JobEvent) -> None:
        with emitting, contextlib.suppress(BrokenPipeError):  # `listen` hears of it, too
            events.write(to_line(event))
            events.flush()

    def read(line: bytes) -> Order:
        try:
            return order_from(line)
        except Exception as error:  # as a mixer that cannot be imported here
            traceback.print_exc()
            emit(Died(f"its worker cannot read an order: {error}"))
            os._exit(1)

    def listen() -> None:
        try:
            for line in orders:
                if not line.endswith(b"\n"):
                    break  # the sweep died
                worker.take(read(line))
        finally:
            worker.take(Stop())
            time.sleep(GRACE_SECONDS)
            os._exit(1)

    threading.Thread(target=listen, daemon=True).start()
    try:
        worker.work(emit)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)  # at once, whatever threads there are


class Worker:
    """Carries out the orders that one thread takes in another."""

    def __init__(self, setup: Setup):
        self._setup, self._inbox = setup, Inbox()
        self._jobs: queue.SimpleQueue[Train | Stop] = queue.SimpleQueue()
        device = torch.device(setup.device)
        if device.type == "cuda":
            torch.cuda.set_device(device)  # captures and kernels go to the current one
        torch.set_num_threads(setup.threads)

    def take(self, order: Order) -> None:
        """Hear of an order."""
        if isinstance(order, Train):
            self._jobs.put(order)
        elif not isinstance(order, Setup):
            self._inbox.put(order)
        if isinstance(order, Stop):
            self._jobs.put(order)

    def work(self, emit: Callable[[JobEvent], None]) -> None:
        """Carry out orders until a `Stop`."""
        while not isinstance(job := self._jobs.get(), Stop):
            perform(job, self._setup, emit, self._inbox)

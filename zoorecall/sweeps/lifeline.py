"""What ties a worker process to its sweep. Imports nothing heavy: it runs before anything else."""

import ctypes
import signal
import sys

ENDING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
"""What a terminal or a scheduler sends to all processes of a job that is to end."""

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def hold() -> None:
    """Leave it to the sweep what a signal means; on Linux, die 16 seconds after the sweep at the
    latest, though code that never returns holds Python's lock.

    Until then a worker that is not stuck saves a checkpoint. For those who are: the kernel sends
    the signal 16, which it does not use, when the sweep dies. Its handler is the C function
    `alarm`, which takes the signal's number for seconds, after which the kernel ends the process.
    """
    for name in ENDING:  # not SIG_IGN, which what a user's mixer starts would inherit
        signal.signal(signal.Signals[name], lambda *_: None)
    if sys.platform == "linux" and hasattr(signal, "SIGSTKFLT"):
        libc = ctypes.CDLL(None)
        libc.signal(signal.SIGSTKFLT, ctypes.cast(libc.alarm, ctypes.c_void_p))
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGSTKFLT)

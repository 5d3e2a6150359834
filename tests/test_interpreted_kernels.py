"""The Triton kernels without a GPU, in processes in which Triton interprets from the start."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FILES = sorted(map(str, (Path(__file__).parent / "kernels").glob("test_*.py")))


def interpret(files: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    command += ["-m", "interpreted and not gpu"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_the_kernels_hold_in_the_interpreter():
    with ThreadPoolExecutor() as pool:  # a half for each of two cores
        halves = pool.map(interpret, [FILES[::2], FILES[1::2]])
    failed = [half.stdout + half.stderr for half in halves if half.returncode]
    assert not failed, "\n".join(failed)

"""The Triton kernels without a GPU, in processes in which Triton interprets from the start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FILES = sorted(map(str, (Path(__file__).parent / "kernels").glob("test_*.py")))


def interpret(files: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    command += ["-m", "interpreted and not gpu"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("half", [0, 1])  # for two tests side by side
def test_the_kernels_hold_in_the_interpreter(half):
    done = interpret(FILES[half::2])
    assert not done.returncode, done.stdout + done.stderr

"""Where a number came from: code, libraries, machine."""

import functools
import platform
import subprocess
from pathlib import Path

import torch

from . import __version__
from .ops.dispatch import kernels


def provenance(device: torch.device) -> dict[str, str]:
    """The columns of a row that say what trained it."""
    return {
        "device": device_name(device),
        "kernels": kernels(device),
        "zoorecall_version": __version__,
        "torch_version": str(torch.__version__),
        "git_commit": git_commit(),
    }


@functools.cache
def device_name(device: torch.device) -> str:
    """The device as its maker names it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "cpu"


@functools.cache
def git_commit() -> str:
    """The commit of the code, `+` where it was changed since; empty outside a checkout."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        folder = Path(__file__).parent
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""

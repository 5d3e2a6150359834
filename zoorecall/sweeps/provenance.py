"""Where a number came from: code, libraries, machine."""

import functools
import platform
import subprocess
from pathlib import Path

import torch

from ..mixers import CustomConfig, MixerConfig
from ..user_code import find_file
from ..version import __version__


def provenance(device: torch.device) -> dict[str, str]:
    """What trains on a device, as a row's columns."""
    return {
        "device": device_name(device),
        "zoorecall_version": __version__,
        "torch_version": str(torch.__version__),
        "git_commit": git_commit(Path(__file__)),
    }


@functools.cache
def device_name(device: torch.device) -> str:
    """The device as its maker names it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "cpu"


def user_code(mixer: MixerConfig) -> str:
    """The commit of a user's own mixer, or else its source; empty for a mixer of this package."""
    own = [one for one in mixer.each if isinstance(one, CustomConfig)]
    return ", ".join(git_commit(find_file(one.module)) or one.source for one in own)


@functools.cache
def git_commit(file: Path) -> str:
    """The commit of the checkout that has a file, `+` where it was changed since; empty if none."""
    tracked = ["git", "ls-files", "--error-unmatch", file.name]
    describe = ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
    try:
        for command in (tracked, describe):
            done = subprocess.run(
                command, cwd=file.parent, capture_output=True, text=True, timeout=10, check=True
            )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()

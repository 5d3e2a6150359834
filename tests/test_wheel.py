"""The wheel holds the whole package, and runs where there is no repository."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

USE = """
import sys
from pathlib import Path

import zoorecall
from zoorecall.cli import main

assert Path(zoorecall.__file__).is_relative_to(sys.argv[1]), zoorecall.__file__
task = {"name": "mqar", "vocab_size": 32, "seq_len": 12, "num_kv_pairs": 2}
small = {"train_examples": 40, "batch_size": 20, "test_examples": 10, "epochs": 1}
settings = {"task": task, "model": {"d_model": 8, "num_layers": 1}, "train": small}
(row,) = zoorecall.train(zoorecall.RunConfig.model_validate(settings)).runs.to_dict("records")
assert row["zoorecall_version"] == zoorecall.__version__
assert main(["schema"]) == 0
sys.exit(main(["sweep", "grids/quick.yaml"]))
"""


def run(*command: str, **settings) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, **settings)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, as a build leaves folders of its own beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "zoorecall", folder / "zoorecall")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    done = run(*pip, "wheel", ".", "--no-deps", "--no-build-isolation", cwd=folder)
    assert not done.returncode, done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_it_holds_every_file_of_the_package(wheel):
    package = ROOT / "zoorecall"
    files = {path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("zoorecall/")}
    assert names == {path.relative_to(ROOT).as_posix() for path in files}


def test_it_trains_and_says_where_grids_come_from_in_a_folder_of_its_own(wheel, tmp_path):
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    done = run(*pip, "install", "--no-deps", "--target", str(site), str(wheel))
    assert not done.returncode, done.stderr
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = run(sys.executable, "-c", USE, str(site), cwd=tmp_path, env=environment)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1] == (
        "grids/quick.yaml:1: file: is not there, grids come with zoorecall's repository, "
        "in its folder grids"
    )

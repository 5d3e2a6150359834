"""A user's own mixer: what its code is decides which runs are its runs."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from conftest import finished_runs, small_run

from zoorecall import load_grid, load_models, load_results, sweep
from zoorecall.cli import main
from zoorecall.config import RunConfig
from zoorecall.errors import GridError, ResultsError, ZoorecallWarning
from zoorecall.mixers import CustomConfig
from zoorecall.model.pack import Pack
from zoorecall.sweeps.provenance import git_commit, user_code
from zoorecall.user_code import source_of

MIXER = """
import torch
from .parts import gate, math
class Mine(torch.nn.Linear):
    def __init__(self, d_model): super().__init__(d_model, d_model)
    def state_size(self, length): return 0
"""
FILES = {
    "mine/__init__.py": "",
    "mine/mixers/__init__.py": "from mine import constants",
    "mine/mixers/first.py": MIXER,
    "mine/mixers/second.py": MIXER.replace(".parts", "mine.mixers.parts"),
    "mine/mixers/parts/__init__.py": "import math\nfrom ... import shared\ndef gate(): pass",
    "mine/mixers/parts/gate.py": "",  # may be what `from .parts import gate` means
    "mine/constants.py": "def late():\n    import toplevel.deep.er",
    "mine/shared.py": "import mine.mixers.first  # in a circle",
    "toplevel/deep/er.py": "",
    "mine/mixers/unrelated.py": "nor = is this Python",
    "mine/mixers/data.txt": "",
    "unrelated.py": "",
}
IMPORTED = [name for name in FILES if "second" not in name and "unrelated" not in name][:-1]

GRID = """
base:
  task: {name: mqar, vocab_size: 32, seq_len: 12, num_kv_pairs: 2}
  model: {d_model: 8, num_layers: 1}
  train: {batch_size: 8, train_examples: 40, test_examples: 24, epochs: 1, evaluations: 2}
axes:
  model.mixer: [attention, "mine.mixers.first:Mine", "mine.mixers.second:Mine"]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, in which the command runs."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "grid.yaml").write_text(GRID)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)  # for one worker
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.partition(".")[0] in ("mine", "toplevel"):
            del sys.modules[name]


def edit(path: Path) -> None:
    path.write_text(path.read_text() + "\n# edited")


def ids(project: Path) -> list[str]:
    """The run ids of attention, of the first mixer and of the second."""
    return [run.run_id for run in load_grid(project / "grid.yaml").runs]


@pytest.mark.parametrize("name", IMPORTED)
def test_an_edit_of_a_mixer_or_of_a_file_that_it_imports_makes_other_runs(name, project):
    before = ids(project)
    edit(project / name)
    after = ids(project)
    assert len(set(before)) == 3
    # the second mixer imports the first too, by way of `shared`
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, False]


@pytest.mark.parametrize("name", [name for name in FILES if "unrelated" in name or "data" in name])
def test_an_edit_of_another_file_of_the_folder_leaves_the_runs_as_they_are(name, project):
    before = ids(project)
    edit(project / name)
    assert ids(project) == before


def test_an_edit_of_one_mixer_leaves_the_runs_of_another_as_they_are(project):
    before = ids(project)
    edit(project / "mine/mixers/second.py")
    after = ids(project)
    assert after[:2] == before[:2] and after[2] != before[2]


def test_where_the_folder_lies_does_not_matter(project, monkeypatch, tmp_path_factory):
    moved = tmp_path_factory.mktemp("elsewhere") / "moved"
    before = ids(project)
    project.rename(moved)
    code = "from zoorecall import load_grid; print([r.run_id for r in load_grid('grid.yaml').runs])"
    done = subprocess.run([sys.executable, "-c", code], cwd=moved, capture_output=True, text=True)
    assert done.stdout.strip() == str(before), done.stderr
    moved.rename(project)


def test_a_config_that_has_a_source_keeps_it(project):
    run = load_grid(project / "grid.yaml").runs[1]
    edit(project / "mine/mixers/first.py")
    source_of.cache_clear()
    again = RunConfig.model_validate_json(run.model_dump_json())
    assert again == run and again.run_id == run.run_id
    assert again.model.mixer.source == run.model.mixer.source != ""
    assert small_run().model.mixer.model_dump().get("source") is None


EDITED = """
import torch
from mine.shift import SHIFT
class Mine(torch.nn.Linear):
    def __init__(self, d_model):
        super().__init__(d_model, d_model)
        self.bias.data.fill_(SHIFT + {})
"""


def test_a_process_that_reads_a_grid_again_runs_what_its_files_are_now(project):
    def write(shift: float, more: float) -> float:
        (project / "mine/shift.py").write_text(f"SHIFT = {shift}")
        (project / "mine/edited.py").write_text(EDITED.format(more))
        (run,) = load_grid(project / "grid.yaml", ["model.mixer=mine.edited:Mine"]).runs
        return Pack([run], torch.device("cpu")).copies[0][0].module.bias.mean().item()

    assert [write(1, 10), write(2.5, 10), write(2.5, 20.5)] == [11, 12.5, 23]


def test_a_run_whose_code_was_edited_since_is_not_trained(project):
    old = load_grid(project / "grid.yaml").runs[1]
    edit(project / "mine/mixers/first.py")
    load_grid(project / "grid.yaml")
    with pytest.raises(ValueError, match="first:Mine was edited since the grid was read; read it"):
        Pack([old], torch.device("cpu"))


def test_kept_weights_of_code_that_was_edited_or_is_gone(project, capsys):
    overrides = ["model.mixer=mine.mixers.first:Mine", "train.keep=weights"]
    sweep(load_grid(project / "grid.yaml", overrides), "out", device="cpu")
    (run_id,) = load_models("out")
    source_of.cache_clear()
    edit(project / "mine/mixers/first.py")
    with pytest.warns(ZoorecallWarning, match="first:Mine was edited since out/models/"):
        load_models("out")
    assert main(["show", "out", run_id]) == 0
    shown = capsys.readouterr().out.partition("its answers")[2]
    assert "first:Mine was edited since" in shown and "of 48 right on the first 24" in shown
    (project / "mine/mixers/first.py").write_text("Mine = 3")
    source_of.cache_clear()
    with pytest.raises(ResultsError, match=r"weights of its run \(it is not a torch.nn.Module"):
        load_models("out")
    assert main(["show", "out", run_id]) == 2
    shown, error = capsys.readouterr()
    assert "its curve" in shown and error.count("\n") == 1 and "not a torch.nn.Module" in error
    assert main(["export", "out"]) == 0  # which asks nothing of the code


def test_an_installed_mixer_is_its_distribution_and_version():
    config = CustomConfig(name="einops.layers.torch:Rearrange")
    assert config.source == f"einops {version('einops')}" == user_code(config)


@pytest.mark.parametrize("key", ["{name: 'mine.mixers.first:Mine', source: x}", "{source: x}"])
def test_a_source_is_not_a_users_to_set(key, project):
    (project / "grid.yaml").write_text(f"axes:\n  model.mixer:\n    - {key}\n")
    with pytest.raises(GridError, match=r":3: model\.mixer\.source: unknown key"):
        load_grid(project / "grid.yaml")
    (project / "grid.yaml").write_text("axes: {model.mixer.source: [x]}")
    with pytest.raises(GridError, match=r":1: model\.mixer\.source: unknown key"):
        load_grid(project / "grid.yaml")


def test_a_mixer_without_a_file_is_refused_with_the_reason(project, monkeypatch):
    class Local(torch.nn.Linear):
        pass

    monkeypatch.setattr(sys.modules["__main__"], "Local", Local, raising=False)
    (project / "grid.yaml").write_text("base: {model.mixer: '__main__:Local'}")
    with pytest.raises(GridError, match=r":1: model.mixer: .*__main__ should be a \.py file"):
        load_grid(project / "grid.yaml")


@pytest.mark.parametrize(
    "code",
    [
        "import sys\nsys.exit(0)",
        "import torch\nclass Mine(torch.nn.Module):\n"
        "    def __init__(self, d_model): raise SystemExit(0)\n"
        "    def forward(self, x): return x",
    ],
)
def test_a_mixer_that_ends_the_process_is_refused(code, project, capsys):
    (project / "mine/ends.py").write_text(code)
    (project / "grid.yaml").write_text("base: {model.mixer: 'mine.ends:Mine'}")
    assert main(["sweep", "grid.yaml"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "SystemExit: 0" in err


def test_a_dry_run_survives_a_mixer_whose_forward_ends_the_process(project, capsys):
    mixer = project / "mine/mixers/first.py"
    mixer.write_text(mixer.read_text() + "    def forward(self, x): raise SystemExit(0)")
    assert main(["sweep", "grid.yaml", "--dry-run"]) == 0
    assert "3 runs of" in capsys.readouterr().out


def test_an_edited_mixer_trains_again_and_the_others_do_not(project):
    def trained() -> list[str]:
        events = []
        sweep(load_grid(project / "grid.yaml"), "out", device="cpu", on_event=events.append)
        return sorted(run.model.mixer.name for run in finished_runs(events))

    assert trained() == ["attention", "mine.mixers.first:Mine", "mine.mixers.second:Mine"]
    assert trained() == []
    edit(project / "mine/mixers/second.py")
    assert trained() == ["mine.mixers.second:Mine"]
    runs = load_results("out").runs.set_index("mixer.name")
    assert runs.loc["attention", "user_code"] == ""
    second = runs.loc["mine.mixers.second:Mine"]
    assert second["user_code"].nunique() == 2
    assert (second["user_code"] == second["mixer.source"]).all()


def test_what_is_not_known_is_empty_in_a_row(project):
    mixer = project / "mine/mixers/first.py"
    mixer.write_text(mixer.read_text().replace("state_size", "another"))
    mixer.write_text(mixer.read_text() + "    def forward(self, x): return torch.fft.fft(x).real")
    sweep(load_grid(project / "grid.yaml"), "out", device="cpu")
    runs = load_results("out").runs.set_index("mixer.name")
    unknown = runs.loc["mine.mixers.first:Mine", ["state_size", "forward_flops"]]
    assert unknown.isna().all()
    assert runs.loc["mine.mixers.second:Mine", "state_size"] == 0
    assert runs.loc["mine.mixers.second:Mine", "forward_flops"] > 0


def test_the_commit_of_a_users_code_is_told_where_git_has_it(project):
    def git(*words: str) -> str:
        env = os.environ | {
            f"GIT_{who}_{what}": "x"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        }
        return subprocess.run(
            ["git", *words], env=env, capture_output=True, text=True, check=True
        ).stdout

    git("init", "-q")
    git("add", "mine/mixers/first.py")
    git("commit", "-qm", "mine")
    own, first, second = (run.model.mixer for run in load_grid(project / "grid.yaml").runs)
    assert user_code(own) == ""
    assert user_code(first) == git("rev-parse", "--short=12", "HEAD").strip()
    assert user_code(second) == second.source  # git does not have it
    git_commit.cache_clear()
    edit(project / "mine/mixers/first.py")
    assert user_code(first).endswith("+")

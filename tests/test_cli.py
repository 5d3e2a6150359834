"""Every command of the command line, on input that is not what it hopes for."""

import argparse
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import small_run, train_into
from matplotlib.figure import Figure

import zoorecall
from zoorecall import bench
from zoorecall.arguments import parser
from zoorecall.cli import main
from zoorecall.exits import exit_code

(COMMANDS,) = (
    action.choices for action in parser()._actions if isinstance(action, argparse._SubParsersAction)
)

NASTY = (
    "", ".", "/", "/proc", "no/such", "[b]", "[/usr/lib]", "$x^$", "{", "ü", "\udce4", "-1", "0",
    "1e999", "9" * 30, "x" * 300, "fig.xyz", "{name: [/b]}", "seed=[/b]",
)  # fmt: skip

GOOD = {
    "GRID": "grid.yaml", "DIR": "out", "OTHER": "out", "FILE": "made.svg", "KEY=VALUE": "seed=1",
    "S": "1", "MIXER": "attention", "D": "8", "L": "16", "R": "1",
}  # fmt: skip
"""What each kind of argument may be."""

GRID = """
base:
  task: {name: mqar, vocab_size: 32, seq_len: 12, num_kv_pairs: 2}
  model: {d_model: 8, num_layers: 1}
"""


@pytest.fixture(autouse=True)
def any_width(monkeypatch):
    """Lines in a pipe have any length where the environment names no width."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    """A working folder with a grid and results, for all tests of this file."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "grid.yaml").write_text(GRID)
    runs = tuple(small_run(learning_rate=rate, epochs=1) for rate in (1e-3, 1e-2))
    train_into(folder / "out", runs)
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def words_of(action: argparse.Action, word: str) -> list[str]:
    """An argument or option with this value."""
    if not action.option_strings:
        return [word]
    return [f"{action.option_strings[0]}={word}"]


def command_lines(name: str) -> Iterator[list[str]]:
    """The command with each of its arguments and options, in turn, at each nasty value."""
    actions = [action for action in COMMANDS[name]._actions if action.nargs != 0]
    needed = [action for action in actions if not action.option_strings and action.nargs is None]
    always = ["--dry-run"] if name == "sweep" else []
    for action in actions:
        others = [other for other in needed if other is not action]
        rest = [GOOD.get(str(other.metavar), "bash") for other in others]
        for word in NASTY:
            yield [name, *always, *words_of(action, word), *rest]


@pytest.mark.parametrize("name", COMMANDS)
def test_no_input_of_any_command_ends_in_a_traceback(name, folder, capsys, monkeypatch):
    """One line that says what is wrong, or what argparse says, or it works."""
    monkeypatch.setattr(bench, "bench", lambda *_: iter(()))
    monkeypatch.setattr(bench, "ceilings", lambda *_: bench.Ceilings(1.0, 1.0))
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: Path(path).write_bytes(b""))
    for words in command_lines(name):
        try:
            code = main(words)
        except SystemExit as error:
            assert error.code == 2 and "usage: " in capsys.readouterr().err, words
        else:
            err = capsys.readouterr().err
            assert (code, err.count("\n")) in ((0, 0), (2, 1)), (words, code, err)


def test_text_in_brackets_is_shown_as_it_is(folder, capsys):
    for text in ("[b]there", "[/usr/lib]there"):
        assert main(["sweep", text]) == 2
        assert capsys.readouterr().err.startswith(f"{text}:1: file: is not there")


def run(*words: str, **more) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "zoorecall.cli", *words]
    root = str(Path(zoorecall.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": root, **more.pop("env", {})}
    return subprocess.run(command, text=True, env=env, stderr=subprocess.PIPE, timeout=60, **more)


def test_a_full_disk_behind_the_output_is_one_line():
    with open("/dev/full", "w") as full:
        done = run("ls", str(Path(zoorecall.__file__).parents[1] / "grids"), stdout=full)
    assert (done.returncode, done.stderr) == (2, "output: No space left on device\n")


def test_a_pipe_that_nobody_reads_is_nothing_to_speak_of():
    read, write = os.pipe()
    os.close(read)
    done = run("--help", stdout=write)
    os.close(write)
    assert done.stderr == ""


def test_a_terminal_of_ascii_shows_an_umlaut_escaped(tmp_path):
    (tmp_path / "müll.yaml").write_text("description: Früh")
    ascii_only = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = run("ls", str(tmp_path), env=ascii_only, stdout=subprocess.PIPE)
    assert done.stderr == "" and "m\\xfcll.yaml" in done.stdout and "Fr\\xfch" in done.stdout


def test_an_output_that_fails_at_the_end_is_one_line(monkeypatch, capsys):
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    assert exit_code(lambda: print("a table")) == 2
    assert capsys.readouterr().err == "output: No space left on device\n"


def test_without_a_command_there_is_help_and_an_error_code(capsys):
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == "" and all(f"\n    {name}" in err for name in COMMANDS)


def test_it_says_its_version(capsys):
    with pytest.raises(SystemExit) as done:
        main(["--version"])
    assert done.value.code == 0
    assert capsys.readouterr().out == f"zoorecall {zoorecall.__version__}\n"


def test_ls_has_a_line_a_folder_and_a_grid(folder, tmp_path, capsys):
    (tmp_path / "first.yaml").write_text("description: What Li et al. have. And more.\n")
    (tmp_path / "notes").mkdir()
    (tmp_path / "trained").symlink_to(folder / "out")
    assert main(["ls", str(tmp_path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        [f"{tmp_path}/first.yaml", "grid", "What", "Li", "et", "al.", "have"],
        [f"{tmp_path}/trained", "2", "runs"],
    ]


def test_ls_lists_what_cannot_be_read_beside_the_rest(folder, tmp_path, capsys):
    (tmp_path / "a/runs.parquet").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/runs.parquet").write_text("no table")
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "trained").symlink_to(folder / "out")
    assert main(["ls", str(tmp_path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    kinds = [["unreadable"], ["unreadable"], ["grid"], ["2", "runs"]]
    assert [rest for _, *rest in lines] == kinds


def test_a_shell_completes_every_command(capsys):
    pytest.importorskip("shtab")
    assert main(["completion", "bash"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS) and "--dry-run" in out


def test_completion_says_what_it_needs(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert capsys.readouterr().err == (
        "completion: needs shtab; pip install 'zoorecall[completion]'\n"
    )


def test_bench_reads_mixers_as_a_grid_does(monkeypatch, capsys):
    measured = []
    monkeypatch.setattr(bench, "ceilings", lambda *_: bench.Ceilings(1.0, 1.0))
    monkeypatch.setattr(bench, "bench", lambda runs, *_: measured.extend(runs) or iter(()))
    assert main(["bench", "--device", "cpu", "--mixers", "{name: mamba, init_std: 2e-2}"]) == 0
    assert measured[0].model.mixer.init_std == 0.02
    assert main(["bench", "--mixers", "{name: mamba"]) == 2
    assert "--mixers {name: mamba: this is not YAML" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.epoch=5", "did you mean 'epochs'?"),
        ("epochs=5", "did you mean 'train.epochs'?"),
        ("model.mixer=atention", "did you mean 'attention'?"),
    ],
)
def test_a_misspelt_setting_is_met_with_the_right_one(override, says, folder, capsys):
    assert main(["sweep", "grid.yaml", "--dry-run", "--set", override]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "begins", "ends"),
    [
        (["plot"], b"\x89PNG", b"IEND\xaeB`\x82"),
        (["plot", "--format", "svg"], b"<?xml", b"</svg>\n"),
        (["report"], b"<!doctype html>", b"</html>"),
    ],
)
def test_a_figure_or_page_for_the_standard_output_is_all_that_comes_there(
    words, begins, ends, folder, capfdbinary
):
    command, *options = words
    assert main([command, "out", *options, "--out", "/dev/stdout"]) == 0
    out, err = capfdbinary.readouterr()
    assert out.lower().startswith(begins.lower()) and out.rstrip().endswith(ends.rstrip()), out[:9]
    assert err == b""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["bench", "--json"], "is no regular file, should be one"),
        (["sweep", "grid.yaml", "--out"], "is a file, should be a folder"),
        (["export", "out", "--out"], "Not a directory"),
        (["merge"], "no such results folder"),
    ],
)
def test_what_cannot_be_a_stream_says_so(words, says, folder, capsys):
    assert main([*words, "/dev/stdout"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("/dev/stdout: ") and says in err and err.count("\n") == 1


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_stream_that_is_closed_takes_nothing_and_stops_nothing(stream, folder, monkeypatch):
    """Where the shell closes one (`>&-`), Python has None."""
    monkeypatch.setattr(sys, stream, None)
    assert main(["ls", "."]) == 0
    monkeypatch.setattr(sys, stream, None)
    assert main(["table", "no such"]) == 2
    monkeypatch.setattr(sys, stream, None)
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])


@pytest.mark.parametrize("words", [*("--runs 0", "--runs 1.5", "--time nan"), "--time -1"])
@pytest.mark.parametrize("more", ["", "--checkpoint-seconds -1", "--give-up-seconds inf"])
def test_numbers_that_mean_nothing_are_refused_before_anything_is_read(words, more, capsys):
    for options in filter(None, (words, more)):
        with pytest.raises(SystemExit) as ended:
            main(["tune", "nowhere.yaml", *options.split()])
        assert ended.value.code == 2
        assert options.split()[0] in capsys.readouterr().err

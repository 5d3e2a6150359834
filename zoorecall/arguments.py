"""What each command of `cli` takes: its options, and the texts of `--help`.

Nothing heavy is imported, so that `--help` answers at once.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from .errors import UserError
from .version import __version__

FIGURES = (
    *("rates", "width", "depth", "parameters", "state_size"),
    *("dynamics", "ablations", "errors"),
)
"""What `plots.KINDS` has, which is not imported for `--help`."""

SAMPLERS, PRUNERS = ("window", "tpe", "gp", "grid"), ("plateau", "halving", "none")
"""What `search.SAMPLERS` and `search.PRUNERS` have, likewise."""


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; the arguments it finds have the name of theirs as `command`,
    which is empty where there is none."""
    top = argparse.ArgumentParser(
        prog="zoorecall",
        description="Does a sequence mixer recall? If not: its architecture or its learning rate?",
    )
    top.add_argument("--version", action="version", version=f"zoorecall {__version__}")
    top.set_defaults(command="")
    commands = top.add_subparsers(metavar="COMMAND")
    for name, (does, add) in COMMANDS.items():
        command = commands.add_parser(name, help=does)
        command.set_defaults(command=name)
        add(command)
    return top


# ---- what each takes


def _sweep(command: argparse.ArgumentParser) -> None:
    _training(command)
    again = command.add_mutually_exclusive_group()
    again.add_argument(
        "--resume", action="store_true", help="train only what is missing (the default)"
    )
    again.add_argument(
        "--fresh", action="store_true", help="move earlier results aside and train everything"
    )
    command.add_argument(
        "--part",
        metavar="I/N",
        type=_part,
        help="train the I-th of N shares of the grid into one DIR, e.g. in a Slurm array",
    )
    command.add_argument(
        "--executor",
        choices=["local", "ray"],
        default="local",
        help="what trains: this machine (the default), or a Ray cluster that sees DIR",
    )
    command.add_argument("--address", help="of the Ray cluster, e.g. auto (a new one, here)")


def _tune(command: argparse.ArgumentParser) -> None:
    _training(command)
    command.add_argument(
        "--sampler", choices=SAMPLERS, help="what asks for runs (window where it can be, or tpe)"
    )
    command.add_argument(
        "--pruner", choices=PRUNERS, default="plateau", help="what ends runs early (plateau)"
    )
    command.add_argument(
        "--runs", metavar="N", type=_runs, help="train at most so many runs in all"
    )
    command.add_argument(
        "--time", metavar="HOURS", type=_duration, help="start no run after so many hours"
    )
    command.add_argument(
        "--storage", metavar="URL", help="a database for several machines (a journal in DIR)"
    )


def _training(command: argparse.ArgumentParser) -> None:
    """What the commands that train have in common."""
    command.add_argument("grid", metavar="GRID", help="a YAML file, e.g. grids/quick.yaml")
    command.add_argument("--out", metavar="DIR", type=path, help="results folder (results/NAME)")
    command.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    command.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="override a setting, e.g. --set train.epochs=5",
    )
    command.add_argument(
        "--dry-run", action="store_true", help="print runs, FLOPs and memory; train nothing"
    )
    command.add_argument(
        "--checkpoint-seconds",
        metavar="S",
        type=_duration,
        default=60,
        help="how much training a crash may lose (60)",
    )
    command.add_argument(
        "--give-up-seconds",
        metavar="S",
        type=_duration,
        help="end a worker that says nothing for so long (never)",
    )
    command.add_argument(
        "--log",
        metavar="NAME",
        action="append",
        default=[],
        dest="loggers",
        help="log each evaluation too: tensorboard or wandb, into a folder of this name in DIR",
    )


def _merge(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", metavar="DIR", type=path)
    command.add_argument(
        "others",
        metavar="OTHER",
        type=path,
        nargs="*",
        help="folders whose runs are to be in DIR too",
    )


def _folders(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "folders",
        metavar="DIR",
        type=path,
        nargs="+",
        help="a results folder; the runs of several are told apart by a column `folder`",
    )


def _table(command: argparse.ArgumentParser) -> None:
    _folders(command)
    command.add_argument(
        "--format", choices=["text", "csv", "markdown", "json", "latex"], default="text"
    )


def _plot(command: argparse.ArgumentParser) -> None:
    _folders(command)
    command.add_argument(
        "--kind",
        choices=FIGURES,
        default="rates",
        help="accuracy against learning rates (the default), width, depth, parameters or state "
        "size; the course of training at the best rate; mixers against the first; what became of "
        "each run (tables do not hold which answers were wrong)",
    )
    command.add_argument(
        "--mixers",
        nargs="+",
        metavar="MIXER",
        default=(),
        help="these alone: one with all its variants, as gla, or as tables name it",
    )
    command.add_argument(
        "--labels", nargs="+", metavar="TEXT", default=(), help="what to call each of them"
    )
    command.add_argument(
        "--width", metavar="INCHES", type=_inches, default=5.5, help="of the figure (5.5)"
    )
    command.add_argument("--format", choices=["png", "pdf", "svg"], help="png, or as --out ends")
    command.add_argument(
        "--out", metavar="FILE", type=path, help="(KIND.png in DIR; of several folders, here)"
    )


def _report(command: argparse.ArgumentParser) -> None:
    _folders(command)
    command.add_argument(
        "--out", metavar="FILE", type=path, help="the page (report.html in DIR; of several, here)"
    )


def _show(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "what", metavar="TASK|DIR", help="a name, or a YAML mapping; or a results folder"
    )
    command.add_argument(
        "run_id", metavar="RUN_ID", nargs="?", help="of a folder; or how it begins"
    )
    command.add_argument(
        "--set",
        metavar="OPTION=VALUE",
        action="append",
        default=[],
        dest="options",
        help="an option of the task, e.g. --set seq_len=16",
    )
    command.add_argument("--number", metavar="N", type=_number, default=3, help="of examples (3)")


def _export(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", metavar="DIR", type=path)
    command.add_argument(
        "--to", metavar="NAME", default="tensorboard", help="tensorboard (the default) or wandb"
    )
    command.add_argument("--out", metavar="FOLDER", type=path, help="where NAME/ is made (DIR)")


def _bench(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--mixers",
        nargs="+",
        metavar="MIXER",
        default=["attention"],
        help="names, or YAML mappings",
    )
    command.add_argument("--widths", nargs="+", type=int, default=[64], metavar="D")
    command.add_argument("--lengths", nargs="+", type=int, default=[64], metavar="L")
    command.add_argument(
        "--packs",
        nargs="+",
        type=_pack_size,
        default=[None],
        metavar="R",
        help="runs in a pack; auto, the default: as many as a sweep would take",
    )
    command.add_argument("--layers", type=int, default=2)
    command.add_argument(
        "--batch-size", type=int, default=0, help="default: the papers', by length"
    )
    command.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="bf16")
    command.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    command.add_argument("--json", metavar="FILE", type=path, help="write into this file too")


def _schema(command: argparse.ArgumentParser) -> None:
    """Nothing."""


def _ls(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "folder", metavar="DIR", type=path, nargs="?", help="of both (results/ and grids/)"
    )


def _completion(command: argparse.ArgumentParser) -> None:
    command.add_argument("shell", choices=["bash", "zsh", "tcsh"])


COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "sweep": ("train every run of a grid into a results folder", _sweep),
    "tune": ("search the ranges of a grid, e.g. of learning rates", _tune),
    "merge": ("put a folder's finished runs into its two tables", _merge),
    "table": ("best learning rate, accuracy and window by setting", _table),
    "plot": ("draw a figure: accuracy against learning rate, ...", _plot),
    "report": ("write one HTML page: figure, summary, every run", _report),
    "show": ("print examples of a task, or one run of a folder", _show),
    "export": ("log finished runs to TensorBoard or wandb", _export),
    "bench": ("time training steps on this machine", _bench),
    "schema": ("print the JSON Schema of a grid file", _schema),
    "ls": ("list results folders and grids, a line each", _ls),
    "completion": ("print what completes commands in a shell", _completion),
}
"""Of each command what it does, and what adds its arguments."""


# ---- values


def path(text: str) -> Path:
    if not text:
        raise UserError("a path is empty; name a file or folder, e.g. --out results/quick")
    return Path(text)


def _part(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"'{text}' is no part as 1/4 is, the first of four")
    return int(part), int(parts)


def _number(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 1 to 1,000")
    return int(text)


def _runs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of runs, 1 or more")
    return int(text)


def _duration(text: str) -> float:
    try:
        duration = float(text)
    except ValueError:
        duration = -1.0
    if not 0 <= duration < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is no duration, a number from 0 up")
    return duration


def _pack_size(text: str) -> int | None:
    """A number of runs; None for `auto`."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is neither a number of runs nor auto")
    return int(text)


def _inches(text: str) -> float:
    try:
        width = float(text)
    except ValueError:
        width = 0.0
    if not 2 <= width <= 40:
        raise argparse.ArgumentTypeError(f"'{text}' is no width of 2 to 40 inches")
    return width

"""The command line: parsing and printing only; every command is a thin shell on the library.

Nothing heavy is imported before a command needs it, so that `--help` answers at once.
"""

import argparse
import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import Interrupted, SweepFailed, UserError
from .search_path import working_folder_last
from .version import __version__

if TYPE_CHECKING:
    from .sweeps.events import SweepEvent

USER_ERROR, RESUME, INTERRUPTED = 2, 75, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code, as `exit_code` has them."""
    sys.path[:] = working_folder_last(sys.path)  # before anything heavy is imported

    def command() -> int:
        args = _parser().parse_args(argv)
        return args.command(args)

    return exit_code(command)


def exit_code(command: Callable[[], int | None]) -> int:
    """Run a command or script; what goes wrong for its user becomes one line and an exit code:
    1 (some runs failed), 2 (bad input), 75 (a signal asked for the end: go on later), 130 (Ctrl-C).
    """
    nowhere = Path(os.devnull)  # in the place of what is closed
    sys.stdout, sys.stderr = (x or nowhere.open("w") for x in (sys.stdout, sys.stderr))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show, it shows escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return command() or 0
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt as error:
        with contextlib.suppress(ValueError):  # in a thread there is no signal to wait for
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # another would only hide the exit code
        notes = getattr(error, "__notes__", [])
        line = "; ".join(["\ninterrupted", *notes, "the same command goes on from here"])
        return _fail(line, RESUME if isinstance(error, Interrupted) else INTERRUPTED)
    except BrokenPipeError:  # e.g. `zoorecall table DIR | head`
        _discard_output()
        return 0
    except UserError as error:
        return _fail(error, USER_ERROR)
    except SweepFailed as error:
        return _fail(error, 1)
    except OSError as error:
        if error.filename is None:
            _discard_output()
        return _fail(f"{error.filename or 'output'}: {error.strerror or error}", USER_ERROR)


def _fail(reason: object, code: int) -> int:
    with contextlib.suppress(OSError):
        print(reason, file=sys.stderr, flush=True)
    return code


def _discard_output() -> None:
    """Let go of a standard output that takes no more, so that nothing is written to it at exit."""
    with contextlib.suppress(OSError):  # it is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _ending_signals() -> Iterator[None]:
    """Have the signals of a terminal that closes, of `kill` and of Slurm end the block as a Ctrl-C
    does, the first of them: several may come at once."""

    def end(number: int, frame: object) -> None:
        for each in before:
            signal.signal(each, lambda *_: None)
        raise Interrupted(signal.Signals(number).name)

    before = {}
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    """The parser of all commands; the arguments it finds have the function of theirs."""
    parser = argparse.ArgumentParser(
        prog="zoorecall",
        description="Does a sequence mixer recall? If not: its architecture or its learning rate?",
    )
    parser.add_argument("--version", action="version", version=f"zoorecall {__version__}")
    parser.set_defaults(command=_help)
    commands = parser.add_subparsers(metavar="COMMAND")

    sweep = commands.add_parser("sweep", help="train every run of a grid into a results folder")
    sweep.set_defaults(command=_sweep)
    _training(sweep)
    again = sweep.add_mutually_exclusive_group()
    again.add_argument(
        "--resume", action="store_true", help="train only what is missing (the default)"
    )
    again.add_argument(
        "--fresh", action="store_true", help="move earlier results aside and train everything"
    )
    sweep.add_argument(
        "--part",
        metavar="I/N",
        type=_part,
        help="train the I-th of N shares of the grid into one DIR, e.g. in a Slurm array",
    )
    sweep.add_argument(
        "--executor",
        choices=["local", "ray"],
        default="local",
        help="what trains: this machine (the default), or a Ray cluster that sees DIR",
    )
    sweep.add_argument("--address", help="of the Ray cluster, e.g. auto (a new one, here)")
    tune = commands.add_parser("tune", help="search the ranges of a grid, e.g. of learning rates")
    tune.set_defaults(command=_tune)
    _training(tune)
    tune.add_argument("--sampler", help="window, tpe, gp or grid (window, where it can be)")
    tune.add_argument("--pruner", default="plateau", help="plateau (the default), halving or none")
    tune.add_argument("--runs", metavar="N", type=_runs, help="train at most so many runs in all")
    tune.add_argument(
        "--time", metavar="HOURS", type=_duration, help="start no run after so many hours"
    )
    tune.add_argument(
        "--storage", metavar="URL", help="a database for several machines (a journal in DIR)"
    )

    merge = commands.add_parser("merge", help="put a folder's finished runs into its two tables")
    merge.set_defaults(command=_merge)
    merge.add_argument("folder", metavar="DIR", type=_path)
    merge.add_argument(
        "others",
        metavar="OTHER",
        type=_path,
        nargs="*",
        help="folders whose runs are to be in DIR too",
    )

    table = commands.add_parser("table", help="best learning rate, accuracy and window by setting")
    table.set_defaults(command=_table)
    _folders(table)
    table.add_argument(
        "--format", choices=["text", "csv", "markdown", "json", "latex"], default="text"
    )
    _add_plot(commands)

    report = commands.add_parser("report", help="write one HTML page: figure, summary, every run")
    report.set_defaults(command=_report)
    _folders(report)
    report.add_argument(
        "--out", metavar="FILE", type=_path, help="the page (report.html in DIR; of several, here)"
    )

    show = commands.add_parser("show", help="print examples of a task, or one run of a folder")
    show.set_defaults(command=_show)
    show.add_argument(
        "what", metavar="TASK|DIR", help="a name, or a YAML mapping; or a results folder"
    )
    show.add_argument("run_id", metavar="RUN_ID", nargs="?", help="of a folder; or how it begins")
    show.add_argument(
        "--set",
        metavar="OPTION=VALUE",
        action="append",
        default=[],
        dest="options",
        help="an option of the task, e.g. --set seq_len=16",
    )
    show.add_argument("--number", metavar="N", type=_number, default=3, help="of examples (3)")

    export = commands.add_parser("export", help="log finished runs to TensorBoard or wandb")
    export.set_defaults(command=_export)
    export.add_argument("folder", metavar="DIR", type=_path)
    export.add_argument(
        "--to", metavar="NAME", default="tensorboard", help="tensorboard (the default) or wandb"
    )
    export.add_argument("--out", metavar="FOLDER", type=_path, help="where NAME/ is made (DIR)")

    bench = commands.add_parser("bench", help="time training steps on this machine")
    bench.set_defaults(command=_bench)
    bench.add_argument(
        "--mixers",
        nargs="+",
        metavar="MIXER",
        default=["attention"],
        help="names, or YAML mappings",
    )
    bench.add_argument("--widths", nargs="+", type=int, default=[64], metavar="D")
    bench.add_argument("--lengths", nargs="+", type=int, default=[64], metavar="L")
    bench.add_argument(
        "--packs",
        nargs="+",
        type=_pack_size,
        default=[None],
        metavar="R",
        help="runs in a pack; auto, the default: as many as a sweep would take",
    )
    bench.add_argument("--layers", type=int, default=2)
    bench.add_argument("--batch-size", type=int, default=0, help="default: the papers', by length")
    bench.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="bf16")
    bench.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    bench.add_argument("--json", metavar="FILE", type=_path, help="write into this file too")

    schema = commands.add_parser("schema", help="print the JSON Schema of a grid file")
    schema.set_defaults(command=_schema)

    ls = commands.add_parser("ls", help="list results folders and grids, a line each")
    ls.set_defaults(command=_ls)
    ls.add_argument(
        "folder", metavar="DIR", type=_path, nargs="?", help="of both (results/ and grids/)"
    )

    completion = commands.add_parser("completion", help="print what completes commands in a shell")
    completion.set_defaults(command=_completion)
    completion.add_argument("shell", choices=["bash", "zsh", "tcsh"])
    return parser


def _folders(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "folders",
        metavar="DIR",
        type=_path,
        nargs="+",
        help="a results folder; the runs of several are told apart by a column `folder`",
    )


FIGURES = (
    *("rates", "width", "depth", "parameters", "state_size"),
    *("dynamics", "ablations", "errors"),
)
"""What `plots.KINDS` has, which is not imported for `--help`."""


def _add_plot(commands: Any) -> None:
    plot = commands.add_parser("plot", help="draw a figure: accuracy against learning rate, ...")
    plot.set_defaults(command=_plot)
    _folders(plot)
    plot.add_argument(
        "--kind",
        choices=FIGURES,
        default="rates",
        help="accuracy against learning rates (the default), width, depth, parameters or state "
        "size; the course of training at the best rate; mixers against the first; what became of "
        "each run (tables do not hold which answers were wrong)",
    )
    plot.add_argument(
        "--mixers",
        nargs="+",
        metavar="MIXER",
        default=(),
        help="these alone: one with all its variants, as gla, or as tables name it",
    )
    plot.add_argument(
        "--labels", nargs="+", metavar="TEXT", default=(), help="what to call each of them"
    )
    plot.add_argument(
        "--width", metavar="INCHES", type=_inches, default=5.5, help="of the figure (5.5)"
    )
    plot.add_argument("--format", choices=["png", "pdf", "svg"], help="png, or as --out ends")
    plot.add_argument(
        "--out", metavar="FILE", type=_path, help="(KIND.png in DIR; of several folders, here)"
    )


def _inches(text: str) -> float:
    try:
        width = float(text)
    except ValueError:
        width = 0.0
    if not 2 <= width <= 40:
        raise argparse.ArgumentTypeError(f"'{text}' is no width of 2 to 40 inches")
    return width


def _training(parser: argparse.ArgumentParser) -> None:
    """Add what the commands that train have in common."""
    parser.add_argument("grid", metavar="GRID", help="a YAML file, e.g. grids/quick.yaml")
    parser.add_argument("--out", metavar="DIR", type=_path, help="results folder (results/NAME)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="override a setting, e.g. --set train.epochs=5",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print runs, FLOPs and memory; train nothing"
    )
    parser.add_argument(
        "--checkpoint-seconds",
        metavar="S",
        type=_duration,
        default=60,
        help="how much training a crash may lose (60)",
    )
    parser.add_argument(
        "--give-up-seconds",
        metavar="S",
        type=_duration,
        help="end a worker that says nothing for so long (never)",
    )
    parser.add_argument(
        "--log",
        metavar="NAME",
        action="append",
        default=[],
        dest="loggers",
        help="log each evaluation too: tensorboard or wandb, into a folder of this name in DIR",
    )


def _help(args: argparse.Namespace) -> int:
    """No command at all: what there is, and the exit code of a missing argument."""
    _parser().print_help(sys.stderr)
    return USER_ERROR


def _ls(args: argparse.Namespace) -> int:
    from .listing import listing
    from .tables import plain_console

    folders = [args.folder] if args.folder else [Path("results"), Path("grids")]
    console = plain_console()
    for line in listing(folders):
        console.print(line, no_wrap=True, overflow="ellipsis")
    return 0


def _completion(args: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError:
        raise UserError("completion: needs shtab; pip install 'zoorecall[completion]'") from None
    print(shtab.complete(_parser(), shell=args.shell))
    return 0


def _path(text: str) -> Path:
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


def _sweep(args: argparse.Namespace) -> int:
    from .columns import RUN_ID
    from .grid import load_grid

    grid = load_grid(args.grid, args.overrides)
    from . import display
    from .loggers import logger
    from .sweeps.sweeper import default_folder, part_of, plan_groups, resolve_device, sweep

    folder = args.out or default_folder(grid)
    if args.dry_run:
        device = resolve_device(args.device)
        own = part_of(grid, args.part)
        groups = plan_groups(own, device, None if args.fresh else folder)
        display.print_plan(own, groups, device)
        return 0
    loggers = [logger(name) for name in args.loggers]
    with _ending_signals(), display.SweepDisplay() as shown:
        results = sweep(
            grid,
            folder,
            device=args.device,
            resume=not args.fresh,
            part=args.part,
            executor=args.executor,
            address=args.address,
            checkpoint_seconds=args.checkpoint_seconds,
            give_up_seconds=args.give_up_seconds,
            on_event=_each_of([shown.show, *loggers]),
        )
    if args.part and {run.run_id for run in grid.runs} - set(results.runs[RUN_ID]):
        return 0  # other parts train the rest
    _show_folder(folder)
    return 0


def _tune(args: argparse.Namespace) -> int:
    from .grid import load_space

    space = load_space(args.grid, args.overrides)
    from . import display, tables
    from .loggers import logger
    from .sweeps.tuner import default_folder, plan_search, table_of, tune

    folder = args.out or default_folder(space)
    options = {"sampler": args.sampler, "pruner": args.pruner, "runs": args.runs}
    if args.dry_run:
        display.print_plan(*plan_search(space, args.device, **options))
        return 0
    loggers = [logger(name) for name in args.loggers]
    with _ending_signals(), display.SweepDisplay() as shown:
        _, answers = tune(
            space,
            folder,
            device=args.device,
            **options,
            seconds=None if args.time is None else 3600 * args.time,
            storage=args.storage,
            checkpoint_seconds=args.checkpoint_seconds,
            give_up_seconds=args.give_up_seconds,
            on_event=_each_of([shown.show, *loggers]),
        )
    _show_folder(folder)
    print()
    tables.print_table(tables.readable(table_of(answers)))
    return 0


def _show_folder(folder: Path) -> None:
    """The table and the figure of a folder in which runs were trained."""
    _print_table([folder], "text")
    figure = folder / "learning_rates.png"
    _draw([folder], figure)
    print(f"\ntable   {folder / 'runs.csv'}\nfigure  {figure}")


def _each_of(listeners: "Sequence[Callable[[SweepEvent], None]]") -> "Callable[[SweepEvent], None]":
    """Tells each of the listeners every event."""

    def tell(event: "SweepEvent") -> None:
        for listen in listeners:
            listen(event)

    return tell


def _show(args: argparse.Namespace) -> int:
    from .show import read_task, show_run, show_task

    if args.run_id is None and args.what and Path(args.what).is_dir():
        ids = Path(args.what) / "runs.csv"
        raise UserError(f"show {args.what}: which run? Their ids are in {ids}")
    if args.run_id is None:
        lines = show_task(read_task(args.what, args.options), args.number)
    elif args.options:
        raise UserError("--set is for a task; a run of a folder has its settings")
    else:
        lines = show_run(_path(args.what), args.run_id, args.number)
    for line in lines:
        print(line)
    return 0


def _export(args: argparse.Namespace) -> int:
    from .loggers import logger
    from .sweeps.replay import replay

    into, log = args.out or args.folder, logger(args.to)
    for event in replay(args.folder, into):
        log(event)
    print(into / args.to)
    return 0


def _merge(args: argparse.Namespace) -> int:
    from .sweeps.merging import merge

    merge(args.folder, args.others)
    return 0


def _table(args: argparse.Namespace) -> int:
    _print_table(args.folders, args.format)
    return 0


def _print_table(folders: Sequence[Path], style: str) -> None:
    from . import tables
    from .analysis.summary import summarize
    from .results import load_folders

    found = summarize(load_folders(folders))
    table = found.table()
    if style == "csv":
        print(table.to_csv(index=False), end="")
    elif style == "json":
        print(table.to_json(orient="records", indent=1, double_precision=15))
    elif style == "markdown":
        print(tables.markdown(tables.readable(table)))
    elif style == "latex":
        print(tables.latex(found.for_paper()), end="")
    else:
        tables.print_table(tables.readable(table))


def _plot(args: argparse.Namespace) -> int:
    from .files import is_stream

    name = "learning_rates" if args.kind == "rates" else args.kind
    path = args.out or _default_place(args.folders) / f"{name}.{args.format or 'png'}"
    style = args.format or ("png" if is_stream(path) and not path.suffix else "")
    if style and not is_stream(path) and path.suffix.lower() != f".{style}":
        raise UserError(f"{path}: does not end with .{style}, as --format says")
    _draw(args.folders, path, args.kind, args.mixers, args.labels, args.width, style)
    _tell(path)
    return 0


def _tell(path: Path) -> None:
    """Say where a file is; not in the middle of one that goes to the standard output."""
    from .files import is_stream

    if not is_stream(path):
        print(path)


def _default_place(folders: Sequence[Path]) -> Path:
    """Where a figure or page of these folders goes: into the one, of several into none of them."""
    return folders[0] if len(folders) == 1 else Path()


def _report(args: argparse.Namespace) -> int:
    from .reporting import report

    _tell(report(args.folders, args.out or _default_place(args.folders) / "report.html"))
    return 0


def _draw(
    folders: Sequence[Path],
    path: Path,
    kind: str = "rates",
    mixers: Sequence[str] = (),
    labels: Sequence[str] = (),
    width: float = 5.5,
    style: str = "",
) -> None:
    from .plots import figure, save, selected
    from .results import load_folders

    save(figure(kind, selected(load_folders(folders), mixers, labels), width), path, style)


def _bench(args: argparse.Namespace) -> int:
    import itertools
    import json

    import torch
    from pydantic import ValidationError

    from . import display
    from .bench import bench, bench_run, ceilings, read_record, record
    from .files import is_stream, replacing
    from .grid.faults import in_words
    from .grid.yaml_nodes import Fault, parse_yaml
    from .sweeps.plan import check_fits
    from .sweeps.sweeper import resolve_device

    if args.json and is_stream(args.json):
        raise UserError(
            f"{args.json}: is no regular file, should be one; --json adds to what it has"
        )
    device = torch.device(resolve_device(args.device))
    torch.set_num_threads(1)  # as a sweep's workers have, one a core
    try:
        mixers = [parse_yaml(text, f"--mixers {text}").value for text in args.mixers]
        runs = [
            bench_run(mixer, width, length, args.layers, args.batch_size, precision=args.precision)
            for mixer, width, length in itertools.product(mixers, args.widths, args.lengths)
        ]
    except Fault as fault:
        raise UserError(f"bench: {str(fault).partition(': ')[2]}") from fault
    except ValidationError as error:
        raise UserError(f"bench: {in_words(error)}") from error
    check_fits(runs, device)
    earlier = read_record(args.json) if args.json and args.json.exists() else None
    limits, measurements = ceilings(device, args.precision), []
    for measurement in bench(runs, args.packs, device, limits):
        measurements.append(measurement)
        display.print_measurement(measurement)
        if args.json:  # each time, so that nothing is lost if the rest is
            table = record(measurements, device, limits, earlier)
            with replacing(args.json) as temporary:
                temporary.write_text(json.dumps(table, indent=1) + "\n")
    return 0


def _schema(args: argparse.Namespace) -> int:
    import json

    from .grid import grid_schema

    print(json.dumps(grid_schema(), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())

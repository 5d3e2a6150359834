"""The command line: every command is a thin shell on the library. `arguments` has what each takes.

Nothing heavy is imported before a command needs it, so that `--help` answers at once.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import arguments
from .errors import UserError
from .exits import USER_ERROR, ending_signals, exit_code
from .search_path import working_folder_last

if TYPE_CHECKING:
    from .sweeps.events import SweepEvent


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code, as `exit_code` has them."""
    sys.path[:] = working_folder_last(sys.path)  # before anything heavy is imported

    def command() -> int:
        args = arguments.parser().parse_args(argv)
        return COMMANDS[args.command](args)

    return exit_code(command)


def _help(args: argparse.Namespace) -> int:
    """No command at all: what there is, and the exit code of a missing argument."""
    arguments.parser().print_help(sys.stderr)
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
    print(shtab.complete(arguments.parser(), shell=args.shell))
    return 0


def _sweep(args: argparse.Namespace) -> int:
    from .columns import RUN_ID
    from .grid import load_grid

    grid = load_grid(args.grid, args.overrides)
    from . import display
    from .loggers import logger
    from .sweeps.sweeper import default_folder, part_of, plan_groups, resolve_device, sweep

    folder = args.out or default_folder(grid.name)
    if args.dry_run:
        device = resolve_device(args.device)
        own = part_of(grid, args.part)
        groups = plan_groups(own, device, None if args.fresh else folder)
        display.print_plan(own, groups, device)
        return 0
    loggers = [logger(name) for name in args.loggers]
    with ending_signals(), display.SweepDisplay() as shown:
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
    from .grid import load_grid, load_space

    space = load_space(args.grid, args.overrides)
    from . import display, tables
    from .loggers import logger
    from .results import GRID
    from .sweeps.sweeper import default_folder
    from .sweeps.tuner import plan_search, table_of, tune
    from .words import count

    folder = args.out or default_folder(space.name)
    options = {"sampler": args.sampler, "pruner": args.pruner, "runs": args.runs}
    if args.dry_run:
        display.print_plan(*plan_search(space, args.device, **options))
        return 0
    loggers = [logger(name) for name in args.loggers]
    with ending_signals(), display.SweepDisplay() as shown:
        results, answers = tune(
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
    if len(results):
        _show_folder(folder)
        print()
    if not answers:
        print("no run is over yet")
        return 0
    tables.print_table(tables.readable(table_of(answers)))
    grid = folder / GRID
    stated = load_grid(grid).runs if grid.exists() else ()
    if lacking := len(stated) - len(results):
        print(
            f"\nwithout a row: {count(lacking, 'run')}, pruned or failed, which `zoorecall sweep "
            f"{grid} --out {folder}` trains to the end"
        )
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
        lines = show_run(arguments.path(args.what), args.run_id, args.number)
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
    from .bench import bench, bench_run, ceilings, earlier_record, record
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
    earlier = earlier_record(args.json, device, args.precision) if args.json else None
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


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "": _help,
    "sweep": _sweep,
    "tune": _tune,
    "merge": _merge,
    "table": _table,
    "plot": _plot,
    "report": _report,
    "show": _show,
    "export": _export,
    "bench": _bench,
    "schema": _schema,
    "ls": _ls,
    "completion": _completion,
}
"""What each does, by its name in `arguments`."""


if __name__ == "__main__":
    sys.exit(main())

"""What a sweep looks like in a terminal."""

import math
import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType

import pandas as pd
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from .bench import Measurement
from .columns import short_labels
from .grid import Grid
from .model.cost import count_parameters
from .sweeps import events
from .sweeps.plan import PlannedPack, memory_bytes
from .tables import print_table


class SweepDisplay:
    """Follows a sweep's events: a live panel on a terminal, plain lines elsewhere."""

    LINE_SECONDS = 10  # between two plain lines
    PACE_SECONDS = 60  # over which the pace is taken

    def __init__(self, console: Console | None = None):
        self.console = console or Console(stderr=True, markup=False)
        self.started = self.last_line = time.monotonic()
        self.steps: dict[str, int] = {}  # of each pack, in this sweep
        self.first_steps: dict[str, int] = {}
        self.packs: dict[str, PlannedPack] = {}
        self.names: dict[str, str] = {}  # what to call each mixer
        self.trained: deque[tuple[float, float]] = deque()  # when, and how many run-steps by then
        self.finished: set[str] = set()
        self.failed: dict[str, str] = {}
        self.warned: set[str] = set()
        self.best: dict[str, float] = {}
        self.bar = Progress(
            TextColumn("{task.fields[finished]}"),
            BarColumn(),
            TextColumn("{task.fields[pace]}"),
            console=self.console,
        )
        self.task = self.bar.add_task("run-steps", total=None, finished="", pace="")
        self.live: Live | None = None

    def __enter__(self) -> "SweepDisplay":
        if self.console.is_terminal:
            self.live = Live(self._panel(), console=self.console, refresh_per_second=4)
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live:
            self.live.update(self._panel())
            self.live.stop()

    def show(self, event: events.SweepEvent) -> None:
        """Take in one event of the sweep."""
        match event:
            case events.Measuring(groups, device):
                shapes = "shape" if groups == 1 else "shapes"
                self._say(f"measuring pack sizes for {groups} {shapes} on {device}")
            case events.Started():
                self._start(event)
            case events.Progress(pack_id, step, accuracies, _):
                self.first_steps.setdefault(pack_id, step)
                self.steps[pack_id] = step
                self._take_pace()
                for run, accuracy in zip(self.packs[pack_id].runs, accuracies, strict=True):
                    name = setting(self.names[run.model.mixer.label], run.model.num_layers)
                    self.best[name] = max(accuracy, self.best.get(name, 0.0))
            case events.Finished(pack_id):
                self.finished.add(pack_id)
            case events.Split(pack_id, halves):
                whole = self.packs.pop(pack_id)
                self.packs |= {half.pack_id: half for half in halves}
                sizes = " and ".join(str(len(half.runs)) for half in halves)
                self._say(f"out of memory: {len(whole.runs)} runs go on as {sizes}")
            case events.Retried(pack_id, reason):
                self._say(f"pack {pack_id}: {reason}; it goes on from its last checkpoint")
            case events.Failed(pack_id, reason):
                self.failed[pack_id] = reason
                self._say(f"pack {pack_id} failed: {reason}")
            case events.Warned(_, text):
                if text not in self.warned:
                    self.warned.add(text)
                    self._say(f"warning: {text}")
        if self.live:
            self.live.update(self._panel())
        else:
            self._line(isinstance(event, events.Finished))

    def _start(self, event: events.Started) -> None:
        self.packs = {pack.pack_id: pack for pack in event.packs}
        runs = [run for pack in event.packs for run in pack.runs]
        self.names = short_labels(run.model.mixer.label for run in runs)
        kept = f"; {event.finished_runs} finished before" if event.finished_runs else ""
        self._say(
            f"{len(runs)} runs in {len(event.packs)} packs on {event.device} "
            f"into {event.folder}{kept}"
        )

    def _say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _run_steps(self) -> tuple[float, float]:
        """Run-steps (steps times runs) trained in this sweep, and still to train."""
        done = left = 0.0
        for pack_id, pack in self.packs.items():
            if pack_id in self.failed:
                continue
            total, step = pack.runs[0].train.num_steps, self.steps.get(pack_id, 0)
            done += (step - self.first_steps.get(pack_id, 0)) * len(pack.runs)
            left += 0 if pack_id in self.finished else (total - step) * len(pack.runs)
        return done, left

    def _take_pace(self) -> None:
        """Note how many run-steps are trained; not before the first, as they compile."""
        done, now = self._run_steps()[0], time.monotonic()
        if done:
            self.trained.append((now, done))
        while len(self.trained) > 2 and self.trained[1][0] < now - self.PACE_SECONDS:
            self.trained.popleft()

    def _pace(self) -> str:
        now = time.monotonic()
        elapsed = f"{clock(now - self.started)} elapsed"
        done, left = self._run_steps()
        since, before = self.trained[0] if self.trained else (now, done)
        if done <= before or now <= since:
            return elapsed
        pace = (done - before) / (now - since)
        return f"{pace:,.0f} run-steps/s, {elapsed}, {clock(left / pace)} left"

    def _panel(self) -> Group:
        each = self.packs.values()
        total = sum(len(pack.runs) * pack.runs[0].train.num_steps for pack in each)
        runs = sum(len(pack.runs) for pack in each)
        done = sum(len(self.packs[pack_id].runs) for pack_id in self.finished)
        self.bar.update(
            self.task,
            total=total or None,
            completed=total - self._run_steps()[1],
            finished=f"{done}/{runs} runs, {len(self.finished)}/{len(self.packs)} packs",
            pace=self._pace(),
        )
        table = Table("mixer", "layers", "best accuracy so far", box=None, pad_edge=False)
        for name, accuracy in sorted(self.best.items(), key=lambda item: -item[1]):
            mixer, layers = name.rsplit(" x", 1)
            table.add_row(mixer, layers, f"{accuracy:.3f}")
        return Group(self.bar, table)

    def _line(self, always: bool) -> None:
        if always or time.monotonic() - self.last_line > self.LINE_SECONDS:
            self.last_line = time.monotonic()
            best = ", ".join(f"{name} {accuracy:.2f}" for name, accuracy in self.best.items())
            self._say(f"{len(self.finished)}/{len(self.packs)} packs, {self._pace()}; best: {best}")


def setting(mixer: str, num_layers: int) -> str:
    return f"{mixer} x{num_layers}"


def clock(duration: float) -> str:
    """Seconds as people say them: 42s, 3:07, 2:03:07."""
    seconds = round(duration)
    if seconds < 60:
        return f"{seconds}s"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def print_plan(grid: Grid, packs: Sequence[PlannedPack], device: str) -> None:
    """What a sweep would train, by setting, without training it."""
    rows: dict[tuple, list] = {}
    names_of = short_labels(pack.runs[0].model.mixer.label for pack in packs)
    for pack in packs:
        run = pack.runs[0]
        mixer = names_of[run.model.mixer.label]
        key = (mixer, run.model.num_layers, run.model.d_model, run.task.seq_len)
        row = rows.setdefault(key, [0, 0, 0, 0, 0.0, 0, 0.0])
        sequences = run.train.num_steps * run.train.batch_size * len(pack.runs)
        row[0] += len(pack.runs)
        row[1] += 1
        row[2] = max(row[2], len(pack.runs))
        row[3] = count_parameters(run)
        row[4] += sequences * run.task.seq_len
        row[5] += math.nan if pack.flops is None else pack.flops
        row[6] = max(row[6], memory_bytes(run) * len(pack.runs))
    names = ("mixer", "layers", "width", "length", "runs", "packs", "pack size", "parameters")
    table = pd.DataFrame(
        [
            (*key, *row[:4], f"{row[4]:.2e}", _flops(row[5]), f"{row[6] / 2**30:.2f}")
            for key, row in rows.items()
        ],
        columns=[*names, "tokens", "FLOPs", "GiB a pack"],
    )
    done = len(grid.runs) - int(table["runs"].sum())
    print_table(table)
    Console().print(
        f"{table['runs'].sum()} runs in {table['packs'].sum()} packs on {device}"
        + (f"; {done} more are finished" if done else "")
        + ("; pack sizes are estimates, a sweep measures them" if device == "cuda" else ""),
        highlight=False,
    )


def _flops(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2e}"


def print_measurement(measurement: Measurement, first: bool) -> None:
    """One line of a benchmark, as soon as it is known."""
    names = "mixer layers width length batch pack ms/run-step tokens/s FLOP/s bytes/s GiB first,s"
    form = "{:28} {:>6} {:>5} {:>6} {:>5} {:>4} {:>11} {:>9} {:>6} {:>7} {:>6} {:>7}"
    m = measurement
    lines = [form.format(*names.split())] if first else []
    lines.append(
        form.format(
            *(m.mixer, m.num_layers, m.d_model, m.seq_len, m.batch_size, m.pack_size),
            *(f"{m.ms_per_run_step:.3f}", f"{m.tokens_per_second:.2e}"),
            *("-" if m.flops_share is None else f"{m.flops_share:.1%}", f"{m.bytes_share:.1%}"),
            *(f"{m.peak_gib:.2f}", f"{m.first_step_seconds:.1f}"),
        )
    )
    Console(soft_wrap=True, markup=False).print("\n".join(lines), highlight=False)

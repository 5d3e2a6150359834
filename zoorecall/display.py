"""What a sweep looks like in a terminal."""

import time
from collections.abc import Sequence
from types import TracebackType

import pandas as pd
import torch
from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from .bench import RECORDS, Measurement, estimated_hours
from .columns import short_labels
from .grid import Grid
from .model.cost import count_parameters
from .sweeps import events
from .sweeps.plan import PlannedPack, memory_bytes
from .tables import plain_console, print_table
from .words import count


class SweepDisplay:
    """Follows a sweep's events: a live panel on a terminal, plain lines elsewhere."""

    LINE_SECONDS = 10  # between two plain lines
    PACE_SECONDS = 60  # over which the pace is taken
    SHARE_OF_A_PACK = (
        0.1  # that is trained before time left is told: early on evaluations are dense
    )

    def __init__(self, console: Console | None = None):
        self.console = console or plain_console(stderr=True)
        self.last_line = time.monotonic()
        self.steps: dict[str, int] = {}  # of each pack, in this sweep
        self.first_steps: dict[str, int] = {}
        self.packs: dict[str, PlannedPack] = {}
        self.names: dict[str, str] = {}  # what to call each mixer
        self.finished: set[str] = set()
        self.failed: dict[str, str] = {}
        self.warned: set[str] = set()
        self.best: dict[str, float] = {}
        self.bar = Progress(
            TextColumn("{task.fields[finished]}"),
            BarColumn(),
            TextColumn("{task.fields[pace]}"),
            console=self.console,
            speed_estimate_period=self.PACE_SECONDS,
            get_time=time.monotonic,
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
        self._advance()
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
        self.console.print(line, soft_wrap=True)

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

    def _advance(self) -> None:
        """Tell the bar how far the sweep is; what it has to do it learns once a pace means
        something, and again where a pack goes on from a checkpoint or fails."""
        done, left = self._run_steps()
        runs = sum(len(pack.runs) for pack in self.packs.values())
        finished = sum(len(self.packs[pack_id].runs) for pack_id in self.finished)
        begun = self.bar.tasks[0].total is not None or any(
            step >= self.SHARE_OF_A_PACK * self.packs[pack_id].runs[0].train.num_steps
            for pack_id, step in self.steps.items()
            if pack_id in self.packs
        )
        self.bar.update(
            self.task,
            total=done + left if begun else None,
            completed=done,
            finished=f"{finished}/{runs} runs, {len(self.finished)}/{len(self.packs)} packs",
        )
        self.bar.update(self.task, pace=self._pace())

    def _pace(self) -> str:
        """How fast the sweep trains, how long it has, and how long it still will."""
        task = self.bar.tasks[0]
        elapsed = f"{clock(task.elapsed or 0)} elapsed"
        if task.total is None or task.speed is None or task.time_remaining is None:
            return elapsed
        return f"{task.speed:,.0f} run-steps/s, {elapsed}, {clock(task.time_remaining)} left"

    def _panel(self) -> Group:
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
    groups: dict[str, list[PlannedPack]] = {}
    for pack in packs:
        groups.setdefault(pack.runs[0].pack_key, []).append(pack)
    names = short_labels(group[0].runs[0].model.mixer.label for group in groups.values())
    settings: dict[tuple[object, ...], list[PlannedPack]] = {}
    for group in groups.values():
        run = group[0].runs[0]
        mixer = names[run.model.mixer.label]
        key = (mixer, run.model.num_layers, run.model.d_model, run.task.seq_len)
        settings.setdefault(key, []).extend(group)
    telling = ("mixer", "layers", "width", "length")
    rows = [
        dict(zip(telling, key, strict=True)) | _planned(group) for key, group in settings.items()
    ]
    if rows:
        print_table(pd.DataFrame(rows))
    runs = sum(len(pack.runs) for pack in packs)
    done = len(grid.runs) - runs
    line = (
        f"{runs} runs in {len(packs)} packs on {device}"
        + (f"; {done} more are finished" if done else "")
        + ("; pack sizes are estimates, a sweep measures them" if device == "cuda" else "")
    )
    console = plain_console()
    console.print(line)
    if packs:
        console.print(_hours(packs, device))


def _planned(packs: Sequence[PlannedPack]) -> dict[str, object]:
    """The row of a plan for the packs of one setting."""
    run, flops = packs[0].runs[0], [pack.flops for pack in packs]
    tokens = sum(pack.sequences * pack.runs[0].task.seq_len for pack in packs)
    return {
        "runs": sum(len(pack.runs) for pack in packs),
        "packs": len(packs),
        "pack size": max(len(pack.runs) for pack in packs),
        "parameters": count_parameters(run),
        "tokens": f"{tokens:.2e}",
        "FLOPs": "-" if None in flops else f"{sum(x or 0 for x in flops):.2e}",
        "GiB a pack": f"{max(memory_bytes(x.runs[0]) * len(x.runs) for x in packs) / 2**30:.2f}",
    }


def _hours(packs: Sequence[PlannedPack], device: str) -> str:
    """How long the steps of a plan take, where steps like them were measured."""
    place = torch.device(device)
    hours, unknown = estimated_hours(packs, place)
    unit = "GPU-hours" if device == "cuda" else "core-hours"
    advice = f"`zoorecall bench --json {RECORDS}/NAME.json` measures them"
    if unknown == sum(len(pack.runs) for pack in packs):
        return f"hours are not known, as no steps like these were measured on this device; {advice}"
    rest = f"; of {unknown} runs none are measured, {advice}" if unknown else ""
    return (
        f"about {hours:.2g} {unit} of training steps, by those that {RECORDS} has of this device, "
        f"scaled by FLOPs; compiling and evaluating come on top{rest}"
    )


def print_measurement(measurement: Measurement) -> None:
    """What a benchmark found, as soon as it is known."""
    m = measurement
    flops = "" if m.flops_share is None else f"{m.flops_share:.1%} of FLOP/s, "
    memory = f", {m.peak_gib:.2f} GiB" if m.peak_gib else ""
    lines = (
        f"{m.mixer}, {count(m.num_layers, 'layer')}, width {m.d_model}, length {m.seq_len}, "
        f"batch {m.batch_size}, {count(m.pack_size, 'run')} a pack",
        f"{m.ms_per_run_step:.3f} ms a run-step, {m.tokens_per_second:.2e} tokens/s, "
        f"{flops}{m.bytes_share:.1%} of bytes/s{memory}, first step {m.first_step_seconds:.1f} s",
    )
    console = plain_console()
    console.print(lines[0])
    console.print(Padding(lines[1], (0, 0, 0, 2), expand=False))

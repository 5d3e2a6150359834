"""What a sweep looks like in a terminal."""

import time
from collections.abc import Mapping, Sequence
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
from .config import RunConfig
from .grid import Grid
from .model.cost import count_parameters
from .sweeps import events
from .sweeps.plan import RunGroup, memory_bytes
from .tables import plain_console, print_table
from .words import count


class SweepDisplay:
    """Follows a sweep's events: a live panel on a terminal, plain lines elsewhere."""

    LINE_SECONDS = 10  # between two plain lines
    PACE_SECONDS = 60  # over which the pace is taken
    SHARE_OF_A_RUN = 0.1  # that is trained before time left is told: early on evaluations are dense

    def __init__(self, console: Console | None = None):
        self.console = console or plain_console(stderr=True)
        self.last_line = time.monotonic()
        self.runs: dict[str, RunConfig] = {}
        self.steps: dict[str, int] = {}  # of each run
        self.done = 0  # run-steps, in this sweep
        self.names: dict[str, str] = {}  # what to call each mixer
        self.ended: set[str] = set()  # finished, pruned or failed
        self.finished = 0
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
            case events.Started():
                self._start(event)
            case events.Asked(groups):
                self._add(groups)
            case events.Progress(steps, evaluations):
                self._take_steps(steps)
                for evaluation in evaluations:
                    run, values = self.runs[evaluation.run_id], evaluation.values
                    name = setting(self.names[run.model.mixer.label], run.model.num_layers)
                    accuracy = values.get("test_accuracy", 0.0)
                    self.best[name] = max(accuracy, self.best.get(name, 0.0))
            case events.Finished(run_ids):
                self.ended.update(run_ids)
                self.finished += len(run_ids)
            case events.Pruned(run_ids):
                self.ended.update(run_ids)
            case events.Reduced(run_ids, slots):
                self._say(f"out of memory: {len(run_ids)} runs go on, {slots} at once")
            case events.Retried(run_ids, reason):
                self._say(f"{count(len(run_ids), 'run')}: {reason}; on from the last checkpoint")
            case events.Failed(run_ids, reason):
                self.ended.update(run_ids)
                first = self.runs[run_ids[0]].model.mixer.label
                self._say(f"{count(len(run_ids), 'run')} of {first} failed: {reason}")
            case events.Unmerged(folder, missing):
                rest = f"{count(missing, 'run')} of others are not" if missing else "others end now"
                self._say(
                    f"this part is finished, {rest}; the last part makes the tables, or "
                    f"`zoorecall merge {folder}`"
                )
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
        self._add(event.groups)
        kept = f"; {event.finished_runs} finished before" if event.finished_runs else ""
        what = "searching" if event.is_search else amount(event.groups)
        self._say(f"{what} on {event.device} into {event.folder}{kept}")

    def _add(self, groups: Sequence[RunGroup]) -> None:
        self.runs |= {run.run_id: run for group in groups for run in group.runs}
        self.names = short_labels(run.model.mixer.label for run in self.runs.values())

    def _say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True)

    def _take_steps(self, steps: Mapping[str, int]) -> None:
        """Runs are now at these steps; one that was not heard of before goes on from there."""
        for run_id, step in steps.items():
            self.done += max(0, step - self.steps.get(run_id, step))
            self.steps[run_id] = step

    def _left(self) -> int:
        """Run-steps (steps times runs) still to train."""
        waiting = self.runs.keys() - self.ended
        return sum(self.runs[x].train.num_steps - self.steps.get(x, 0) for x in waiting)

    def _advance(self) -> None:
        """Tell the bar how far the sweep is; what it has to do it learns once a pace means
        something, and again where a run goes on from a checkpoint, stops early or fails."""
        begun = self.bar.tasks[0].total is not None or any(
            step >= self.SHARE_OF_A_RUN * self.runs[run_id].train.num_steps
            for run_id, step in self.steps.items()
        )
        self.bar.update(
            self.task,
            total=self.done + self._left() if begun else None,
            completed=self.done,
            finished=f"{self.finished}/{len(self.runs)} runs",
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
            told = f"; best: {best}" if best else ""
            self._say(f"{self.finished}/{len(self.runs)} runs, {self._pace()}{told}")


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


def amount(groups: Sequence[RunGroup]) -> str:
    """How much there is to train."""
    runs = sum(len(group.runs) for group in groups)
    return f"{count(runs, 'run')} of {count(len(groups), 'shape')}" if runs else "nothing to train"


def print_plan(grid: Grid, groups: Sequence[RunGroup], device: str) -> None:
    """What a sweep would train, by setting, without training it."""
    names = short_labels(group.runs[0].model.mixer.label for group in groups)
    settings: dict[tuple[object, ...], list[RunGroup]] = {}
    for group in groups:
        run = group.runs[0]
        mixer = names[run.model.mixer.label]
        key = (mixer, run.model.num_layers, run.model.d_model, run.task.seq_len)
        settings.setdefault(key, []).append(group)
    telling = ("mixer", "layers", "width", "length")
    rows = [dict(zip(telling, key, strict=True)) | _planned(each) for key, each in settings.items()]
    if rows:
        print_table(pd.DataFrame(rows))
    done = len(grid.runs) - sum(len(group.runs) for group in groups)
    line = f"{amount(groups)} on {device}" + (f"; {done} more are finished" if done else "")
    console = plain_console()
    console.print(line)
    if groups:
        console.print(_hours(groups, device))


def _planned(groups: Sequence[RunGroup]) -> dict[str, object]:
    """The row of a plan for the groups of one setting."""
    run, flops = groups[0].runs[0], [group.flops for group in groups]
    tokens = sum(group.sequences * group.runs[0].task.seq_len for group in groups)
    return {
        "runs": sum(len(group.runs) for group in groups),
        "at once": max(group.slots for group in groups),
        "parameters": count_parameters(run),
        "tokens": f"{tokens:.2e}",
        "FLOPs": "-" if None in flops else f"{sum(x or 0 for x in flops):.2e}",
        "GiB": f"{max(memory_bytes(x.runs[0]) * x.slots for x in groups) / 2**30:.2f}",
    }


def _hours(groups: Sequence[RunGroup], device: str) -> str:
    """How long the steps of a plan take, where steps like them were measured."""
    place = torch.device(device)
    hours, unknown = estimated_hours(groups, place)
    unit = "GPU-hours" if device == "cuda" else "core-hours"
    advice = f"`zoorecall bench --json {RECORDS}/NAME.json` measures them"
    if unknown == sum(len(group.runs) for group in groups):
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
    evaluations = ""
    if m.evaluation_share is not None:
        evaluations = f", evaluations {m.evaluation_share:.1%} on top"
    lines = (
        f"{m.mixer}, {count(m.num_layers, 'layer')}, width {m.d_model}, length {m.seq_len}, "
        f"batch {m.batch_size}, {count(m.pack_size, 'run')} a pack",
        f"{m.ms_per_run_step:.3f} ms a run-step, {m.tokens_per_second:.2e} tokens/s, "
        f"{flops}{m.bytes_share:.1%} of bytes/s{memory}, first step {m.first_step_seconds:.1f} s"
        f"{evaluations}",
    )
    console = plain_console()
    console.print(lines[0])
    console.print(Padding(lines[1], (0, 0, 0, 2), expand=False))

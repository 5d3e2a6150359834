"""Examples of a task, and one run of a results folder, as people read them."""

import itertools
import json
import math
import sys
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from . import columns
from .checkpoints import weights_path
from .config import RunConfig
from .errors import ResultsError, UserError, ZoorecallWarning
from .grid.faults import in_words
from .grid.yaml_nodes import Fault, parse_yaml, suggest
from .model.kept import load_model
from .model.model import Model
from .results import GRID, load_results, read_rows
from .tasks import Examples, Task, TaskConfig, make_task
from .words import count, missing, percent, value

WIDTH = 78
"""Characters of a line."""

REPEATED = 4
"""So many of the same word in a row are counted, not written out."""

EXAMINED = 256
"""Test examples that a kept model answers."""

EVALUATIONS = 16
"""Those of a curve that are shown, at most."""


def read_task(text: str, options: Sequence[str] = ()) -> TaskConfig:
    """The task of a name or a YAML mapping, with options such as `seq_len=16`; raises UserError."""
    try:
        task: Any = parse_yaml(text).value
        task = {"name": task} if isinstance(task, str) else task
        for option in options:
            key, equals, given = option.partition("=")
            if not equals:
                raise UserError(f"--set {option}: has no value, should be like seq_len=16")
            if isinstance(task, dict):
                task = task | {key.strip().removeprefix("task."): parse_yaml(given).value}
        return RunConfig.model_validate({"task": task}).task
    except Fault as fault:
        raise UserError(f"show: line {fault}") from None
    except ValidationError as error:
        raise UserError(f"show: {in_words(error)}") from None


def show_task(config: TaskConfig, number: int) -> Iterator[str]:
    """What a task is, its options, and its first test examples, line by line."""
    task, fields = make_task(config), type(config).model_fields
    examples = _examples(task, number, RunConfig().seed)
    yield _filled(f"{config.name}  {_purpose(task)}", "  ")
    tokens, answers = count(config.seq_len, "token"), count(config.num_queries, "answer")
    yield f"  {tokens}, {answers}, vocabulary {config.vocab_size:,}\n"
    options = {name: x for name, x in config.model_dump().items() if name != "name"}
    for name, x in options.items():
        yield _entry(name, value(x), fields[name].description or "")
    yield "\n  [x] is the answer asked for at its place"
    for i in range(number):
        words = [task.word(x) for x in examples.targets[i].tolist()]
        yield f"\n{_sentence(task, examples, i, words)}"


def show_run(folder: Path, prefix: str, number: int) -> Iterator[str]:
    """A run's settings, what came of it, its curve, and its first wrong answers, line by line.

    `prefix` is its id or so much of it that no other run's begins so. Raises UserError where the
    folder has no such run, or cannot be read.
    """
    results = load_results(folder)
    configs = read_rows(folder).set_index(columns.RUN_ID)[columns.CONFIG]
    run_id = _whole_id(prefix, list(configs.index), folder)
    row = results.runs.set_index(columns.RUN_ID).loc[run_id]
    yield f"run {run_id} of {folder}"
    yield _filled(f"  {row[columns.MIXER]}", "  ")
    yield "\nsettings that are not at their defaults"
    for name, x in columns.flat(columns.identity(json.loads(configs[run_id]))).items():
        yield _entry(name, value(x))
    yield "\nwhat came of it"
    for column in columns.COLUMNS:
        if column.decided_by in ("training", "task") and column.name in row:
            unit = "" if column.unit in ("", "share") else f" {column.unit}"
            shown = "-" if missing(row[column.name]) else f"{value(row[column.name])}{unit}"
            yield _entry(columns.name(column.name), shown, column.meaning)
    for name, column_name in columns.slices(row.index).items():
        if not missing(row[column_name]):
            yield _entry(name, value(row[column_name]), "share of its answers")
    curve = results.curves[results.curves[columns.RUN_ID] == run_id]
    yield "\nits curve"
    yield from _curve(curve.to_dict("records"))
    yield "\nits answers"
    weights = weights_path(folder, run_id)
    if weights.exists():
        yield from _answers_of(configs[run_id], weights, number)
    else:
        kept = row[columns.KEEP] == "weights"
        gone = f"  {weights} is missing, so what it got wrong is not known"
        yield _filled(gone if kept else _how_to_keep(folder), "  ")


def _answers_of(config: str, weights: Path, number: int) -> Iterator[str]:
    """What a kept model says of its run's first test examples, in float32 on the CPU."""
    with warnings.catch_warnings(record=True) as caught:  # of code that was edited since
        warnings.simplefilter("always", ZoorecallWarning)
        model = load_model(config, weights)
    for warning in caught:
        yield _filled(f"  {warning.message}", "  ")
    run = RunConfig.model_validate_json(config)
    task, n = make_task(run.task), min(EXAMINED, run.train.test_examples)
    examples = _examples(task, n, run.data_seed)
    said = _answers(model, examples)  # [n, Q]
    right = said == examples.targets
    wrong = int((~right).sum())
    yield f"  {right.sum():,} of {right.size:,} right on the first {count(n, 'test example')}"
    for i, name in enumerate(run.task.slices):
        of_slice = right[examples.slices == i]
        yield f"  {name}: {of_slice.sum():,} of {of_slice.size:,}"
    if wrong:
        present = (examples.tokens[:, None, :] == said[:, :, None]).any(axis=2)  # [n, Q]
        there = int((present & ~right).sum())
        yield f"  {percent(there / wrong)} of the wrong answers are tokens of their example"
        yield "\n  [x] is right; [x, not y]: x is right, and y was said"
    for i in np.flatnonzero(~right.all(axis=1))[:number].tolist():
        pairs = zip(examples.targets[i].tolist(), said[i].tolist(), strict=True)
        words = [(task.word(x), task.word(y)) for x, y in pairs]
        answers = [x if x == y else f"{x}, not {y}" for x, y in words]
        yield f"\n{_sentence(task, examples, i, answers)}"


@torch.no_grad()
def _answers(model: Model, examples: Examples) -> np.ndarray:
    """The most likely answers, [n, Q]."""
    said = []
    for start in range(0, len(examples.tokens), 32):
        batch = slice(start, start + 32)
        tokens, positions = (
            torch.from_numpy(x[batch]).long()[None]
            for x in (examples.tokens, examples.query_positions)
        )
        said.append(model(tokens, positions).argmax(-1)[0].numpy())
    return np.concatenate(said)


def _how_to_keep(folder: Path) -> str:
    grid = folder / GRID
    which = str(grid) if grid.exists() else "GRID"
    return (
        "  its weights were not kept, so what it got wrong is not known; to see it, train again: "
        f"zoorecall sweep {which} --set train.keep=weights --out ANOTHER_FOLDER"
    )


def _whole_id(prefix: str, ids: Sequence[str], folder: Path) -> str:
    """The one id that begins so."""
    found = [run_id for run_id in ids if run_id.startswith(prefix)]
    if len(found) == 1:
        return found[0]
    if found:
        some = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
        raise ResultsError(f"{folder}: {len(found)} runs begin with {prefix!r}: {some}")
    hint = suggest(prefix, ids)
    hint = hint if hint.startswith("did") else f"its runs are in {folder / 'runs.csv'}"
    raise ResultsError(f"{folder}: there is no run {prefix!r}, {hint}")


def _curve(rows: Sequence[Mapping[Any, Any]]) -> Iterator[str]:
    """A line an evaluation, with a bar for the accuracy."""
    shown = sorted({round(i) for i in np.linspace(0, len(rows) - 1, EVALUATIONS)})
    yield f"  {'step':>8} {'train loss':>11} {'test loss':>10} {'accuracy':>9}"
    for row in (rows[i] for i in shown):
        losses = (row["train_loss"], row["test_loss"])
        train, test = ("-" if math.isnan(x) else f"{x:.3f}" for x in losses)
        accuracy = row["test_accuracy"]
        line = f"  {row['step']:>8} {train:>11} {test:>10} {accuracy:>9.3f}  "
        yield (line + "#" * round(accuracy * (WIDTH - len(line)))).rstrip()


def _examples(task: Task, n: int, seed: int) -> Examples:
    try:
        return task.examples(n, seed, "test")
    except ValueError as error:
        raise UserError(f"show: {error}") from None


def _sentence(task: Task, examples: Examples, i: int, answers: Sequence[str]) -> str:
    """Example i in words, each query's answer in brackets behind its token."""
    names, slices = task.config.slices, examples.slices[i].tolist()
    notes: dict[int, str] = {}
    for q, position in enumerate(examples.query_positions[i].tolist()):
        of = f" {names[slices[q]]}" if slices and slices[q] >= 0 else ""
        notes[position] = notes.get(position, "") + f"[{answers[q]}]{of}"
    words = [task.word(x) + notes.get(j, "") for j, x in enumerate(examples.tokens[i].tolist())]
    text = []
    for word, same in itertools.groupby(words):
        times = len(list(same))
        text += [word] * times if times < REPEATED else [f"({times} x {word})"]
    return _filled(f"{i + 1:>4}  " + " ".join(text), " " * 6)


def _purpose(task: Task) -> str:
    """The first paragraph of its file."""
    text = sys.modules[type(task).__module__].__doc__ or ""
    return " ".join(text.partition("\n\n")[0].split())


def _entry(name: str, shown: str, meaning: str = "") -> str:
    return _filled(f"  {name:<23}  {shown:<13}  {meaning}".rstrip(), " " * 42)


def _filled(text: str, indent: str) -> str:
    return textwrap.fill(
        text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )

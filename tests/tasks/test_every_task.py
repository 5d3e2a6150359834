"""What holds of every task of the registry: the same bytes everywhere, valid and solvable for every
valid config, split cleanly; and all commands show what was trained on it.
"""

import json
import re
from importlib import import_module

import numpy as np
import pytest
from conftest import train_into
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from zoorecall import columns, load_results
from zoorecall.cli import main
from zoorecall.config import RunConfig
from zoorecall.tasks import TASKS, AnyTaskConfig, Examples, TaskConfig, make_task
from zoorecall.tasks.base import CHUNK

from .making import digest, examples, examples_if_any, rows, several_examples

ORACLES = {name: import_module(f".test_{name}", __package__) for name in TASKS}
"""Of every task, what `tests/tasks/__init__.py` says."""


def each(constant: str) -> list:
    """The items of every oracle's constant."""
    return [item for oracle in ORACLES.values() for item in getattr(oracle, constant)]


def options_of(constant: str) -> list:
    """Of every oracle's options of this constant, the same with the name of the task."""
    named = []
    for name, oracle in ORACLES.items():
        for item in getattr(oracle, constant):
            options, *says = item if isinstance(item, tuple) else (item,)
            named.append(({"name": name, **options}, *says))
    return named


every_task = pytest.mark.parametrize("name", TASKS)


def solve(config: TaskConfig, made: Examples) -> np.ndarray:
    """The answers of a brute-force solver, which sees the tokens up to each query and no more."""
    solver = ORACLES[config.name].solve
    rows = zip(made.tokens.tolist(), made.query_positions.tolist(), strict=True)
    return np.array([[solver(config, row[: q + 1]) for q in queries] for row, queries in rows])


@pytest.mark.parametrize(("config", "pin"), each("PINS"), ids=str)
def test_the_bytes_of_an_example_never_change(config, pin):
    train = examples(config, 2 * CHUNK + 31, seed=42)
    assert digest(train, examples(config, 61, 7, "test", block=3)) == pin


@pytest.mark.parametrize("config", each("SMALL"), ids=str)
def test_examples_differ_with_the_seed_the_split_and_the_block_and_with_nothing_else(config):
    cases = [(0, "train", 0), (1, "train", 0), (0, "test", 0), (0, "train", 1)]
    task = make_task(config)
    digests = {case: digest(task.examples(19, *case)) for case in cases}
    for case in reversed(cases):
        assert digest(make_task(config).examples(19, *case)) == digests[case]
    assert len({*digests.values()}) == len(cases)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("config", each("SMALL"), ids=str)
def test_the_first_examples_do_not_depend_on_how_many_are_made(config, split):
    task, longest = make_task(config), 3 * CHUNK + 5
    whole = task.examples(longest, 3, split)
    for m in (0, 1, 7, CHUNK - 1, CHUNK, 2 * CHUNK + 1, longest):
        assert digest(task.examples(m, 3, split)) == digest(Examples(*(a[:m] for a in whole)))


@every_task
@several_examples
@given(st.data(), st.integers(0, 99), st.sampled_from(["train", "test"]))
def test_a_brute_force_solver_answers_every_query(name, data, seed, split):
    config = data.draw(ORACLES[name].configs())
    made = examples_if_any(config, 23, seed, split)
    assert (solve(config, made) == made.targets).all()


@pytest.mark.parametrize("config", each("LARGE"), ids=str)
def test_a_brute_force_solver_answers_every_query_of_the_papers_sizes(config):
    for split in ("train", "test"):
        made = examples(config, 23, 0, split)
        assert (solve(config, made) == made.targets).all()


@every_task
@several_examples
@given(st.data(), st.integers(0, 99))
def test_examples_have_the_shapes_and_the_tokens_their_config_tells(name, data, seed):
    config, n = data.draw(ORACLES[name].configs()), 17
    made = examples_if_any(config, n, seed, "train")
    Q = config.num_queries
    shapes = [(n, config.seq_len), (n, Q), (n, Q), (n, Q if config.slices else 0)]
    assert [a.shape for a in made] == shapes
    assert [a.dtype for a in made] == [np.int32, np.int32, np.int32, np.int8]
    assert ((made.slices >= -1) & (made.slices < len(config.slices))).all()
    assert made.tokens.min() >= 0 and made.tokens.max() < config.vocab_size
    assert made.targets.min() >= 0 and made.targets.max() < config.vocab_size
    assert made.query_positions.min() >= 0 and made.query_positions.max() < config.seq_len


@pytest.mark.parametrize("config", [*each("SMALL"), *each("FEW")], ids=str)
def test_each_token_has_a_word_of_its_own(config):
    words = [make_task(config).word(token) for token in range(config.vocab_size)]
    assert len({*words}) == len(words)
    assert all(word.isprintable() and word.split() == [word] for word in words)


@pytest.mark.parametrize(("options", "sentence"), options_of("IMPOSSIBLE"), ids=str)
def test_impossible_settings_are_refused_with_what_is_missing(options, sentence):
    with pytest.raises(ValidationError, match=re.escape(sentence)):
        TypeAdapter(AnyTaskConfig).validate_python(options)


@pytest.mark.parametrize(
    "options", [*(x for (x,) in options_of("REFUSED")), {"name": "multiquery_ar"}, {}], ids=str
)
def test_unknown_or_mistyped_options_are_refused(options):
    with pytest.raises(ValidationError):
        TypeAdapter(AnyTaskConfig).validate_python(options)


def test_a_name_picks_the_task():
    for name, task in TASKS.items():
        config: TaskConfig = TypeAdapter(AnyTaskConfig).validate_python({"name": name})
        assert type(config) is task.Config and type(make_task(config)) is task
        assert make_task(config).config == config


@pytest.mark.parametrize("config", each("FEW"), ids=str)
def test_train_and_test_share_no_example_even_where_there_are_few(config):
    train = np.concatenate([examples(config, 2000, seed).tokens for seed in (0, 1)])
    test = np.concatenate([examples(config, 2000, seed, "test").tokens for seed in (0, 1)])
    assert len(rows(train)) < len(train) and not rows(train) & rows(test)


def test_a_split_must_be_train_or_test():
    with pytest.raises(ValueError, match="split 'valid' is neither"):
        examples(each("SMALL")[0], 3, 0, "valid")


SMALL = {"train_examples": 40, "batch_size": 20, "test_examples": 10, "evaluations": 1, "epochs": 1}
SMALL |= {"keep": "weights"}
FORMS = [*({"name": name} for name in TASKS), {"name": "key_value_sum", "recall": "both"}]


def train(folder, tasks) -> None:
    """Two learning rates of a small model on each task, into a results folder."""
    for task in tasks:
        settings = {"task": task, "model": {"d_model": 8, "num_layers": 1}}
        runs = [
            RunConfig.model_validate(settings | {"train": SMALL | {"learning_rate": rate}})
            for rate in (1e-3, 1e-2)
        ]
        train_into(folder, runs)


def shown(folder, capsys) -> list[dict]:
    """The table, after every command that shows a folder has shown this one."""
    for form in ("text", "markdown", "csv"):
        assert main(["table", str(folder), "--format", form]) == 0
    assert main(["plot", str(folder), "--out", str(folder / "figure.svg")]) == 0
    assert main(["report", str(folder)]) == 0
    capsys.readouterr()
    assert main(["table", str(folder), "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("task", FORMS, ids=lambda task: "-".join(map(str, task.values())))
def test_every_command_shows_every_task(task, tmp_path, capsys):
    train(tmp_path, [task])
    (row,) = shown(tmp_path, capsys)
    assert main(["export", str(tmp_path)]) == 0
    assert main(["show", json.dumps(task)]) == 0
    config = RunConfig.model_validate({"task": task}).task
    assert row["length"] == config.seq_len and row["rates"] == 2
    assert set(row) >= set(config.slices)
    run = load_results(tmp_path).runs.iloc[0]
    assert main(["show", str(tmp_path), run["run_id"]]) == 0
    assert {name: run[name] for name in columns.TASK_SIZES} == {
        "task.seq_len": config.seq_len,
        "task.vocab_size": config.vocab_size,
        "task.num_queries": config.num_queries,
    }


def test_a_folder_of_several_tasks_has_a_row_for_each(tmp_path, capsys):
    tasks = [*FORMS, {"name": "key_value_sum", "recall": False}, {"name": "mqar", "power_a": 1.0}]
    train(tmp_path, tasks)
    rows = shown(tmp_path, capsys)
    assert len(rows) == len(tasks) and {row["task"] for row in rows} == set(TASKS)
    by_recall = {row["recall"]: row for row in rows if row["task"] == "key_value_sum"}
    assert set(by_recall) == {"true", "false", "both"}
    assert by_recall["both"]["AR"] is not None and by_recall["true"]["AR"] is None
    page = (tmp_path / "report.html").read_text()
    assert "key_value_sum, 1 layer, width 8, length 25, recall both" in page

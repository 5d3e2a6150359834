"""A task's examples and a single run, as `zoorecall show` prints them."""

import json
import re

import numpy as np
import pytest
from conftest import SMALL_TASKS, small_run, train_into

from zoorecall import load_results
from zoorecall.checkpoints import weights_path
from zoorecall.cli import main
from zoorecall.tasks import make_task

BOTH = {"name": "key_value_sum", "recall": "both"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of three runs, one of which kept no weights, and they."""
    folder = tmp_path_factory.mktemp("results")
    runs = [small_run(epochs=4, seed=seed, data_seed=9, keep="weights") for seed in (1, 2)]
    runs.append(small_run(task=BOTH, keep="weights", learning_rate=1e-2))
    runs.append(small_run(seed=7, epochs=12, evaluations=30))
    train_into(folder, runs)
    return folder, runs


def printed(capsys, *words) -> str:
    assert main(["show", *map(str, words)]) == 0
    out, err = capsys.readouterr()
    assert not err and all(len(line) <= 80 for line in out.splitlines() if "/" not in line)
    return out


def said(capsys, *words) -> str:
    """The one line of an error."""
    assert main(["show", *map(str, words)]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1
    return err.strip()


@pytest.mark.parametrize("options", [{}, {"filler": "random"}, {"vocabulary": "shared"}])
def test_the_words_of_an_example_are_its_tokens_and_answers(options, capsys):
    task = {"name": "mqar", **SMALL_TASKS["mqar"], **options}
    made = make_task(small_run(task=task).task).examples(2, 42, "test")
    out = printed(capsys, json.dumps(task), "--number", "2").partition("at its place\n")[2]
    assert len(re.findall(r"^ +\d  ", out, re.M)) == 2
    for i, text in enumerate(re.split(r"^ +\d  ", out, flags=re.M)[1:]):
        text = re.sub(r"\((\d+) x (\S+)\)", lambda found: f"{found[2]} " * int(found[1]), text)
        words = text.split()
        tokens = [int(word.partition("[")[0].lstrip("kv").replace(".", "0")) for word in words]
        assert tokens == made.tokens[i].tolist()
        for position, target in zip(made.query_positions[i], made.targets[i], strict=True):
            assert int(re.search(r"\[v?(\d+)\]", words[position])[1]) == target
        assert sum("[" in word for word in words) == len(made.targets[i])


def test_key_value_sum_reads_as_sums(capsys):
    out = printed(
        capsys, "key_value_sum", "--set", "recall=both", "--set", "num_pairs=4", "--number", 8
    )
    assert re.search("K.* RECALL K.* =", out) and "] AR" in out
    for operands, answer in re.findall(r"ADD ([\d ]+) =\[(\d+)\] non-AR", out):
        assert sum(map(int, operands.split())) == int(answer)
        break
    else:
        pytest.fail("no example of non-AR")


def test_options_may_stand_in_a_mapping_or_be_set(capsys):
    by_mapping = printed(capsys, "{name: mqar, seq_len: 16, power_a: 1e-1}")
    assert by_mapping == printed(capsys, "mqar", "--set", "seq_len=16", "--set", "power_a=1e-1")
    assert by_mapping == printed(capsys, "mqar", "--set", "task.seq_len=16", "--set", "power_a=0.1")
    assert "16 tokens, 4 answers, vocabulary 8,192" in by_mapping


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["mqr"], "show: task: there is no task 'mqr', did you mean 'mqar'? (there are"),
        ([""], "show: task: is empty, should be the name of a task"),
        (
            ["mqar", "--set", "seq_lenn=3"],
            "task.seq_lenn: unknown key of mqar, did you mean 'seq_len'",
        ),
        (["mqar", "--set", "seq_len"], "--set seq_len: has no value, should be like seq_len=16"),
        (["mqar", "--set", "seq_len=2"], "num_kv_pairs 4 needs a seq_len of at least 16"),
        (["{name: mqar"], "this is not YAML"),
        (["mqar", "--set", "seq_len=[1"], "this is not YAML"),
        (["[mqar]", "--set", "seq_len=3"], "task: is a list, should be the name of a task"),
        (["nowhere", "abc"], "nowhere: no such results folder"),
        (["", "abc"], "a path is empty"),
    ],
)
def test_a_mistake_costs_one_line(words, line, capsys):
    assert line in said(capsys, *words)


def test_a_run_is_found_by_what_its_id_begins_with(trained, capsys):
    folder, runs = trained
    run_id = runs[0].run_id
    out = printed(capsys, folder, run_id)
    assert out.startswith(f"run {run_id} of ") and out == printed(capsys, folder, run_id[:8])
    assert "4 runs begin with ''" in said(capsys, folder, "")
    assert f"did you mean '{run_id}'?" in said(capsys, folder, f"{run_id[:-1]}x")
    assert "there is no run 'zz', its runs are in" in said(capsys, folder, "zz")
    assert "which run? Their ids are in" in said(capsys, folder)
    assert "--set is for a task" in said(capsys, folder, run_id, "--set", "seq_len=3")


def test_a_run_is_shown_with_its_settings_what_came_of_it_and_its_curve(trained, capsys):
    folder, runs = trained
    out = printed(capsys, folder, runs[3].run_id)
    row = load_results(folder).runs.set_index("run_id").loc[runs[3].run_id]
    assert re.search(r"^  task.vocab_size +32$", out, re.M) and "model.mlp_ratio" not in out
    assert re.search(rf"^  test_accuracy +{row['test_accuracy']:g} +of answers", out, re.M)
    lines = out.partition("its curve\n")[2].partition("\n\n")[0].splitlines()[1:]
    curve = load_results(folder).curves.query("run_id == @runs[3].run_id")
    assert len(curve) > len(lines) == 16  # the first and the last among them
    assert lines[0].split()[:2] == ["0", "-"]
    last = curve.iloc[-1]
    assert lines[-1].split()[0] == str(last["step"])
    assert lines[-1].split()[3] == f"{last['test_accuracy']:.3f}"


def test_without_weights_it_says_what_would_be_needed(trained, capsys):
    folder, runs = trained
    out = " ".join(printed(capsys, folder, runs[3].run_id).partition("its answers")[2].split())
    assert "its weights were not kept" in out
    assert "zoorecall sweep GRID --set train.keep=weights --out ANOTHER_FOLDER" in out


@pytest.mark.parametrize("place", [0, 2])
def test_with_weights_it_says_what_the_run_got_wrong(place, trained, capsys):
    folder, runs = trained
    run = runs[place]
    out = printed(capsys, folder, run.run_id, "--number", "1000").partition("its answers")[2]
    row = load_results(folder).runs.set_index("run_id").loc[run.run_id]
    asked = run.train.test_examples * run.task.num_queries
    right, of = map(int, re.search(r"(\d+) of (\d+) right", out).groups())
    assert of == asked and right == round(row["test_accuracy"] * asked) < asked
    mistakes = re.sub(r"\s+", " ", out.partition("y was said")[2])
    assert len(re.findall(r"\[\S+, not \S+\]", mistakes)) == asked - right
    for name in run.task.slices:
        right, of = map(int, re.search(rf"  {name}: (\d+) of (\d+)", out).groups())
        assert right == round(row[f"slice.{name}.test_accuracy"] * of)


def test_the_right_answer_stands_before_the_one_that_was_said(trained, capsys, monkeypatch):
    folder, runs = trained
    truth = make_task(runs[0].task).examples(24, 9, "test").targets
    answers = truth.copy()
    monkeypatch.setattr("zoorecall.show._answers", lambda *_: answers)
    out = printed(capsys, folder, runs[0].run_id)
    assert "48 of 48 right on the first 24 test examples" in out and ", not" not in out
    answers[5, 1] = 0  # which stands in every example
    out = printed(capsys, folder, runs[0].run_id)
    assert f"[v{truth[5, 0]}]" in out and f"[v{truth[5, 1]}, not .]" in " ".join(out.split())
    assert "100.0 % of the wrong answers are tokens of their example" in out
    assert np.isin(truth[5, 1], answers[5]) == (truth[5, 0] == truth[5, 1])


def test_weights_that_cannot_be_read_cost_one_line(tmp_path, capsys):
    run = small_run(epochs=1, keep="weights")
    train_into(tmp_path, [run])
    weights_path(tmp_path, run.run_id).write_bytes(b"x")
    assert main(["show", str(tmp_path), run.run_id]) == 2
    assert "has no checksum" in capsys.readouterr().err
    weights_path(tmp_path, run.run_id).unlink()
    assert "is missing, so what it got wrong is not known" in " ".join(
        printed(capsys, tmp_path, run.run_id).split()
    )

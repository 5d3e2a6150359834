"""Messages between a sweep and its workers: each is a line, and a line that is none is an error."""

from pathlib import Path
from typing import get_args

import pytest
from conftest import SMALL_TASKS, small_run

from zoorecall.mixers import MIXERS
from zoorecall.sweeps import events

RUN = small_run()
ORDERS = [
    events.Setup(Path("a folder"), "cuda:1", 2, 0.5),
    events.Train((RUN, small_run(learning_rate=1e-5)), 3),
    events.More((RUN,)),
    events.More(()),
    events.Prune(("a", "b")),
    events.Stop(),
]
EVENTS = [
    events.Progress({"a": 3, "b": 1 << 40}, (events.Evaluation("b", 3, {"test_loss": 1 / 3}),)),
    events.Warned(("a", "b"), 'two\nlines, "quoted"'),
    events.Finished(("a", "b")),
    events.Pruned(("a",)),
    events.Done(),
    events.Stopped(),
    events.Raised("why ä"),
    events.OutOfMemory("why"),
    events.Unwritable("why"),
    events.Died("why"),
]


def test_every_message_is_one_line_and_comes_back_as_it_was():
    assert {type(order) for order in ORDERS} == set(get_args(events.Order))
    assert {type(event) for event in EVENTS} == set(get_args(events.JobEvent))
    for messages, read in ((ORDERS, events.order_from), (EVENTS, events.event_from)):
        for message in messages:
            line = events.to_line(message)
            assert line.count(b"\n") == 1 and line.endswith(b"\n")
            assert read(line) == message


def test_a_run_of_any_mixer_and_task_comes_back_as_it_was():
    runs = [small_run(mixer) for mixer in MIXERS if mixer != "pattern"]
    for run in [*runs, *(small_run(task={"name": task}) for task in SMALL_TASKS)]:
        again = events.order_from(events.to_line(events.More((run,))))
        assert again == events.More((run,)) and again.runs[0].run_id == run.run_id


@pytest.mark.parametrize(
    "line",
    [
        b"hi\n",
        b"\n",
        b"\xff\xfe\n",
        b"Finished\n",
        b"Finished {}\n",
        b'Finished {"run_ids": [1]}\n',
        b'hiFinished {"run_ids": ["a"]}\n',
        b'Failed {"run_ids": ["a"], "reason": "an event of the sweep"}\n',
        events.to_line(ORDERS[2]),
        1000 * b"x",
    ],
)
def test_a_line_that_is_no_event_is_a_short_error(line):
    with pytest.raises(ValueError, match="is no message") as error:
        events.event_from(line)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


def test_an_evaluation_has_no_number_that_is_not_finite():
    curve = {"step": 3, "test_loss": 0.5, "train_loss": float("nan"), "max_loss": float("inf")}
    assert events.Evaluation.of("a", curve) == events.Evaluation("a", 3, {"test_loss": 0.5})

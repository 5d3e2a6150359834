"""Workers that say nothing: told once, ended where asked for."""

from collections import deque

import pytest
from conftest import small_run

from zoorecall.sweeps import watch
from zoorecall.sweeps.events import Died, Done, Finished, More, Progress, Train
from zoorecall.sweeps.watch import Watch

RUNS = [small_run(seed=seed) for seed in range(5)]
IDS = sorted(run.run_id for run in RUNS)


class Clock:
    """Stands in for `time`, and for an executor: an event takes the seconds that are given with
    it."""

    def __init__(self, *events):
        self.now, self.events, self.killed, self.places = 0.0, deque(events), [], ["cpu", "cpu"]

    def monotonic(self):
        return self.now

    def give(self, place, order):
        pass

    def event(self, seconds):
        at, place, event = self.events[0]
        if at > self.now + seconds:
            self.now += seconds
            return None
        self.now = at
        self.events.popleft()
        return place, event

    def kill(self, place, reason):
        self.killed.append((self.now, place))
        self.events.appendleft((self.now, place, Died(reason)))


@pytest.fixture
def clock(monkeypatch):
    def make(*events):
        made = Clock(*events)
        monkeypatch.setattr(watch, "time", made)
        return made

    return make


def listen(clock, give_up_seconds=None):
    """What the user and the sweep hear of a worker that trains all runs."""
    told, heard = [], []
    watched = Watch(clock, give_up_seconds, told.append)
    watched.give(0, Train(tuple(RUNS), 5))
    while clock.events:
        heard.append(watched.event()[1])
        if isinstance(heard[-1], Finished):
            watched.give(0, More(()))
    return [event.text for event in told], heard


def test_a_worker_that_says_something_now_and_then_is_left_alone(clock):
    progress = Progress({}, ())
    made = clock((299, 0, progress), (598, 0, progress), (897, 0, Done()), (5000, 1, Done()))
    assert listen(made, 300)[0] == [] and made.killed == []


def test_silence_is_told_once_with_the_runs_that_are_left(clock):
    made = clock((1, 0, Finished((IDS[0],))), (2000, 0, Progress({}, ())), (2400, 0, Done()))
    told, _ = listen(made)
    assert len(told) == 2 and made.killed == []  # once in each silence
    assert told[0].startswith("no word for 301 s from the worker of " + ", ".join(IDS[1:4]))
    assert " and 1 more; --give-up-seconds" in told[0]


def test_a_worker_that_hangs_is_ended_where_asked_for(clock):
    made = clock((5000, 0, Done()))
    told, heard = listen(made, 60)
    assert made.killed == [(61, 0)] and told == []
    assert heard[0] == Died("its worker said nothing for 60 s")


def test_a_worker_that_waits_for_more_runs_is_not_silent_until_it_has_them(clock):
    made, told = clock((1, 0, Finished(tuple(IDS))), (900, 1, Done()), (1000, 0, Done())), []
    watched = Watch(made, 60, told.append)
    watched.give(0, Train(tuple(RUNS), 5))
    assert watched.event()[0] == 0 and watched.event()[0] == 1  # meanwhile it is held
    watched.give(0, More(()))
    assert watched.event() == (0, Died("its worker said nothing for 60 s"))
    assert made.killed == [(961, 0)] and told == []


def test_a_worker_that_hangs_is_found_though_another_talks(clock):
    chatter = [(second / 2, 1, Progress({}, ())) for second in range(1, 130)]
    made = clock(*chatter, (65, 0, Done()))
    watched = Watch(made, 60, lambda event: None)
    for place, run in enumerate(RUNS[:2]):
        watched.give(place, Train((run,), 1))
    while not made.killed:
        watched.event()
    assert made.killed == [(60.5, 0)]
    assert watched.event() == (0, Died("its worker said nothing for 60 s"))


def test_a_sweep_that_was_busy_or_suspended_takes_that_for_no_silence(clock, monkeypatch):
    made = clock((1, 1, Progress({}, ())), (7000, 0, Progress({}, ())), (14000, 0, Done()))
    watched = Watch(made, 60, lambda event: None)
    for place, run in enumerate(RUNS[:2]):
        watched.give(place, Train((run,), 1))
    watched.event()
    made.now += 6990  # it wrote a table
    watched.event()
    wait = made.event

    def suspended(seconds):
        made.now = max(made.now, 13990)
        return wait(seconds)

    monkeypatch.setattr(made, "event", suspended)
    assert watched.event() == (0, Done()) and made.killed == []

"""Which worker trains which runs, and what becomes of them when something fails: no processes."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence

import pytest
from conftest import small_run

from zoorecall.config import RunConfig
from zoorecall.sweeps import sweeper
from zoorecall.sweeps.events import (
    Died,
    Done,
    Failed,
    Finished,
    JobEvent,
    More,
    OutOfMemory,
    Raised,
    Reduced,
    Retried,
    Stopped,
    SweepEvent,
    Train,
)
from zoorecall.sweeps.plan import RunGroup
from zoorecall.sweeps.schedule import HOPELESS, Schedule
from zoorecall.sweeps.sweeper import train_all

CPUS, GPU = ("cpu", "cpu"), ("cuda:0",) * 3
DIED, RAISED = Died("it was killed"), Raised("ValueError: no")
FULL = OutOfMemory("OutOfMemoryError: no more")


def group(count: int, slots: int = 2, width: int = 8, epochs: int = 1) -> RunGroup:
    """So many runs of a pack key of its own, which its width tells."""
    model = {"d_model": width, "num_layers": 1}
    base = small_run(epochs=epochs).model_dump() | {"model": model}
    runs = [RunConfig.model_validate(base | {"seed": seed}) for seed in range(count)]
    return RunGroup(tuple(runs), slots)


def ids(runs: Iterable[RunConfig]) -> tuple[str, ...]:
    return tuple(run.run_id for run in runs)


def given(schedule: Schedule) -> dict[int, tuple[str, ...]]:
    """The runs of the jobs that are given out now, by place."""
    return {place: ids(job.runs) for place, job in schedule.jobs()}


def finish(schedule: Schedule, place: int, run_ids: Sequence[str]) -> tuple[str, ...]:
    return ids(schedule.more(place, run_ids, finished=True))


# ---- who gets what


def test_queues_go_in_the_order_of_the_grid_and_the_last_by_the_longest():
    groups = [group(1, width=8 * i) for i in (1, 2, 3, 4, 5, 6, 7)]
    schedule, order = Schedule(groups, CPUS), []
    while jobs := schedule.jobs():
        for place, job in jobs:
            order.append(groups.index(RunGroup(job.runs, 2)))
            finish(schedule, place, ids(job.runs))
            assert schedule.end(place, Done()) == []
    assert order == [0, 1, 2, 6, 5, 4, 3]  # of the last four, two a worker, the longest first


def test_how_long_a_queue_takes_is_told_by_its_runs_and_their_steps():
    few_long, many_short = group(1, width=8, epochs=9), group(6, width=16)
    short = group(1, width=16)
    for others in ([short, few_long], [few_long, short], [many_short, few_long]):
        longest = max(others, key=lambda each: each.work)
        (_, job), *_ = Schedule(others, ("cpu",)).jobs()
        assert job.runs[0] is longest.runs[0]


def test_a_queue_is_shared_among_workers_that_would_have_nothing_to_do():
    one = group(7, slots=4)
    assert [len(x) for x in given(Schedule([one], CPUS)).values()] == [4, 3]
    assert [len(x) for x in given(Schedule([group(4, slots=4)], CPUS)).values()] == [2, 2]
    assert [len(x) for x in given(Schedule([group(1)], CPUS)).values()] == [1]
    assert [len(x) for x in given(Schedule([group(3, slots=8)], 4 * ("cpu",))).values()] == [1] * 3


def test_a_queue_is_not_shared_where_each_worker_has_one_of_its_own():
    groups = [group(4, slots=4, width=width) for width in (8, 16)]
    assert {len(x) for x in given(Schedule(groups, CPUS)).values()} == {4}


def test_two_jobs_of_a_queue_have_different_runs():
    schedule = Schedule([group(9, slots=3)], CPUS)
    first, second = given(schedule).values()
    assert not {*first} & {*second}
    third, fourth = finish(schedule, 0, first[:1]), finish(schedule, 1, second[1:])
    assert len({*first, *second, *third, *fourth}) == 9


def test_a_gpu_has_one_job_of_a_queue_as_a_second_would_compile_its_program_again():
    one, other = group(9), group(9, width=16)
    schedule = Schedule([one, other], GPU)
    assert len(jobs := schedule.jobs()) == 2
    assert {job.runs[0].pack_key for _, job in jobs} == {
        one.runs[0].pack_key,
        other.runs[0].pack_key,
    }
    assert schedule.jobs() == []
    two = Schedule([one], ("cuda:0", "cuda:1") * 3)
    assert {place % 2 for place, _ in two.jobs()} == {0, 1}


def test_a_worker_without_work_takes_what_another_has_not_begun():
    """Its own queue is empty; the other's runs wait."""
    schedule = Schedule([group(2, slots=2), group(9, slots=2, width=16)], CPUS)
    jobs = given(schedule)
    assert len(jobs) == 2
    place = next(p for p, runs in jobs.items() if runs == ids(group(2).runs))
    assert finish(schedule, place, jobs[place]) == ()
    schedule.end(place, Done())
    assert len(given(schedule)[place]) == 2


# ---- refilling slots


def test_runs_enter_as_others_leave_in_the_order_of_the_grid():
    runs = ids((one := group(6, slots=3)).runs)
    schedule = Schedule([one], ("cpu",))
    assert given(schedule) == {0: runs[:3]}
    assert finish(schedule, 0, runs[1:2]) == runs[3:4]
    assert finish(schedule, 0, (runs[0], runs[3])) == runs[4:6]
    assert finish(schedule, 0, (runs[2], runs[4], runs[5])) == ()
    assert schedule.busy and schedule.end(0, Done()) == [] and not schedule.busy
    assert schedule.jobs() == [] and schedule.failed == []


def test_a_job_that_stops_or_ends_of_itself_loses_no_run_silently():
    """What it had is on disk; a resumed sweep goes on with it."""
    schedule = Schedule([group(2)], ("cpu",))
    given(schedule)
    assert schedule.end(0, Stopped()) == [] and not schedule.busy and schedule.failed == []
    assert schedule.end(0, DIED) == []  # of a worker that had nothing to do


# ---- what fails


def test_runs_that_do_not_fit_go_on_in_half_as_many_slots_down_to_one_which_fails():
    one = group(5, slots=4)
    runs = ids(one.runs)
    schedule = Schedule([one], ("cpu",))
    assert given(schedule) == {0: runs[:4]}
    assert schedule.end(0, FULL) == [Reduced(runs[:4], 2)]
    assert given(schedule) == {0: runs[:2]}
    assert finish(schedule, 0, runs[:1]) == runs[2:3]  # those that go back come first
    assert schedule.end(0, FULL) == [Reduced((runs[1], runs[2]), 1)]
    assert given(schedule) == {0: runs[1:2]}
    assert schedule.end(0, FULL) == [Failed(runs[1:2], FULL.reason)]
    assert given(schedule) == {0: runs[2:3]}
    assert [(run.run_id, reason) for run, reason in schedule.failed] == [(runs[1], FULL.reason)]


def test_what_did_not_fit_for_one_worker_is_not_tried_by_another():
    schedule = Schedule([group(16, slots=8)], CPUS)
    assert [len(x) for x in given(schedule).values()] == [8, 8]
    schedule.end(0, FULL)
    assert [len(x) for x in given(schedule).values()] == [4]
    (reduced,) = schedule.end(1, FULL)
    assert isinstance(reduced, Reduced) and reduced.slots == 4
    assert [len(x) for x in given(schedule).values()] == [4]


def test_the_number_of_slots_never_rises():
    """One worker has come down to a quarter when another, which still had all, fails too."""
    schedule = Schedule([group(32, slots=8)], CPUS)
    given(schedule)
    schedule.end(0, FULL)
    given(schedule)
    schedule.end(0, FULL)
    assert [len(x) for x in given(schedule).values()] == [2]
    (reduced,) = schedule.end(1, FULL)
    assert isinstance(reduced, Reduced) and reduced.slots == 2
    assert [len(x) for x in given(schedule).values()] == [2]


def test_runs_whose_worker_died_go_on_together_and_if_it_dies_again_each_alone():
    runs = ids((one := group(3, slots=3)).runs)
    schedule = Schedule([one], ("cpu",))
    given(schedule)
    assert schedule.end(0, DIED) == [Retried(runs, DIED.reason)]
    assert given(schedule) == {0: runs}
    assert schedule.end(0, DIED) == [Retried(runs, DIED.reason)]
    assert given(schedule) == {0: runs[:1]}
    assert finish(schedule, 0, runs[:1]) == runs[1:2]
    assert schedule.end(0, DIED) == [Failed(runs[1:2], DIED.reason)]
    assert given(schedule) == {0: runs[2:]}


def test_a_run_alone_is_given_a_second_worker_and_no_third():
    schedule = Schedule([one := group(1)], ("cpu",))
    given(schedule)
    assert schedule.end(0, DIED) == [Retried(ids(one.runs), DIED.reason)]
    assert given(schedule) == {0: ids(one.runs)}
    assert schedule.end(0, DIED) == [Failed(ids(one.runs), DIED.reason)]
    assert given(schedule) == {} and not schedule.busy


def test_of_runs_one_of_which_raises_each_goes_on_alone_and_that_one_fails():
    runs = ids((one := group(4, slots=4)).runs)
    schedule = Schedule([one], ("cpu",))
    given(schedule)
    assert schedule.end(0, RAISED) == [Retried(runs, RAISED.reason)]
    assert given(schedule) == {0: runs[:1]}
    assert finish(schedule, 0, runs[:1]) == runs[1:2]
    assert finish(schedule, 0, runs[1:2]) == runs[2:3]
    assert schedule.end(0, RAISED) == [Failed(runs[2:3], RAISED.reason)]
    assert given(schedule) == {0: runs[3:]}
    assert [run.run_id for run, _ in schedule.failed] == [runs[2]]


class Scripted:
    """Stands in for workers: what they are given, and the events that they then have."""

    def __init__(self, *events: JobEvent):
        self.given, self._events = list[tuple[str, ...]](), [*events]

    def give(self, place: int, order: Train | More) -> None:
        self.given.append(ids(order.runs))

    def event(self) -> tuple[int, JobEvent]:
        return 0, self._events.pop(0)


def test_a_run_whose_row_is_on_disk_when_its_worker_dies_is_finished(tmp_path, monkeypatch):
    first, second = ids((one := group(2)).runs)
    monkeypatch.setattr(sweeper.results, "finished_run_ids", lambda folder: {first, "another's"})
    workers, told = Scripted(DIED, Finished((second,)), Done()), list[SweepEvent]()
    train_all(tmp_path, Schedule([one], ("cpu",)), workers, told.append)
    assert workers.given == [(first, second), (second,), ()]
    assert told == [Finished((first,)), Retried((second,), DIED.reason), Finished((second,))]


def bad_ones(schedule: Schedule, bad: set[str], event: JobEvent) -> tuple[list[str], int]:
    """Carry all out, where a job with a bad run among its runs ends with this event; returns the
    runs that finished and how many jobs there were."""
    finished, jobs = list[str](), 0
    while given_now := schedule.jobs():
        for place, _ in given_now:
            jobs += 1
            while (work := schedule._work.get(place)) and work.runs:
                if bad & {*work.runs}:
                    schedule.end(place, event)
                    break
                first = next(iter(work.runs))
                finished.append(first)
                finish(schedule, place, (first,))
            else:
                schedule.end(place, Done())
    return finished, jobs


@pytest.mark.parametrize("event", [DIED, RAISED, FULL])
def test_one_bad_run_among_many_fails_alone(event):
    one = group(64, slots=16)
    (bad,) = ids(one.runs[20:21])
    schedule = Schedule([one, group(3, width=16)], CPUS)
    finished, jobs = bad_ones(schedule, {bad}, event)
    assert [(run.run_id, reason) for run, reason in schedule.failed] == [(bad, event.reason)]
    assert len(finished) == len(set(finished)) == 63 + 3
    assert jobs < 20


def test_a_mixer_that_always_fails_is_not_tried_with_every_run_of_its_key():
    one, other = group(64, slots=16), group(3, width=16)
    schedule = Schedule([one, other], CPUS)
    finished, jobs = bad_ones(schedule, {*ids(one.runs)}, RAISED)
    assert sorted(finished) == sorted(ids(other.runs))
    assert {run.run_id for run, _ in schedule.failed} == {*ids(one.runs)}
    assert len(schedule.failed) == 64 and jobs < 4 * HOPELESS


def test_runs_of_a_key_of_which_some_finished_are_each_tried():
    one = group(12, slots=1)
    bad = {*ids(one.runs[1:])}
    schedule = Schedule([one], ("cpu",))
    finished, jobs = bad_ones(schedule, bad, RAISED)
    assert finished == [*ids(one.runs[:1])]
    assert {run.run_id for run, _ in schedule.failed} == bad and jobs == 12 - 1


def test_failures_of_different_reasons_do_not_stand_for_all():
    one = group(2 * HOPELESS, slots=1)
    schedule = Schedule([one], ("cpu",))
    for i in range(2 * HOPELESS):
        (run,) = given(schedule)[0]
        assert schedule.end(0, Raised(f"number {i}")) == [Failed((run,), f"number {i}")]


def test_hopeless_runs_of_another_worker_are_left_to_it():
    """Those in training are told of by their own job."""
    schedule = Schedule([one := group(9, slots=1)], CPUS)
    (other,) = given(schedule)[1]
    for _ in range(HOPELESS - 1):
        schedule.end(0, RAISED)
        given(schedule)
    (failed,) = schedule.end(0, RAISED)
    assert isinstance(failed, Failed) and other not in failed.run_ids
    assert schedule.jobs() == [] and schedule.busy
    assert schedule.end(1, RAISED) == [Failed((other,), RAISED.reason)]
    assert len(schedule.failed) == len(one.runs)


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_each_run_finishes_or_fails_once(seed):
    """Workers whose jobs end in random ways, on CPU cores or GPUs."""
    draw = random.Random(seed)
    places = draw.choice([CPUS, ("cpu",), GPU, ("cuda:0", "cuda:1") * 3, 5 * ("cpu",)])
    groups = [
        group(draw.randint(1, 12), draw.randint(1, 6), 8 * (i + 1))
        for i in range(draw.randint(1, 4))
    ]
    schedule, told, turns = Schedule(groups, places), Counter[str](), 0
    while True:
        for _, job in schedule.jobs():
            assert 0 < len(job.runs) <= job.slots and len({run.pack_key for run in job.runs}) == 1
        if not schedule.busy:
            break
        turns += 1
        assert turns < 1000
        place = draw.choice([*schedule._work])
        work = schedule._work[place]
        if not work.runs:
            assert schedule.end(place, Done()) == []
        elif draw.random() < 0.3:
            for event in schedule.end(place, draw.choice([DIED, RAISED, FULL])):
                told.update(event.run_ids if isinstance(event, Failed) else ())
        else:
            left = draw.sample([*work.runs], draw.randint(1, len(work.runs)))
            told.update(left)
            assert len(schedule.more(place, left, finished=True)) <= len(left) + work.slots
            assert len(work.runs) <= work.slots
    everyone = [run_id for each in groups for run_id in ids(each.runs)]
    assert sorted(told.elements()) == sorted(everyone)


# ---- runs that come while others train


def test_runs_that_are_added_join_their_queue_and_a_worker_that_had_no_more_is_held_for_them():
    first, more, other = group(2), group(4), group(1, width=16)
    schedule = Schedule([first], ("cpu",))
    assert schedule.room(2) == 0  # two wait for the two slots
    given(schedule)
    first_two = ids(first.runs)
    assert ids(schedule.more(0, first_two[:1], True, hold=True)) == ()  # it trains the other
    assert schedule.more(0, first_two[1:], True, hold=True) is None
    assert schedule.room(2) == 2 and schedule.held(more_may_come=True) == [] == schedule.jobs()
    schedule.add([RunGroup(more.runs[2:], 2)])
    ((place, runs),) = schedule.held(more_may_come=True)
    assert place == 0 and ids(runs) == ids(more.runs[2:]) and schedule.busy
    schedule.more(0, ids(runs), True, hold=True)
    schedule.add([other])  # which only this worker can train, and not in this job
    assert schedule.held(more_may_come=True) == [(0, ())]
    assert schedule.end(0, Done()) == [] and given(schedule) == {0: ids(other.runs)}


def test_a_held_worker_is_let_go_when_no_more_may_come():
    schedule = Schedule([group(1)], CPUS)
    ((place, run_ids),) = given(schedule).items()
    assert schedule.more(place, run_ids, True, hold=True) is None
    assert schedule.held(more_may_come=True) == []
    assert schedule.held(more_may_come=False) == [(place, ())]


def test_runs_that_are_added_join_a_queue_of_one_slot_but_not_those_that_failed_together():
    one = group(1, slots=1)
    schedule = Schedule([one], ("cpu",))
    given(schedule)
    assert schedule.more(0, ids(one.runs), True, hold=True) is None
    more = RunGroup(group(2).runs[1:], 1)
    schedule.add([more])
    assert [(place, ids(runs)) for place, runs in schedule.held(True)] == [(0, ids(more.runs))]
    pair = group(2)
    schedule = Schedule([pair], ("cpu",))
    given(schedule)
    schedule.end(0, RAISED)
    late = RunGroup(group(3).runs[2:], 2)
    schedule.add([late])
    first, second, third = (
        next(iter(given(schedule).values())),
        *_ended(schedule),
        *_ended(schedule),
    )
    assert sorted((first, second, third)) == sorted([(x,) for x in ids((*pair.runs, *late.runs))])


def _ended(schedule: Schedule) -> list[tuple[str, ...]]:
    """The runs of the next job, once that of the only worker has failed."""
    schedule.end(0, RAISED)
    return [*given(schedule).values()]

"""Callers share the machine: simulated in numbers, and with the scheduler's queue."""

from __future__ import annotations

import dataclasses
import random

import pytest
from fake_engine import DIFFUSION, PLAIN, FakeEngine, Inbox, KnownCost, request
from waiting import wait_until

from id3pm.diffusion.noise import STAGE_BASE
from id3pm.diffusion.samplers import plan
from id3pm.errors import OverloadedError
from id3pm.sampling.admission import MOST, has_room
from id3pm.sampling.policy import STRETCH, choose, due_time, take_place
from id3pm.sampling.row import Row
from id3pm.sampling.scheduler import StepScheduler


class Machine:
    """Makes one step of the chosen rows a second, as the scheduler does."""

    def __init__(self, max_rows: int = 1) -> None:
        self.max_rows = max_rows
        self.now = 0.0
        self.clock = 0.0
        self.rows: list[Row] = []
        self.finished: dict[str, float] = {}
        self.pauses = 0
        self._order = 0

    def arrive(self, caller: str, name: str, steps: int = 10, priority: int = 1) -> None:
        due = due_time(self.now, float(steps), priority, float("inf"))
        own = [row.place for row in self.rows if row.request.caller == caller]
        self.rows.append(
            Row(
                request=dataclasses.replace(request(name, priority=priority), caller=caller),
                plan=plan(DIFFUSION, dataclasses.replace(PLAIN, steps=steps), learn_sigma=True),
                on_done=lambda outcome: None,
                submitted=self.now,
                due=due,
                place=take_place(own, self.clock, self.now, float(steps), steps / self.max_rows, priority),
                order=self._order,
            )
        )
        self._order += 1

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            chosen = choose(self.rows, self.max_rows, 2 * self.max_rows, 64, self.now)
            self.now += 1.0
            for row in self.rows:
                self.pauses += row.active and row not in chosen
                row.active = row in chosen
            for row in chosen:
                self.clock = max(self.clock, row.place.start)
                row.step += 1
                if row.step == len(row.plan):
                    self.clock = max(self.clock, row.place.end)
                    self.rows.remove(row)
                    self.finished[row.request.id] = self.now


def test_a_caller_who_comes_late_waits_for_what_is_at_work_and_not_for_the_queue() -> None:
    machine = Machine()
    for index in range(90):
        machine.arrive("hog", f"hog {index}")
    machine.run(305)
    machine.arrive("late", "late")
    machine.run(20)
    assert machine.finished["late"] <= 325  # ten steps of its own, and the five of the one that had begun


@pytest.mark.parametrize("hogs", [1, 3])
def test_callers_with_queues_get_the_same_share(hogs: int) -> None:
    machine = Machine(max_rows=2)
    for index in range(100):
        for hog in range(hogs):
            machine.arrive(f"hog {hog}", f"hog {hog} {index}")
    machine.run(100)
    for index in range(50):
        machine.arrive("late", f"late {index}")
    machine.run(400)
    done = [sum(name.startswith("late") for name, at in machine.finished.items() if at > 100), 0]
    done[1] = sum(name.startswith("hog") for name, at in machine.finished.items() if at > 100)
    share = done[0] / sum(done)
    assert share == pytest.approx(1 / (hogs + 1), abs=0.1)
    assert machine.pauses == 0, "rows of one kind are not paused for one another"


def test_a_share_is_counted_in_work_and_not_in_requests() -> None:
    machine = Machine()
    for index in range(50):
        machine.arrive("long", f"long {index}", steps=50)
    for index in range(500):
        machine.arrive("short", f"short {index}", steps=5)
    machine.run(2500)
    work = {
        caller: sum(steps for name in machine.finished if name.startswith(caller))
        for caller, steps in (("long", 50), ("short", 5))
    }
    head_start = 2 * STRETCH * (50 - 5)  # short requests overtake long ones by so much
    assert work["long"] <= work["short"] <= work["long"] + head_start + 100


def test_short_requests_overtake_long_ones_of_another_caller() -> None:
    machine = Machine(max_rows=4)
    for index in range(8):
        machine.arrive("long", f"long {index}", steps=100)
    machine.run(50)
    machine.arrive("short", "short", steps=10)
    machine.run(10)
    assert machine.finished == {"short": 60.0}


def test_no_caller_starves_under_a_stream_of_new_ones() -> None:
    machine = Machine()
    machine.arrive("long", "long", steps=40)
    for index in range(3000):
        if index % 3 == 0:
            machine.arrive(f"caller {index}", f"short {index}", steps=4)
        machine.run(1)
    assert machine.finished["long"] <= 1200


def test_the_first_class_is_no_shield_against_other_callers() -> None:
    machine = Machine()
    for index in range(90):
        machine.arrive("hog", f"hog {index}", priority=0)
    machine.run(300)
    machine.arrive("late", "late", priority=1)
    machine.run(60)
    assert machine.finished["late"] <= 340


def test_lower_classes_wait_for_the_usual_one_of_all_callers() -> None:
    machine = Machine()
    machine.arrive("batch", "batch", priority=5)
    for index in range(5):
        machine.arrive("usual", f"usual {index}")
    machine.run(60)
    assert machine.finished["batch"] == 60.0


def test_one_caller_alone_is_served_in_the_same_order_whatever_places_its_rows_hold() -> None:
    """Its best row uses its first place: the order within a caller is that of class, due time and arrival."""
    random.seed(1)
    kinds = [(random.choice((3, 10, 40)), random.choice((0, 1, 2))) for _ in range(30)]
    orders = []
    for caller in ("one", "another"):
        machine = Machine(max_rows=2)
        for index, (steps, priority) in enumerate(kinds):
            machine.arrive(caller, f"{index}", steps, priority)
            machine.run(2)
            if caller == "another":  # places that say nothing
                for row in machine.rows:
                    row.place = row.place._replace(due=0.0, start=0.0, end=0.0, overdue=0.0)
        machine.run(2000)
        orders.append(list(machine.finished))
    assert orders[0] == orders[1]


@pytest.mark.parametrize(
    ("total", "own", "callers", "room"),
    [
        (100, 100, 1, True),
        (101, 101, 1, False),  # alone: to the limit
        (101, 1, 2, True),  # another one fills it
        (151, 51, 2, False),  # more than half of it
        (MOST * 100, 1, 2, True),
        (MOST * 100 + 1, 1, 2, False),
        (100, 90, 5, True),  # more than a share, while there is room
    ],
)
def test_who_has_less_than_a_share_finds_room(total: float, own: float, callers: int, room: bool) -> None:
    assert has_room(total, own, 100, callers) is room


def test_a_caller_that_fills_the_queue_keeps_no_other_one_out() -> None:
    engine = FakeEngine(held=True)
    scheduler, inbox = StepScheduler(engine, DIFFUSION, STAGE_BASE, 1, 4, cost=KnownCost()), Inbox()

    def submit(caller: str, name: str) -> None:
        one = dataclasses.replace(request(name), caller=caller)
        scheduler.submit(one, inbox.receiver(name))

    for index in range(5):
        submit("hog", f"hog {index}")
    wait_until(lambda: bool(engine.calls))
    with pytest.raises(OverloadedError, match="4 requests wait"):
        submit("hog", "one too many")
    submit("late", "late 1")
    submit("late", "late 2")
    with pytest.raises(OverloadedError, match="6 requests wait"):
        submit("late", "late 3")
    engine.let(1000)
    for name in ("hog 4", "late 1", "late 2"):
        inbox.sample(name)
    assert inbox.order.index("late 1") == 1, "after the one that had begun"
    assert scheduler.close()

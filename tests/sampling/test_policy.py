"""The scheduling policy without threads, on a simulated machine with steps of one second."""

from __future__ import annotations

import dataclasses
import heapq

import pytest
from fake_engine import DIFFUSION, PLAIN, request

from id3pm.diffusion.samplers import plan
from id3pm.sampling.policy import STRETCH, choose, due_time
from id3pm.sampling.row import Row


class Machine:
    """Makes one step of the chosen rows a second."""

    def __init__(self, max_rows: int) -> None:
        self.max_rows = max_rows
        self.now = 0.0
        self.rows: dict[str, Row] = {}
        self.finished: dict[str, float] = {}
        self.pauses = 0
        self._order = 0

    def arrive(self, name: str, steps: int, priority: int = 1, deadline: float = float("inf")) -> None:
        options = dataclasses.replace(PLAIN, steps=steps)
        self.rows[name] = Row(
            request=request(name, priority=priority),
            plan=plan(DIFFUSION, options, learn_sigma=True),
            on_done=lambda outcome: None,
            submitted=self.now,
            due=due_time(self.now, float(steps), priority, deadline),
            order=self._order,
        )
        self._order += 1

    def second(self) -> list[str]:
        chosen = choose(self.rows.values(), self.max_rows, 2 * self.max_rows, 64, self.now)
        self.now += 1.0
        for row in self.rows.values():
            self.pauses += row.active and row not in chosen
            row.active = row in chosen
        for row in chosen:
            row.step += 1
            if row.step == len(row.plan):
                del self.rows[row.request.id]
                self.finished[row.request.id] = self.now
        return sorted(row.request.id for row in chosen)

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.second()


def test_short_request_overtakes_long_ones() -> None:
    machine = Machine(max_rows=4)
    for index in range(8):
        machine.arrive(f"long {index}", steps=100)
    machine.run(50)
    machine.arrive("short", steps=10)
    machine.run(10)
    assert machine.finished == {"short": 60.0}


def test_long_requests_of_one_kind_go_in_order_of_arrival_without_pauses() -> None:
    machine = Machine(max_rows=2)
    for index in range(6):
        machine.arrive(f"{index}", steps=50)
    machine.run(150)
    assert machine.finished == {"0": 50.0, "1": 50.0, "2": 100.0, "3": 100.0, "4": 150.0, "5": 150.0}
    assert machine.pauses == 0


@pytest.mark.parametrize("priority", [0, 1])
def test_no_starvation_under_a_steady_stream_of_short_or_urgent_requests(priority: int) -> None:
    """The stream alone is 4/3 of what the machine can do. Only what was due earlier goes before what is late."""
    machine = Machine(max_rows=1)
    machine.arrive("long", steps=20, priority=9)
    for index in range(3000):
        if index % 3 == 0:
            machine.arrive(f"short {index}", steps=4, priority=priority)
        machine.second()
    due = STRETCH * 10 * 20
    assert machine.finished["long"] <= 4 / 3 * due + 20
    assert machine.finished["long"] > due  # until it was due, all others went first


def test_priority_comes_before_the_deadline() -> None:
    machine = Machine(max_rows=1)
    machine.arrive("deadline", steps=5, deadline=6.0)
    machine.arrive("urgent", steps=5, priority=0)
    machine.run(5)
    assert machine.finished == {"urgent": 5.0}


def test_within_a_class_the_earliest_deadline_comes_first() -> None:
    machine = Machine(max_rows=1)
    deadlines = {"c": 28.0, "a": 12.0, "d": float("inf"), "b": 20.0}
    for name, deadline in deadlines.items():
        machine.arrive(name, steps=5, deadline=deadline)
    machine.run(20)
    assert heapq.nsmallest(4, machine.finished, key=machine.finished.__getitem__) == ["a", "b", "c", "d"]


def test_all_rows_go_on_while_there_is_room() -> None:
    machine = Machine(max_rows=3)
    for index in range(3):
        machine.arrive(f"{index}", steps=1 + index, priority=index)
    assert machine.second() == ["0", "1", "2"]


def test_a_step_takes_no_more_rows_than_make_the_engine_efficient() -> None:
    machine = Machine(max_rows=8)
    for index in range(6):
        machine.arrive(f"{index}", steps=5)
    rows = list(machine.rows.values())
    assert len(choose(rows, max_rows=8, enough=16, most=64, now=0.0)) == 6
    assert [row.request.id for row in choose(rows, max_rows=8, enough=3, most=64, now=0.0)] == ["0", "1", "2"]
    assert len(choose(rows, max_rows=2, enough=3, most=64, now=0.0)) == 2
    guided = dataclasses.replace(PLAIN, guidance_scale=2.0, steps=5)
    for row in rows:
        row.plan = plan(DIFFUSION, guided, learn_sigma=True)
    assert len(choose(rows, max_rows=8, enough=3, most=64, now=0.0)) == 2

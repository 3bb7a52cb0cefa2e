"""A tab that is loaded anew finds its pictures; nothing is kept for long, and nothing of visits without a name."""

from __future__ import annotations

from id3pm.page.visits import FORGOTTEN_AFTER_S, KEPT, Visits


def name(number: int) -> str:
    return f"{number:032x}"


def test_a_tab_that_comes_back_has_the_same_pictures_and_another_has_its_own() -> None:
    visits = Visits()
    assert visits.history(name(1)) is visits.history(name(1))
    assert visits.history(name(1)) is not visits.history(name(2))


def test_a_visit_without_a_proper_name_is_not_kept() -> None:
    visits = Visits()
    for wrong in (None, "", 7, "../x", name(1).upper().replace("0", "G"), name(1) + "\n"):
        assert visits.history(wrong) is not visits.history(wrong)


def test_a_visit_is_forgotten_when_it_was_away_for_long() -> None:
    now = 0.0
    visits = Visits(clock=lambda: now)
    first = visits.history(name(1))
    now += FORGOTTEN_AFTER_S - 1
    assert visits.history(name(1)) is first
    now += FORGOTTEN_AFTER_S + 1
    assert visits.history(name(1)) is not first


def test_the_visit_that_was_away_longest_makes_room() -> None:
    visits = Visits()
    first, second = visits.history(name(0)), visits.history(name(1))
    for number in range(2, KEPT):
        visits.history(name(number))
    assert visits.history(name(0)) is first
    visits.history(name(KEPT))
    assert visits.history(name(0)) is first and visits.history(name(1)) is not second

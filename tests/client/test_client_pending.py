"""Slots and calls on their way, by themselves. The asyncio client has the same logic: its source is the one of this."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from id3pm_client import Call, DeadlineExceededError
from id3pm_client import _sync_pending as pending_calls
from id3pm_client._slots import Slots
from id3pm_client._sync_pending import SyncPendingCalls

CALL = Call("id3pm", {"seed": np.zeros((1, 1), np.int64)}, ())


class Silent:
    """Gives its outcomes when it is told to; calls that are cancelled stay silent."""

    def __init__(self) -> None:
        self.answers: list[Callable[[Any], None]] = []

    def submit(self, call: Call, timeout_s: float, on_done: Callable[[Any], None]) -> Callable[[], None]:
        self.answers.append(on_done)
        return lambda: None


def test_slots_are_granted_in_the_order_of_the_requests_for_them() -> None:
    slots, granted = Slots(1), []
    first, second, third = (slots.request(lambda name=name: granted.append(name)) for name in "abc")
    assert granted == ["a"] and first.granted and not second.granted
    slots.give_back(second)  # it is no longer wanted
    slots.give_back(first)
    assert granted == ["a", "c"] and third.granted
    slots.give_back(third)
    assert slots.request(lambda: None).granted


def test_a_late_outcome_is_not_taken_for_that_of_the_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending_calls, "GRACE_S", 0.01)
    transport = Silent()
    with SyncPendingCalls() as pending:
        pending.send(transport, CALL, 0.01, key=0)
        arrived = pending.next()
        assert arrived is not None and isinstance(arrived[1], DeadlineExceededError)
        pending.send(transport, CALL, 60.0, key=0)
        transport.answers[0]({"late": np.ones(1)})
        transport.answers[1]({"image": np.ones(1)})
        arrived = pending.next()
        assert arrived is not None and list(arrived[1]) == ["image"]


def test_calls_that_are_left_are_given_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending_calls, "GRACE_S", 0.01)
    lost: list[int] = []
    with pytest.raises(OSError, match="disk full"), SyncPendingCalls() as pending:
        for key in range(2):
            pending.send(Silent(), CALL, 60.0, key, lambda key=key: lost.append(key))
        raise OSError("disk full")
    assert lost == [0, 1]

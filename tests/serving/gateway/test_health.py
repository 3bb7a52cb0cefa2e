"""Readiness, and the refusals while the service is not ready."""

from __future__ import annotations

import re

import pytest

from id3pm.serving.launcher.health import Addresses, Health, Phase
from id3pm.serving.protocol.status import RefusedError

HERE = Addresses("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")


def refused(health: Health, *, new_work: bool = True) -> str:
    with pytest.raises(RefusedError) as caught:
        health.require(new_work=new_work)
    assert caught.value.code == "unavailable"
    assert re.search(r"retry after \d+ s$", str(caught.value))
    return str(caught.value)


def test_ready_is_what_serves_and_nothing_else() -> None:
    health = Health()
    assert not health.ready
    assert "starting" in refused(health)
    health.serves(HERE)
    assert health.ready and health.require() == HERE
    health.breaks()
    assert not health.ready
    assert "being restarted" in refused(health)
    assert "being restarted" in refused(health, new_work=False)
    health.starts()
    health.serves(HERE)
    assert health.ready


def test_draining_answers_questions_but_takes_no_work_and_is_final() -> None:
    health = Health()
    health.serves(HERE)
    health.drains()
    assert "draining" in refused(health)
    assert health.require(new_work=False) == HERE
    health.breaks()
    health.serves(HERE)
    assert health.phase is Phase.DRAINING and not health.ready


def test_a_request_lost_before_anybody_noticed_wakes_the_supervisor() -> None:
    health = Health()
    health.serves(HERE)
    assert "being restarted" in str(health.unavailable())
    assert health.suspicion.is_set()

"""What newer Triton servers ask a model: whether it is ready."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from stand_in_triton import StandInTriton, control

from id3pm.serving.models.backend_model import BackendModel, TritonModel
from id3pm.serving.models.diffusion_stages import DenoiserModel


def behind(model: BackendModel) -> TritonModel:
    """As Triton's model.py has it."""

    class Model(TritonModel):
        backend, kind = StandInTriton, BackendModel  # type: ignore[assignment, type-abstract]
        args: ClassVar[dict[str, str]] = {}

    made = Model()
    made.model = model
    return made


def test_a_model_is_ready_until_it_drains(model: DenoiserModel) -> None:
    asked = behind(model)
    assert asked.is_ready() is True  # a bool, or Triton takes it for an error
    model.accept(control("drain", ""))
    assert asked.is_ready() is False


@pytest.mark.parametrize(
    ("state", "ready"),
    [
        ({"loop_age_ms": 60_000}, True),
        ({"loop_age_ms": 60_000, "waiting": 1}, False),
        ({"loop_age_ms": 10, "answer_age_ms": 60_000}, False),
    ],
)
def test_a_model_with_a_hung_thread_is_not_ready(
    model: DenoiserModel, monkeypatch: pytest.MonkeyPatch, state: dict[str, Any], ready: bool
) -> None:
    monkeypatch.setattr(model, "_status", lambda: {"draining": False, "step_ms": 10.0, **state})
    assert behind(model).is_ready() is ready

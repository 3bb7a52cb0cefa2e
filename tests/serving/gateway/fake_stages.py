"""Stages that answer `infer` and `watch` as the contract says, at a pace that the test sets."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2

from id3pm.serving.gateway.origin import Origin
from id3pm.serving.protocol.status import RefusedError

PREVIEW = "cHJldmlldw=="
PNG = "cG5n"


class FakeStages:
    """As much of an `Upstream` as a story needs.

    Args:
        steps: Steps of each stage.
        step_s: Seconds of each step; watches are answered at once when one is done.
        fails: What a model answers instead of its outputs.
    """

    def __init__(self, steps: int = 4, step_s: float = 0.1, **fails: RefusedError) -> None:
        self.steps = steps
        self.step_s = step_s
        self.fails = fails
        self.messages: dict[str, Any] = {}
        self.limits: dict[str, float | None] = {}
        self.watches: list[tuple[str, ...]] = []
        self.cancelled: list[str] = []
        self._at: dict[str, int] = {}
        self._changed = asyncio.Condition()

    async def infer(self, message: Any, timeout_s: float | None = None) -> Any:
        model = message.model_name
        self.messages[model] = message
        self.limits[model] = timeout_s
        await asyncio.sleep(self.step_s)  # on its way
        if model in self.fails:
            raise self.fails[model]
        if model == "face_embedding":
            found = {"faces": np.array([2], "<i4"), "turned": np.array([-90], "<i4")}
            wanted = {name: found[name].tobytes() for name in found if name in {out.name for out in message.outputs}}
            return answer(embedding=np.ones(128, dtype="<f4").tobytes(), **wanted)
        for step in range(self.steps):
            await self._reach(model, step)
            await asyncio.sleep(self.step_s)
        async with self._changed:
            del self._at[model]
            self._changed.notify_all()
        if message.id in self.cancelled:
            raise RefusedError("cancelled", "the request was cancelled")
        if model == "denoiser_64":
            return answer(image_64=bytes(64 * 64 * 3), receipt_64=element('{"seed": 1}'))
        return answer(png=element(PNG), receipt=element('{"seed": 1, "sr": {}}'))

    async def control(self, model: str, *words: str, origin: Origin) -> dict[str, Any]:
        if words[0] == "cancel":
            self.cancelled.append(words[1])
            return {"id": words[1], "found": model in self._at}
        op, request_id, after, preview = words
        assert op == "watch"
        self.watches.append((model, *words))
        async with self._changed:
            await self._changed.wait_for(lambda: self._at.get(model, 10**6) > int(after))
            if model not in self._at:
                return {"id": request_id, "found": False}
            step = self._at[model]
        picture = PREVIEW if preview == "1" and (step > 0 or model == "super_resolution") else None
        row = {"done": False, "step": step, "steps": self.steps, "preview_png": picture}
        return {"id": request_id, "found": True, "rows": [row]}

    async def _reach(self, model: str, step: int) -> None:
        async with self._changed:
            self._at[model] = step
            self._changed.notify_all()


def answer(**tensors: bytes) -> Any:
    response = service_pb2.ModelInferResponse()
    for name, raw in tensors.items():
        response.outputs.add(name=name)
        response.raw_output_contents.append(raw)
    return response


def element(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(4, "little") + data

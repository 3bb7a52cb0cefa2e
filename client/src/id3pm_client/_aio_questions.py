"""What the asyncio client asks a server about itself: readiness, state, what it serves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from id3pm_client import _base as base
from id3pm_client import _contract as contract
from id3pm_client._aio_requests import AsyncRequests, control
from id3pm_client._answers import control_answer, description
from id3pm_client._errors import DeadlineExceededError, NotServedError, UnavailableError
from id3pm_client._request import Tensors


class AsyncQuestions(AsyncRequests):
    """Readiness, ping and description."""

    async def ping(self, url: str | None = None) -> dict[str, Mapping[str, Any]]:
        """What each stage's scheduler says about itself; see `Client.ping`."""
        self._begin()
        calls = base.ping_calls(self._server_pool.server(url))
        answers = {}
        for (_, call), outcome in zip(calls, await self._ask(calls, base.CONTROL_TIMEOUT_S), strict=True):
            if isinstance(outcome, BaseException):
                raise outcome
            answers[call.model] = control_answer(outcome)
        return answers

    async def describe(self, url: str | None = None) -> Mapping[str, Any]:
        """What a server serves and may be asked for; see `Client.describe`."""
        self._begin()
        answers: list[Tensors] = []
        for outcome in await self._ask(base.describe_calls(self._server_pool.server(url)), base.CONTROL_TIMEOUT_S):
            if isinstance(outcome, BaseException):
                raise outcome
            answers.append(outcome)
        return description(*answers)

    async def is_ready(self) -> bool:
        """Whether at least one server can be reached and says that it takes requests."""
        self._begin()
        for server in self._server_pool.servers:
            try:
                if await control(server.transport.is_ready(contract.ID3PM, base.CONTROL_TIMEOUT_S)):
                    return True
            except (UnavailableError, DeadlineExceededError, NotServedError):
                continue
        return False

    async def server_info(self, url: str | None = None) -> base.ServerInfo:
        """Name, version and readiness of a server and of its models; see `Client.server_info`."""
        self._begin()
        wire = self._server_pool.server(url).transport
        name, version = await control(wire.server_metadata(base.CONTROL_TIMEOUT_S))
        models = {model: await control(wire.is_ready(model, base.CONTROL_TIMEOUT_S)) for model in contract.MODELS}
        return base.ServerInfo(name, version, await control(wire.is_ready(None, base.CONTROL_TIMEOUT_S)), models)

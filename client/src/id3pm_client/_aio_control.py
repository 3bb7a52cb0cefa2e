"""Control requests of the asyncio client: readiness, ping, description."""

from __future__ import annotations

from id3pm_client import _base as base
from id3pm_client import _contract as contract
from id3pm_client._aio_requests import AsyncRequests
from id3pm_client._answers import control_answer, description
from id3pm_client._calls import describe_calls, ping_calls
from id3pm_client._errors import ClientError, DeadlineExceededError, NotServedError, UnavailableError
from id3pm_client._types import JsonObject, Tensors


class AsyncControl(AsyncRequests):
    """Readiness, ping and description."""

    async def ping(self, url: str | None = None) -> dict[str, JsonObject]:
        """The state of each stage's scheduler: active and waiting requests, age of its loop in ms.

        Unlike `is_ready`, this reaches the process that does the work.

        Args:
            url: Which of this client's servers; `None` for the first.

        Raises:
            InvalidRequestError: No server of this client.
            ClientError: A stage gave no answer.
        """
        await self._enter()
        calls = ping_calls(self._server_pool.server(url))
        answers = {}
        for (_, call), outcome in zip(calls, await self._call_all(calls, base.CONTROL_TIMEOUT_S), strict=True):
            if isinstance(outcome, ClientError):
                raise outcome
            answers[call.model] = control_answer(outcome)
        return answers

    async def describe(self, url: str | None = None) -> JsonObject:
        """What a server serves and may be asked for.

        Args:
            url: Which of this client's servers; `None` for the first.

        Returns:
            `bundle` (name), `id_vector_model`, `identity_dim`, `l2_normalised` (whether ID vectors must have norm 1),
            `image_sizes` (px of `image_64` and `image`), `defaults` (what each sampling option is where it is left
            out), `guidance_range` (the scales that a student was taught; `None` for other bundles), `presets` (what
            `defaults` is, for each preset), `attribute_set` (`None` without attributes) and `attributes`: a list of
            fields, each with `name`, `group`, `low`, `high`, `unit`, `default`, `free` and `needed`. Without any
            attribute all of them are free. Where some are given, each of the others stays free if it is `free`, else
            takes its `default`; of the `needed` fields of a group at least one must be given.

        Raises:
            InvalidRequestError: No server of this client.
            ClientError: No answer.
        """
        await self._enter()
        answers: list[Tensors] = []
        for outcome in await self._call_all(describe_calls(self._server_pool.server(url)), base.CONTROL_TIMEOUT_S):
            if isinstance(outcome, ClientError):
                raise outcome
            answers.append(outcome)
        return description(*answers)

    async def discover(self) -> tuple[str, ...]:
        """The servers of this client now, `host:port` each; names (`dns:///`) have been looked up.

        Raises:
            ClosedClientError: This client has been closed.
        """
        await self._enter()
        return self.urls

    async def is_ready(self) -> bool:
        """Whether at least one server can be reached and says that it takes requests."""
        await self._enter()
        for server in self._server_pool.servers:
            try:
                if await self._is_ready(server, contract.ID3PM):
                    return True
            except (UnavailableError, DeadlineExceededError, NotServedError):
                continue
        return False

    async def server_info(self, url: str | None = None) -> base.ServerInfo:
        """Name, version and readiness of a server and of its models.

        Args:
            url: Which of this client's servers; `None` for the first.

        Raises:
            InvalidRequestError: No server of this client.
            ClientError: No answer.
        """
        await self._enter()
        server = self._server_pool.server(url)
        name, version = await self._server_metadata(server)
        models = {model: await self._is_ready(server, model) for model in contract.MODELS}
        return base.ServerInfo(name, version, await self._is_ready(server, None), models)

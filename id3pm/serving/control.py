"""Questions and orders to the stages of a running server, over plain HTTP: needs no client library."""

from __future__ import annotations

import http.client
import json
from typing import Any

from id3pm.errors import ServerError

TIMEOUT_S = 5.0


def is_ready(host: str, port: int, timeout_s: float = TIMEOUT_S) -> bool:
    """Whether Triton says that it and all its models are ready."""
    try:
        status, _ = _exchange(host, port, "GET", "/v2/health/ready", None, timeout_s)
    except ServerError:
        return False
    return status == 200


def control(host: str, port: int, model: str, op: str, *arguments: str, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """Sends a control request to a stage's model.

    Args:
        host: Address of the server.
        port: Its HTTP port.
        model: `denoiser_64` or `super_resolution`.
        op: One of `wire.CONTROL_OPS`.
        *arguments: What the operation needs: a request id, and for `watch` the step to wait for.
        timeout_s: Seconds to wait for the answer; a healthy model takes milliseconds, or 5 s more for `watch`.

    Raises:
        ServerError: The server cannot be reached, or the model gave no sensible answer.
    """
    data = [op, *arguments]
    body = {
        "inputs": [{"name": "control", "shape": [1, len(data)], "datatype": "BYTES", "data": data}],
        "outputs": [{"name": "status", "parameters": {"binary_data": False}}],
    }
    status, answer = _exchange(host, port, "POST", f"/v2/models/{model}/infer", json.dumps(body), timeout_s)
    try:
        decoded = json.loads(answer)
        if status != 200:
            raise ServerError(f"{model} refused control {op}: {decoded['error']}")
        state = json.loads(decoded["outputs"][0]["data"][0])
    except (ValueError, LookupError, TypeError) as error:
        raise ServerError(f"{model} gave no sensible answer to control {op}: {answer[:200]!r}") from error
    if not isinstance(state, dict):
        raise ServerError(f"{model} gave no sensible answer to control {op}: {answer[:200]!r}")
    return state


def _exchange(host: str, port: int, method: str, path: str, body: str | None, timeout_s: float) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)  # unlike urllib, asks no proxy
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(f"no answer from the server on {host}, port {port}: {error}") from error
    finally:
        connection.close()

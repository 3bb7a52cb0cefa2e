"""Settings and closing of a client."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from id3pm_client import ClosedClientError, InvalidRequestError

VECTOR = np.ones(4)


def test_a_closed_client_says_so(client: Any) -> None:
    client.close()
    for use in (lambda: client.generate(VECTOR, 1), client.ping, client.is_ready, client.server_info):
        with pytest.raises(ClosedClientError, match="has been closed") as caught:
            use()
        assert isinstance(caught.value, RuntimeError)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "http://127.0.0.1:8000"}, "give host:port of the gRPC endpoint"),
        ({"url": "localhost"}, "give host:port"),
        ({"timeout_s": -1}, "timeout_s=-1"),
        ({"timeout_s": "5"}, "timeout_s='5'"),
        ({"max_in_flight": 0}, "max_in_flight=0"),
        ({"max_in_flight": True}, "max_in_flight=True"),
        ({"root_certificates": "ca.pem"}, "root_certificates has no effect without ssl"),
        ({"client_key": "key.pem"}, "client_key has no effect without ssl"),
        ({"ssl": True, "client_key": "key.pem"}, "client_certificate and client_key belong together"),
        ({"url": []}, "give at least one host:port"),
        ({"url": ["a:1", "b:1", "a:1"]}, "url='a:1' is there 2 times"),
        ({"url": ["a:1", "b"]}, "url='b': give host:port"),
        ({"url": ["a:1", "b:1"]}, "1 transports for 2 servers"),
        ({"token": "", "ssl": True}, "token: must not be empty"),
        ({"token": "two words", "ssl": True}, "token: must not be empty or contain spaces"),
        ({"token": "line\n", "ssl": True}, "token: must be printable ASCII"),
        ({"token": "t", "ssl": True, "headers": {"Authorization": "x"}}, "say the same"),
        ({"token": "t", "url": "10.0.0.1:8001"}, "a token for 10.0.0.1:8001 would travel unencrypted"),
    ],
)
def test_a_bad_setting_is_named(make_client: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        make_client(**settings)

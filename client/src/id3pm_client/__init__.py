"""Client of an ID3PM server: ID vector and seed in, faces of that identity out.

from id3pm_client import Client

with Client("127.0.0.1:8001") as client:
    image = client.generate(client.embed("portrait.jpg").vector, seed=1)
    image.save("face.png")
"""

from id3pm_client._aio import AsyncClient
from id3pm_client._base import ServerInfo
from id3pm_client._contract import Options
from id3pm_client._errors import (
    AccessDeniedError,
    CancelledRequestError,
    ClientError,
    ClosedClientError,
    ConnectionFailedError,
    DeadlineExceededError,
    InternalServerError,
    InvalidRequestError,
    NotServedError,
    OverloadedError,
    ReplayError,
    UnavailableError,
    WrongEndpointError,
)
from id3pm_client._images import Embedding, GeneratedImage
from id3pm_client._replay import ReceiptSource
from id3pm_client._request import Call, Retry
from id3pm_client._stream import Event, Image64, Progress
from id3pm_client._sync import Client
from id3pm_client._transport import AsyncTransport, SyncTransport
from id3pm_client._version import __version__

__all__ = [
    "AccessDeniedError",
    "AsyncClient",
    "AsyncTransport",
    "Call",
    "CancelledRequestError",
    "Client",
    "ClientError",
    "ClosedClientError",
    "ConnectionFailedError",
    "DeadlineExceededError",
    "Embedding",
    "Event",
    "GeneratedImage",
    "Image64",
    "InternalServerError",
    "InvalidRequestError",
    "NotServedError",
    "Options",
    "OverloadedError",
    "Progress",
    "ReceiptSource",
    "ReplayError",
    "Retry",
    "ServerInfo",
    "SyncTransport",
    "UnavailableError",
    "WrongEndpointError",
    "__version__",
]

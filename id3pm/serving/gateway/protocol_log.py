"""Counts connections that speak no HTTP; what they sent is not logged."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from aiohttp.http import HttpProcessingError

from id3pm.serving.gateway.metrics import Counters

if TYPE_CHECKING:
    Adapter = logging.LoggerAdapter[logging.Logger]
else:
    Adapter = logging.LoggerAdapter


class ProtocolLog(Adapter):
    """Stands in for aiohttp's logger, which writes a traceback with the bytes that it could not read.

    Whoever reaches the port can cause that before any token is asked for: they would fill the log, and with what they
    like, or with what they did not want to be written anywhere.

    Args:
        counters: Count such requests.
    """

    def __init__(self, counters: Counters) -> None:
        super().__init__(logging.getLogger(__name__), {})
        self._counters = counters

    def exception(self, msg: object, *args: object, exc_info: Any = True, **kwargs: Any) -> None:
        """Counts what is no HTTP; of anything else the log gets the kind of the error."""
        if isinstance(exc_info, HttpProcessingError):
            self._counters.count("http", "400")
        else:
            self.error(f"{msg} (%s)", *args, type(exc_info).__name__)

    def debug(self, msg: object, *args: object, exc_info: Any = None, **kwargs: Any) -> None:
        """The same for a connection whose first bytes are no HTTP."""
        if isinstance(exc_info, HttpProcessingError):
            self._counters.count("http", "400")

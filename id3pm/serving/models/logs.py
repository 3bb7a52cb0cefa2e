"""Log lines of this package in Triton's log."""

from __future__ import annotations

import logging

from id3pm.serving.models.triton_types import Backend, BackendLogger

PACKAGE = "id3pm"


class TritonLogHandler(logging.Handler):
    """Passes records on to Triton, at Triton's level for them.

    Args:
        logger: `triton_python_backend_utils.Logger`.
    """

    def __init__(self, logger: BackendLogger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        try:
            message = self.format(record)
            if record.levelno >= logging.ERROR:
                self._logger.log_error(message)
            elif record.levelno >= logging.WARNING:
                self._logger.log_warn(message)
            else:
                self._logger.log_info(message)
        except Exception:
            self.handleError(record)


def log_to_triton(pb: Backend) -> TritonLogHandler:
    """Sends the log of this package, from INFO up, to Triton.

    Args:
        pb: Triton's `triton_python_backend_utils`.

    Returns:
        What `stop_logging` ends.
    """
    handler = TritonLogHandler(pb.Logger)
    logger = logging.getLogger(PACKAGE)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    return handler


def stop_logging(handler: TritonLogHandler) -> None:
    """Sends no more to Triton."""
    logging.getLogger(PACKAGE).removeHandler(handler)


def shown(request_id: str) -> str:
    """A caller's request id as log lines and messages show it: short, on one line."""
    return repr(request_id[:64]) if request_id else "(no id)"

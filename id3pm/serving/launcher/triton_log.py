"""Log lines for the operator: those of Triton's log that matter, and an outlet that may fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_CAUSE_STARTS = ("E", "terminate called", "  what():", "Signal (")
"""Of lines that say why a server died: Triton's errors, the C++ runtime's words before it aborts, a fatal signal."""


class Outlet:
    """Passes on lines for the operator. A line that cannot be written is dropped and counted: no work stops for it.

    A disk may be full, and stderr closed or a pipe without a reader; rich ends the thread where it finds one broken.

    Args:
        write: Takes it; whatever it raises is swallowed.
        on_drop: Called for everything that is dropped.
    """

    def __init__(self, write: Callable[..., object], on_drop: Callable[[], object] = lambda: None) -> None:
        self._write = write
        self._on_drop = on_drop

    def __call__(self, *words: object, **style: object) -> None:
        """Passes a line on."""
        try:
            self._write(*words, **style)
        except (Exception, SystemExit):
            self._on_drop()


def is_error(line: str) -> bool:
    """Whether a line is a real error: messages about a missing GPU are not."""
    return line.startswith("E") and not _is_noise(line)


def last_words(log: Sequence[str], lines: int = 20) -> str:
    """The reason why a server died: the models that it could not load, or else its last lines.

    Args:
        log: The server's log.
        lines: Most lines to show; error lines first.
    """
    if reasons := dict(filter(None, map(_not_loaded, log))):
        return "\n".join(f"{model} cannot be loaded: {reason}" for model, reason in reasons.items())
    log = [line for line in log if not _is_noise(line)]
    causes = [line for line in log if line.startswith(_CAUSE_STARTS) or "rror" in line or "failed" in line]
    return "\n".join((causes or log)[-lines:])


def _not_loaded(line: str) -> tuple[str, str] | None:
    """Model and reason, where a line is a row of the table that Triton prints before it gives up.

    The row is `| model | version | UNAVAILABLE: Internal: EngineError: reason |`; `Internal:` and the error's class
    come from the Python backend, and may be missing.
    """
    cells = [cell.strip() for cell in line.split("|", 3)]
    if len(cells) < 4 or cells[0] or not cells[2].isdecimal() or not cells[3].startswith("UNAVAILABLE: "):
        return None
    reason = cells[3].removesuffix("|").rstrip().removeprefix("UNAVAILABLE: ").removeprefix("Internal: ")
    kind, colon, rest = reason.partition("Error: ")
    return cells[1], rest if colon and kind.isidentifier() else reason


def _is_noise(line: str) -> bool:
    return "CudaDriverHelper has not been initialized" in line or "CUDA driver version is insufficient" in line

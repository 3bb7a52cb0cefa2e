"""Every exception that this package raises on purpose.

    Id3pmError
    ├── ConfigError (ValueError)           a configuration key or value is not allowed
    ├── MissingExtraError (ImportError)    an optional dependency is not installed
    ├── InvalidInputError (ValueError)     a request or a file from a user breaks a rule
    │   ├── InvalidOptionError             a sampling option is outside its range
    │   ├── ImageError                     a picture breaks a rule
    │   │   ├── ImageTooLargeError         it has too many bytes or pixels
    │   │   ├── UnsupportedImageError      it is no JPEG, PNG or WebP file
    │   │   └── DamagedImageError          it cannot be decoded
    │   └── FaceError                      the picture does not show one usable face
    │       ├── NoFaceError
    │       ├── FaceTooSmallError
    │       └── SeveralFacesError
    ├── TransferError                      a bundle or an engine set cannot be pulled or pushed
    ├── BundleError                        a bundle folder is incomplete or damaged
    │   └── CheckpointError                checkpoint keys or shapes do not fit the architecture
    ├── EngineError                        an engine cannot be built, loaded or run
    │   ├── EngineMissingError
    │   └── ParityError                    an engine differs from the reference model
    ├── SchedulerError                     a request was accepted by no scheduler, or dropped by one
    │   ├── OverloadedError                the queue is full
    │   │   └── DrainingError              the scheduler takes no new work
    │   ├── DeadlineError                  the request's deadline passed
    │   └── CancelledError                 the caller cancelled the request
    │       └── StoppedError               the server shut down before the request was done
    └── ServerError                        the Triton server cannot be started or died

Messages say what was given, what is allowed and what to do; they never contain file paths of a server. Each class has
the `code` under which callers of a service meet it: `id3pm.error_codes`.
"""

from __future__ import annotations

from typing import ClassVar


class Id3pmError(Exception):
    """Base of all exceptions of this package.

    Attributes:
        code: A key of `id3pm.error_codes.ERROR_CODES`.
        retry_after_s: Seconds after which the request may be sent again, where that may help.
    """

    code: ClassVar[str] = "internal"
    retry_after_s: float | None = None


class ConfigError(Id3pmError, ValueError):
    """A configuration key or value is not allowed."""


class MissingExtraError(Id3pmError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class InvalidInputError(Id3pmError, ValueError):
    """A user's input breaks a rule; the message names the value and the rule."""

    code = "invalid_argument"


class InvalidOptionError(InvalidInputError):
    """A sampling option is unknown or outside its range."""


class ImageError(InvalidInputError):
    """A picture breaks a rule."""

    code = "invalid_image"


class ImageTooLargeError(ImageError):
    """A picture has more bytes or pixels than allowed."""

    code = "image_too_large"


class UnsupportedImageError(ImageError):
    """A file is no picture of a type that is read here."""

    code = "unsupported_image"


class DamagedImageError(ImageError):
    """A picture cannot be decoded."""

    code = "damaged_image"


class FaceError(InvalidInputError):
    """A picture does not show one usable face."""


class NoFaceError(FaceError):
    """The detector found no face."""

    code = "no_face"


class FaceTooSmallError(FaceError):
    """The face has too few pixels for a meaningful ID vector."""

    code = "face_too_small"


class SeveralFacesError(FaceError):
    """Several faces were found where exactly one was asked for."""

    code = "several_faces"


class TransferError(Id3pmError):
    """A bundle or an engine set cannot be pulled from a hub or a registry, or pushed to one."""


class BundleError(Id3pmError):
    """A bundle folder is incomplete or damaged."""


class CheckpointError(BundleError):
    """Checkpoint keys or shapes do not fit the architecture."""


class EngineError(Id3pmError):
    """An engine cannot be built, loaded or run."""


class EngineMissingError(EngineError):
    """No engine has been built where one is needed."""


class ParityError(EngineError):
    """An engine's output differs from the reference model by more than is allowed."""


class SchedulerError(Id3pmError):
    """A request was not taken by the scheduler, or was dropped by it."""


class OverloadedError(SchedulerError):
    """The queue is full; try again later."""

    code = "queue_full"

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DrainingError(OverloadedError):
    """The scheduler is draining and takes no new work."""

    code = "draining"


class DeadlineError(SchedulerError):
    """The request's deadline passed before it was done."""

    code = "deadline_exceeded"


class CancelledError(SchedulerError):
    """The caller cancelled the request."""

    code = "cancelled"


class StoppedError(CancelledError):
    """The server shut down before the request was done."""

    code = "stopped"


class ServerError(Id3pmError):
    """The Triton server cannot be started, or died."""


def os_reason(error: OSError) -> str:
    """The text of an operating-system error: the reason and the files, without its number."""
    files = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return ": ".join([error.strerror or str(error), " -> ".join(files)] if files else [error.strerror or str(error)])

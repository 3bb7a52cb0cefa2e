"""Every exception that this package raises on purpose.

    Id3pmError
    ├── ConfigError (ValueError)           a configuration key or value is not allowed
    ├── MissingExtraError (ImportError)    an optional dependency is not installed
    ├── InvalidInputError (ValueError)     a request or a file from a user breaks a rule
    │   ├── InvalidOptionError             a sampling option is outside its range
    │   ├── ImageError                     a picture cannot be decoded or is too large
    │   └── FaceError                      the picture does not show one usable face
    │       ├── NoFaceError
    │       ├── FaceTooSmallError
    │       └── SeveralFacesError
    ├── BundleError                        a bundle folder is incomplete or damaged
    │   └── CheckpointError                checkpoint keys or shapes do not fit the architecture
    ├── EngineError                        an engine cannot be built, loaded or run
    │   ├── EngineMissingError
    │   └── ParityError                    an engine differs from the reference model
    ├── SchedulerError                     a request was accepted by no scheduler, or dropped by one
    │   ├── OverloadedError                the queue is full
    │   ├── DrainingError                  the scheduler takes no new work
    │   ├── DeadlineError                  the request's deadline passed
    │   └── CancelledError                 the caller cancelled the request
    └── ServerError                        the Triton server cannot be started or died

Messages say what was given, what is allowed and what to do; they never contain file paths of a server.
"""


class Id3pmError(Exception):
    """Base of all exceptions of this package."""


class ConfigError(Id3pmError, ValueError):
    """A configuration key or value is not allowed."""


class MissingExtraError(Id3pmError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class InvalidInputError(Id3pmError, ValueError):
    """Something that a user sent breaks a rule; the message names the value and the rule."""


class InvalidOptionError(InvalidInputError):
    """A sampling option is unknown or outside its range."""


class ImageError(InvalidInputError):
    """A picture cannot be decoded, or is larger than allowed."""


class FaceError(InvalidInputError):
    """A picture does not show one usable face."""


class NoFaceError(FaceError):
    """The detector found no face."""


class FaceTooSmallError(FaceError):
    """The face has too few pixels for an ID vector to mean anything."""


class SeveralFacesError(FaceError):
    """Several faces were found where exactly one was asked for."""


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


class DrainingError(SchedulerError):
    """The scheduler is draining and takes no new work."""


class DeadlineError(SchedulerError):
    """The request's deadline passed before it was done."""


class CancelledError(SchedulerError):
    """The caller cancelled the request."""


class ServerError(Id3pmError):
    """The Triton server cannot be started, or died."""


def os_reason(error: OSError) -> str:
    """An operating-system error for a person: the reason and the files, without its number."""
    files = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return ": ".join([error.strerror or str(error), " -> ".join(files)] if files else [error.strerror or str(error)])

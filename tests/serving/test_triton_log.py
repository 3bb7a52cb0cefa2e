from __future__ import annotations

import errno
import io
import time
import types

import pytest

from id3pm.serving.launcher.settings import ServerSettings
from id3pm.serving.launcher.triton_log import is_error, last_words
from id3pm.serving.launcher.triton_server import TritonServer

# As tritonserver 2.51 wrote them, shortened.
NO_GPU = 'E1123 14:12:10.1 99 cuda.cc:1] "CUDA driver version is insufficient for CUDA runtime version"'
ENSEMBLE = "E1123 14:12:12.9 99 model_repository_manager.cc:703] \"Invalid argument: ensemble 'id3pm' depends on ...\""
TABLE = """
+------------------+---------+--------------------------------------------------------------+
| Model            | Version | Status                                                       |
+------------------+---------+--------------------------------------------------------------+
| denoiser_64      | 1       | READY                                                        |
| super_resolution | 1       | UNAVAILABLE: Internal: EngineError: model.onnx is damaged    |
+------------------+---------+--------------------------------------------------------------+
""".strip().splitlines()


def test_a_model_that_cannot_be_loaded_is_named_with_its_reason_alone() -> None:
    log = [NO_GPU, ENSEMBLE, *TABLE, "error: creating server: Internal - failed to load all models"]
    assert last_words(log) == "super_resolution cannot be loaded: model.onnx is damaged"


def test_a_fatal_signal_is_shown() -> None:
    assert last_words(["I1 ready", "Signal (11) received.", " 0# 0x1 in tritonserver", "a caller's Error"]) == (
        "Signal (11) received.\na caller's Error"
    )


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("UNAVAILABLE: Internal: EngineError: model.onnx is damaged   ", "model.onnx is damaged"),
        ("UNAVAILABLE: Internal: no memory: 3 Error: a | b", "no memory: 3 Error: a | b"),
        ("UNAVAILABLE: Not found: no file", "Not found: no file"),
    ],
)
def test_a_reason_is_shown_without_what_the_backend_puts_before_it(status: str, reason: str) -> None:
    assert last_words([f"| denoiser_64      | 1       | {status} |"]) == f"denoiser_64 cannot be loaded: {reason}"


@pytest.mark.parametrize(
    "line", ["| a |" + " " * 10**6 + "x", "|" * 10**6, "| a | 1 | UNAVAILABLE: " + "Error: " * 10**5]
)
def test_a_line_of_any_length_is_read_in_time(line: str) -> None:
    began = time.process_time()
    last_words([line])
    assert time.process_time() - began < 0.5


def test_without_such_a_model_the_lines_that_speak_of_errors_are_shown() -> None:
    assert last_words(["I1 starting", NO_GPU, "error: no space left", "I1 done"]) == "error: no space left"
    assert last_words(["I1 one", "I1 two", "I1 three"], lines=2) == "I1 two\nI1 three"
    assert last_words([]) == ""


def test_a_machine_without_a_gpu_is_no_error() -> None:
    assert is_error(ENSEMBLE)
    assert not is_error(NO_GPU)
    assert not is_error("I1123 started")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), SystemExit(1)])
def test_who_cannot_show_lines_does_not_close_the_servers_log(error: BaseException) -> None:
    shown: list[str] = []

    def show(line: str) -> None:
        shown.append(line)
        raise error

    server = TritonServer("repository", ServerSettings(on_log=show))
    pipe = io.StringIO("one\n" + "x" * 10_000 + "\nlast\n")
    server._read_log(types.SimpleNamespace(stdout=pipe))  # type: ignore[arg-type]
    assert shown[0] == "one" and shown[-1] == "last" and max(map(len, shown)) == 4096
    assert list(server._log) == shown

"""Whether there is a Triton server to measure."""

from __future__ import annotations


def why_no_triton() -> str | None:
    """What is missing for a real server and its client; `None` where nothing is."""
    try:
        from id3pm.serving.launcher.runtime import find_runtime

        find_runtime()
        import id3pm_client  # noqa: F401
    except Exception as error:  # whatever it is, the rest can be measured without
        return str(error)
    return None

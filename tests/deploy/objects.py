"""Finds parts of rendered objects."""

from __future__ import annotations

from typing import Any


def of_kind(objects: list[dict], kind: str) -> dict[str, dict]:
    """Objects of a kind by name."""
    return {found["metadata"]["name"]: found for found in objects if found["kind"] == kind}


def pods(objects: list[dict]) -> dict[str, dict]:
    """The specifications of all pods by the name of what makes them."""
    makers = (found for found in objects if found["kind"] in ("Deployment", "Job"))
    return {f"{found['kind']} {found['metadata']['name']}": found["spec"]["template"]["spec"] for found in makers}


def container(pod: dict) -> dict:
    """The one container of a pod."""
    (only,) = pod["containers"]
    return only


def argument(pod: dict, name: str) -> str | None:
    """The value of an option of the container; `None` where it is not given."""
    prefix = f"--{name}="
    return next((word.removeprefix(prefix) for word in container(pod)["args"] if word.startswith(prefix)), None)


def seconds(probe: dict) -> int:
    """How long a probe may fail."""
    return probe["periodSeconds"] * probe["failureThreshold"]


def everything(value: Any) -> list[tuple[str, Any]]:
    """All pairs of key and value, at any depth."""
    found: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        for key, part in value.items():
            found += [(key, part), *everything(part)]
    elif isinstance(value, list):
        for part in value:
            found += everything(part)
    return found

"""Helm, and what the chart renders with the value sets in `values/`."""

from __future__ import annotations

import functools

import pytest
from helm import VALUES, Helm, Render, extract_helm
from made_once import made_once


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """The real program."""
    return Helm(made_once(tmp_path_factory, "helm", extract_helm) / "helm")


@pytest.fixture(scope="session")
def rendered(helm: Helm) -> Render:
    """The objects of a value set; rendered once, read-only for tests."""

    @functools.cache
    def render(name: str) -> list[dict]:
        return helm.objects("-f", str(VALUES / f"{name}.yaml"))

    return render

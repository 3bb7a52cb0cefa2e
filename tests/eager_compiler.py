"""`torch.compile` without inductor, whose kernels take minutes to compile: the graph that it finds is run as it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch


@dataclasses.dataclass
class Given:
    """What a call of `torch.compile` was given, and the graphs that were compiled since."""

    options: dict[str, object]
    graphs: int = 0


class EagerCompiler:
    """In place of `torch.compile`; its arguments stay the real ones, so what cannot be one graph still raises."""

    def __init__(self) -> None:
        self.calls: list[Given] = []
        self._compile = torch.compile

    def __call__(self, network: Any, *, options: dict[str, object] | None = None, **how: Any) -> Any:
        options = options or {}
        known = set(torch._inductor.list_options())
        assert set(options) <= known, "the compiler has no such option"
        given = Given(options)
        self.calls.append(given)

        def run_as_it_is(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
            given.graphs += 1
            return graph.forward

        return self._compile(network, **{**how, "backend": run_as_it_is})

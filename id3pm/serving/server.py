"""`id3pm serve`: the Triton server in the foreground."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from id3pm.errors import ServerError
from id3pm.serving.launcher import TritonServer
from id3pm.serving.triton_log import is_error

__all__ = ["TritonServer", "serve_command"]

_ECHO_S = 1.0  # `timeout` and some supervisors send one stop twice: to the process and to its group

_MODELS = (
    ("id3pm", "ID vector, seed -> faces at 256 px and 64 px, receipt"),
    ("id3pm_photo", "photograph, seed -> faces, receipt, ID vector"),
    ("id3pm_png", "ID vector, seed -> PNG as base64, for curl"),
    ("id3pm_photo_png", "photograph as base64, seed -> PNG as base64, for curl"),
    ("face_embedding", "photograph -> ID vector"),
    ("denoiser_64", "one stage: ID vector, seed -> face at 64 px"),
    ("super_resolution", "one stage: face at 64 px, seed -> face at 256 px"),
)
_CURL = r"""(printf '{"seed": 1, "photo": "'; base64 -w0 photo.jpg; printf '"}') |
  curl -s http://%s/v2/models/id3pm_photo_png/generate -d @- |
  python3 -c 'import base64, json, sys; open("face.png", "wb").write(base64.b64decode(json.load(sys.stdin)["png"]))'"""


@click.command("serve")
@click.option("--repository", type=click.Path(path_type=Path), default=Path("triton_repo"), help="Model repository.")
@click.option("--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 opens the server to the network.")
@click.option("--http-port", type=click.IntRange(0, 65535), default=8000, help="HTTP; 0 takes a free port.")
@click.option("--grpc-port", type=click.IntRange(0, 65535), default=8001, help="gRPC; 0 takes a free port.")
@click.option("--metrics-port", type=click.IntRange(0, 65535), default=8002, help="Metrics; 0 takes a free port.")
@click.option("--threads", type=click.IntRange(1), show_default="all cores", help="CPU threads of each engine.")
@click.option("--start-timeout", type=click.FloatRange(1), default=300.0, help="Seconds to become ready.")
@click.option("--drain-timeout", type=click.FloatRange(0), default=60.0, help="Seconds for work in flight at the end.")
@click.option("--verbose", is_flag=True, help="Show all of Triton's log instead of its errors.")
def serve_command(
    repository: Path,
    host: str,
    http_port: int,
    grpc_port: int,
    metrics_port: int,
    threads: int | None,
    start_timeout: float,
    drain_timeout: float,
    verbose: bool,
) -> None:
    """Start the Triton server on built engines and serve until SIGTERM or Ctrl-C.

    At the end, work in flight is finished first; a second signal ends at once.
    """
    console = Console(stderr=True)
    ready, stop, hurry = threading.Event(), threading.Event(), threading.Event()

    def show(line: str) -> None:
        # What goes wrong before the server is ready comes as one exception.
        if verbose or (ready.is_set() and is_error(line)):
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    server = TritonServer(
        repository,
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        threads=threads,
        start_timeout_s=start_timeout,
        drain_timeout_s=drain_timeout,
        on_log=show,
    )

    first_signal = 0.0

    def on_signal(number: int, frame: object) -> None:
        nonlocal first_signal
        if not ready.is_set():
            raise KeyboardInterrupt  # there is no work to finish yet
        if not stop.is_set():
            first_signal = time.monotonic()
            stop.set()
        elif time.monotonic() - first_signal > _ECHO_S:
            hurry.set()
            server.abort()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    try:
        server.start()
        with console.status("loading engines"):
            server.wait_ready()
        ready.set()
        console.print(_overview(server))
        console.print("A face as a PNG, from any photograph with a face:", style="bold")
        console.print(_CURL % server.http_url, markup=False, highlight=False, soft_wrap=True)
        _serve_until(server, stop)
        console.print("draining: work in flight is finished, new work is refused")
        if not server.stop():
            reason = "a second signal came" if hurry.is_set() else f"{drain_timeout:g} s were over"
            raise ServerError(f"{reason} before all work was finished")
        console.print("stopped")
    finally:
        server.kill()


def _serve_until(server: TritonServer, stop: threading.Event) -> None:
    while not stop.wait(0.2):
        if (status := server.poll()) is not None:
            raise ServerError(f"the server died (exit status {status}); its last lines:\n{server.log_tail()}")


def _overview(server: TritonServer) -> Table:
    table = Table(title=f"id3pm serves on http://{server.http_url} and grpc://{server.grpc_url}", title_justify="left")
    table.add_column("model", style="bold", no_wrap=True)
    table.add_column("what it does")
    for name, meaning in _MODELS:
        table.add_row(name, meaning)
    table.add_section()
    for stage, manifest in server.manifests.items():
        defaults = manifest.sampling
        table.add_row(
            f"{stage} engine",
            f"bundle {manifest.bundle.name}, {manifest.target} {manifest.precision}, up to {manifest.max_batch} rows; "
            f"by default {defaults.steps} steps of {defaults.sampler}",
        )
    base = server.manifests["base"]
    table.add_row("ID vectors", f"{base.id_vector_model}, {base.unet.identity_dim} numbers")
    table.add_row("metrics", f"http://{server.metrics_url}/metrics")
    if server.runtime is not None:
        table.add_row("server", server.runtime.origin)
    return table

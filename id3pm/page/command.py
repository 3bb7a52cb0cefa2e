"""`id3pm page`: a web page for people who do not program, beside a running service.

    id3pm page --server 127.0.0.1:8001      # for a running service
    id3pm page --repository triton_repo     # starts one, and stops it at the end

The page uses the service over the wire only, like any other client.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import click

from id3pm.command_options import EXISTING_FILE, REPOSITORY, option, takes
from id3pm.errors import MissingExtraError
from id3pm.installation import how_to_install
from id3pm.serving.gateway.auth import is_loopback
from id3pm_client import AsyncClient, Client, ClientError, Retry

DEFAULT_SERVER = "127.0.0.1:8001"
MAX_UPLOAD = "64mb"  # more than the service takes, so that the page can give its own message
_RETRY = Retry(limit=3)  # a visitor waits: report soon that the service is unreachable


@dataclasses.dataclass(frozen=True, kw_only=True)
class PageOptions:
    """The options of `id3pm page`."""

    server: str | None = option(help=f"host:port of the service's gRPC endpoint.  [default: {DEFAULT_SERVER}]")
    repository: Path | None = option(type=REPOSITORY, help="Start a service on this model repository instead.")
    token_file: Path | None = option(type=EXISTING_FILE, help="File with the token that the service wants.")
    ssl: bool = option(is_flag=True, help="Encrypt the connection to the service.")
    root_certificates: Path | None = option(
        type=EXISTING_FILE, help="PEM file of certificates to trust; implies --ssl."
    )
    latent: Path = option(
        type=click.Path(path_type=Path),
        default=Path("bundles/demo/latent"),
        show_default=True,
        help="Folder with PCA axes and directions of the served bundle: sliders, where it is there.",
    )
    host: str = option(default="127.0.0.1", show_default=True, help="Address of the page.")
    port: int = option(type=click.IntRange(0, 65535), default=7860, show_default=True, help="0 takes a free one.")
    insecure: bool = option(is_flag=True, help="Allow a --host that other machines reach; the page asks for no login.")


@click.command("page")
@takes(PageOptions)
def page_command(options: PageOptions) -> None:
    """Serve a web page for trying the service, until Ctrl-C or SIGTERM."""
    if options.server is not None and options.repository is not None:
        raise click.UsageError("--server and --repository exclude each other: the page has one service")
    if options.repository is not None and (options.token_file or options.ssl or options.root_certificates):
        raise click.UsageError("--token-file, --ssl and --root-certificates go with --server alone")
    if not is_loopback(options.host) and not options.insecure:
        raise click.UsageError(
            f"--host {options.host}: the page asks for no login, and other machines would reach it; put something in "
            "front of it that does, and say --insecure"
        )
    security: dict[str, Any] = {
        "ssl": options.ssl or options.root_certificates is not None,
        "root_certificates": options.root_certificates,
        "token": None if options.token_file is None else options.token_file.read_text().strip(),
    }
    url = options.server or DEFAULT_SERVER
    try:
        Client(url, **security).close()  # report wrong settings at once
        _run(url, security, options)
    except ClientError as error:
        raise click.ClickException(str(error)) from error


def _run(url: str, security: dict[str, Any], options: PageOptions) -> None:
    """Runs the page, and its own service if it has one, until Ctrl-C."""
    with contextlib.ExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C too: a shell's background jobs would ignore it
            stack.callback(signal.signal, number, signal.signal(number, _interrupt))
        if options.repository is not None:
            url = stack.enter_context(_service(options.repository))
        connect = functools.partial(AsyncClient, url, retry=_RETRY, **security)
        address = stack.enter_context(_page(connect, options.latent, options.host, options.port))
        click.echo(f"page: {address}   (Ctrl-C stops it)", err=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
        click.echo("stopping", err=True)


@contextlib.contextmanager
def _service(repository: Path) -> Iterator[str]:
    """A service of the page's own, on free ports of this machine; the address of its gRPC port."""
    # Imported here: it needs more of the package than a page beside a running service does.
    from id3pm.serving.service import Service, ServiceSettings

    click.echo("starting the service: loading engines ...", err=True)
    settings = ServiceSettings.on_free_ports(report=lambda line: click.echo(line, err=True), drain_timeout_s=5)
    service = Service(repository, settings)
    try:
        with service:
            click.echo(f"service: gRPC {service.grpc_url}, metrics http://{service.metrics_url}/metrics", err=True)
            yield service.grpc_url
    finally:
        service.kill()


def _no_proxy_to(host: str) -> None:
    """Excludes this machine from proxies: Gradio checks over HTTP whether its own page has started."""
    for name in ("no_proxy", "NO_PROXY"):
        hosts = [os.environ.get(name, ""), "localhost", "127.0.0.1", "::1", host]
        os.environ[name] = ",".join(dict.fromkeys(entry for entry in hosts if entry))


@contextlib.contextmanager
def _page(connect: Callable[[], AsyncClient], latent: Path, host: str, port: int) -> Iterator[str]:
    """The page while it is served; its address.

    Raises:
        MissingExtraError: Gradio is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="id3pm-page-") as uploads:  # readable by this user only
        # Gradio reads these when it is imported: no analytics, and uploads go to the folder that is emptied.
        os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=uploads, HF_HUB_OFFLINE="1")
        try:
            from id3pm.page import app
            from id3pm.page.app_state import AppState
        except ModuleNotFoundError as error:
            if error.name != "gradio":
                raise
            raise MissingExtraError(f"the page needs Gradio: {how_to_install('web')}") from error
        _no_proxy_to(host)
        app_state = AppState(connect, latent)
        page = app.build(app_state, Path(uploads))
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port or _free_port(host),
                theme=app.THEME,
                css_paths=app.CSS,
                head=app.HEAD,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                ssr_mode=False,
                show_error=False,
                max_file_size=MAX_UPLOAD,
                footer_links=[],
                enable_monitoring=False,
            )
            yield address
        finally:
            app_state.close()
            page.close(verbose=False)


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt

"""`id3pm serve`: the service in the foreground."""

from __future__ import annotations

import dataclasses
import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from id3pm.command_options import EXISTING_FILE, option, takes
from id3pm.errors import ConfigError, ServerError
from id3pm.serving.gateway.auth import KINDS, Access, read_tokens
from id3pm.serving.gateway.options import GatewayOptions, Tls
from id3pm.serving.launcher.triton_log import Outlet, is_error
from id3pm.serving.protocol.limits import DRAIN_S, MAX_BODIES, MAX_BODY
from id3pm.serving.protocol.served_models import MODELS, SIGNATURES
from id3pm.serving.service import Service, ServiceSettings

_MIB = 2**20
_DAY_S = 86_400
_STDIN = 0
_POLL_S = 0.1
_ECHO_S = 1.0  # `timeout` and some supervisors send one stop twice: to the process and to its group

_ACCEPT = {"both": KINDS, "photographs": ("photo",), "vectors": ("vector",)}
_CURL = r"""(printf '{"seed": 1, "photo": "'; base64 -w0 %s; printf '"}') |
  curl -sS %s/v2/models/id3pm_photo_png/generate -d @- |
  python3 -c 'import base64, json, sys; answer = json.loads(sys.stdin.read() or "{}")
png = answer.get("png") or sys.exit(answer.get("error", 1)); open("%s", "wb").write(base64.b64decode(png))'"""


class _Number(click.FloatRange):
    """A number within a range; click lets "nan" through, which is in none."""

    def __init__(self, least: float, most: float) -> None:
        super().__init__(least, most)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType`."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is no number between {self.min:g} and {self.max:g}", param, ctx)
        return number


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """The options of `id3pm serve`."""

    repository: Path = option(type=click.Path(path_type=Path), default=Path("triton_repo"), help="Model repository.")
    host: str = option(default="127.0.0.1", help="Address to listen on; 0.0.0.0 opens the service to the network.")
    http_port: int = option(type=click.IntRange(0, 65535), default=8000, help="HTTP; 0 takes a free port.")
    grpc_port: int = option(type=click.IntRange(0, 65535), default=8001, help="gRPC; 0 takes a free port.")
    metrics_port: int = option(type=click.IntRange(0, 65535), default=8002, help="Metrics; 0 takes a free port.")
    tokens: Path | None = option(
        type=EXISTING_FILE, help="TOML file of callers with their tokens; without it no token is needed."
    )
    accept: str = option(
        type=click.Choice(list(_ACCEPT)),
        default="both",
        help="What the service accepts: photographs, raw ID vectors or both; --tokens narrows it for each caller.",
    )
    tls_certificate: Path | None = option(type=EXISTING_FILE, help="PEM certificate chain for HTTP and gRPC.")
    tls_key: Path | None = option(type=EXISTING_FILE, help="PEM private key of the certificate.")
    insecure: bool = option(is_flag=True, help="Allow a --host that other machines reach, without tokens.")
    allow_origin: tuple[str, ...] = option(
        multiple=True, help="Origin of web pages that may send requests; * is all. Repeatable."
    )
    max_body: float = option(type=_Number(0.001, 2047), default=MAX_BODY / _MIB, help="MiB of a request body.")
    max_bodies: float = option(
        type=_Number(0.001, 2**20), default=MAX_BODIES / _MIB, help="MiB of all bodies in flight."
    )
    threads: int | None = option(
        type=click.IntRange(1, 1024), show_default="all cores", help="CPU threads of each engine."
    )
    start_timeout: float = option(type=_Number(1, _DAY_S), default=300.0, help="Seconds to become ready.")
    drain_timeout: float = option(
        type=_Number(0, _DAY_S), default=DRAIN_S, help="Seconds for work in flight at the end."
    )
    trace_url: str | None = option(help="OpenTelemetry collector that gets a span tree of every request.")
    access_log: str | None = option(type=click.Path(), help="File that gets a line of JSON per request; - is stderr.")
    verbose: bool = option(is_flag=True, help="Show all of Triton's log instead of its errors.")

    def access(self) -> Access:
        """Who may send what; reads the file of tokens.

        Raises:
            ConfigError: The file has a mistake.
        """
        kinds = _ACCEPT[self.accept]
        return Access(accept=kinds) if self.tokens is None else read_tokens(self.tokens, kinds)

    def gateway(self) -> GatewayOptions:
        """The options of the public ports.

        Raises:
            click.UsageError: A certificate without its key, or the other way round.
            ConfigError: The file of tokens has a mistake.
        """
        certificate, key = self.tls_certificate, self.tls_key
        if (certificate is None) != (key is None):
            raise click.UsageError("--tls-certificate and --tls-key belong together: give both or none")
        return GatewayOptions(
            max_body=int(self.max_body * _MIB),
            max_bodies=int(self.max_bodies * _MIB),
            access=self.access(),
            tls=None if certificate is None or key is None else Tls(certificate, key),
            allow_origins=self.allow_origin,
            access_log=self.access_log,
        )

    def service(self) -> ServiceSettings:
        """The settings of the whole service; raises as `gateway`."""
        return ServiceSettings(
            host=self.host,
            http_port=self.http_port,
            grpc_port=self.grpc_port,
            metrics_port=self.metrics_port,
            gateway=self.gateway(),
            insecure=self.insecure,
            threads=self.threads,
            start_timeout_s=self.start_timeout,
            drain_timeout_s=self.drain_timeout,
            trace_url=self.trace_url,
        )


@click.command("serve")
@takes(ServeOptions)
def serve_command(options: ServeOptions) -> None:
    """Serve built engines until SIGTERM or Ctrl-C: Triton behind limits, tokens and TLS, supervised.

    At the end, work in flight is finished first; a second signal ends at once. SIGHUP reads the tokens again and
    reopens the access log.
    """
    _Foreground(options).run()


class _Foreground:
    """A service in the foreground: it tells on stderr what happens, and signals end it.

    Raises:
        click.UsageError: Options do not fit each other.
        ConfigError: A file of the options has a mistake.
    """

    def __init__(self, options: ServeOptions) -> None:
        self._options = options
        self._console = Console(stderr=True)
        self._tell = Outlet(self._console.print)  # a closed stderr or a full disk must not end the service
        self._signals = _Signals()
        settings = dataclasses.replace(options.service(), report=self._report, on_log=self._on_log)
        self._service = Service(options.repository, settings)

    def run(self) -> None:
        """Serves until a signal.

        Raises:
            ServerError: The service does not start, fails, or ends before all work was finished.
        """
        tell, service = self._tell, self._service
        self._signals.handle(service.abort)
        try:
            with self._console.status("loading engines"):
                service.start()
            self._signals.ready = True
            self._introduce()
            self._serve()
            tell("draining: work in flight is finished, new work is refused")
            if not service.stop():
                late = f"{self._options.drain_timeout:g} s were over"
                reason = "a second signal came" if self._signals.hurry else late
                raise ServerError(f"{service.failure or reason} before all work was finished")
            tell("stopped")
        except _TooEarlyError as stop:
            tell(f"{stop} came while the engines were loading: stopped")
            sys.exit(128 + stop.number)  # as a shell says of a program that this signal ended
        finally:
            service.kill()

    def _introduce(self) -> None:
        """Tells what is served, and a command to try it."""
        tell, service = self._tell, self._service
        tell(_overview(service))
        if service.warning is not None:
            tell(f"warning: {service.warning}", style="bold yellow")
        if "photo" in service.settings.gateway.access.accept:
            whose = " (TOKEN is a caller's who may send photographs)" if service.settings.gateway.access.limited else ""
            tell(f"A face as a PNG, from any photograph with a face{whose}:", style="bold", soft_wrap=True)
            tell(curl_command(_url(service), service.settings.gateway), markup=False, highlight=False, soft_wrap=True)

    def _serve(self) -> None:
        """Waits for a signal to stop.

        Raises:
            ServerError: The service has given up.
        """
        while not self._signals.stop:
            if self._service.failure is not None:
                raise ServerError(f"given up: {self._service.failure}")
            if self._signals.reload:
                self._signals.reload = False
                self._reload()
            time.sleep(_POLL_S)

    def _reload(self) -> None:
        """Does what SIGHUP asks for. A file of tokens with a mistake changes nothing."""
        tokens = self._options.tokens
        try:
            self._service.reload(None if tokens is None else self._options.access())
        except (ConfigError, OSError) as error:
            self._report(f"the tokens stay as they were: {error}")
        else:
            read = "" if tokens is None else ", the tokens are read again"
            self._report(f"reloaded: the access log is opened anew{read}")

    def _on_log(self, line: str) -> None:
        # What goes wrong before the service is ready comes as one exception.
        if self._options.verbose or (self._signals.ready and is_error(line)):
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _report(self, line: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {line}", markup=False, highlight=False, soft_wrap=True)


class _TooEarlyError(KeyboardInterrupt):
    """A signal before there is work to finish; what catches errors lets it pass."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class _Signals:
    """Received signals: plain fields, because a handler must not take locks."""

    def __init__(self) -> None:
        self.ready = self.stop = self.hurry = self.reload = False
        self._first = 0.0
        self._terminal = _is_terminal()

    def handle(self, abort: Callable[[], None]) -> None:
        """Handles them from now on: SIGTERM and SIGINT stop, SIGHUP reloads, SIGUSR1 and SIGUSR2 do nothing."""

        def on_signal(number: int, frame: object) -> None:
            if not self.stop:
                self.stop, self._first = True, time.monotonic()
                if not self.ready:
                    raise _TooEarlyError(number)
            elif time.monotonic() - self._first > _ECHO_S:
                self.hurry = True
                abort()

        def on_hangup(number: int, frame: object) -> None:
            if self._terminal and not _is_terminal():  # its terminal window was closed
                on_signal(number, frame)
            else:
                self.reload = True

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, on_signal)
        signal.signal(signal.SIGHUP, on_hangup)
        for number in (signal.SIGUSR1, signal.SIGUSR2):  # not SIG_IGN, which the server would inherit
            signal.signal(number, lambda number, frame: None)


def _is_terminal() -> bool:
    """Whether a terminal is open at the other end of stdin; false once it has hung up."""
    try:
        return os.isatty(_STDIN)
    except OSError:
        return False


def curl_command(url: str, options: GatewayOptions, photo: str = "photo.jpg", out: str = "face.png") -> str:
    """A shell command that makes a face from a photograph, or prints the server's error.

    Args:
        url: Of the server's HTTP.
        options: Options of the server; a token is taken from the variable TOKEN.
        photo: The photograph's file.
        out: File of the face.
    """
    tls = "" if options.tls is None else f"--cacert {shlex.quote(str(options.tls.certificate))} "
    token = '-H "Authorization: Bearer $TOKEN" ' if options.access.limited else ""
    return _CURL % (shlex.quote(photo), tls + token + url, out)


def _url(service: Service) -> str:
    return f"{'http' if service.settings.gateway.tls is None else 'https'}://{service.http_url}"


def _overview(service: Service) -> Table:
    table = Table(title=f"id3pm serves on {_url(service)} and grpc://{service.grpc_url}", title_justify="left")
    table.add_column("model", style="bold", no_wrap=True)
    table.add_column("what it does")
    for name in SIGNATURES:
        table.add_row(name, MODELS[name].comment[0])
    table.add_section()
    for stage, manifest in service.manifests.items():
        defaults = manifest.sampling
        table.add_row(
            f"{stage} engine",
            f"bundle {manifest.bundle.name}, {manifest.target} {manifest.precision}, up to {manifest.max_batch} rows; "
            f"by default {defaults.steps} steps of {defaults.sampler}",
        )
    base = service.manifests["base"]
    table.add_row("ID vectors", f"{base.id_vector_model}, {base.unet.identity_dim} numbers")
    access = service.settings.gateway.access
    table.add_row("callers", "need a token" if access.limited else "need no token")
    table.add_row("accepts", _accepted(access))
    table.add_row("metrics", f"http://{service.metrics_url}/metrics")
    if (runtime := service.server.runtime) is not None:
        table.add_row("server", runtime.origin)
    return table


def _accepted(access: Access) -> str:
    if access.accept == KINDS:
        return "photographs and ID vectors" + (", as each caller's token says" if access.limited else "")
    return "photographs, no ID vectors" if "photo" in access.accept else "ID vectors, no photographs"

"""`id3pm serve`: the service in the foreground."""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from id3pm.command_options import EXISTING_FILE, REPOSITORY, option, takes
from id3pm.errors import ConfigError, ServerError
from id3pm.serving.gateway.auth import KINDS, Access, read_tokens
from id3pm.serving.gateway.options import GatewayOptions, Tls
from id3pm.serving.launcher.triton_log import Outlet, is_error
from id3pm.serving.overview import curl_command, overview, url_of
from id3pm.serving.protocol.limits import DRAIN_S, MAX_BODIES, MAX_BODY
from id3pm.serving.service import Service, ServiceSettings
from id3pm.serving.signals import Signals, TooEarlyError

_MIB = 2**20
_DAY_S = 86_400
_POLL_S = 0.1

_ACCEPT = {"both": KINDS, "photographs": ("photo",), "vectors": ("vector",)}


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

    repository: Path = option(type=REPOSITORY, default=Path("triton_repo"), help="Model repository: folder or address.")
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
        self._signals = Signals()
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
            self._print_overview()
            self._serve()
            tell("draining: work in flight is finished, new work is refused")
            if not service.stop():
                late = f"{self._options.drain_timeout:g} s were over"
                reason = "a second signal came" if self._signals.forced else late
                raise ServerError(f"{service.failure or reason} before all work was finished")
            tell("stopped")
        except TooEarlyError as stop:
            tell(f"{stop} came while the engines were loading: stopped")
            sys.exit(128 + stop.number)  # as a shell says of a program that this signal ended
        finally:
            service.kill()

    def _print_overview(self) -> None:
        """Tells what is served, and a command to try it."""
        tell, service = self._tell, self._service
        tell(overview(service))
        if service.warning is not None:
            tell(f"warning: {service.warning}", style="bold yellow")
        if "photo" in service.settings.gateway.access.accept:
            token = " (TOKEN is one that may send photographs)" if service.settings.gateway.access.limited else ""
            tell(f"A face as a PNG, from any photograph with a face{token}:", style="bold", soft_wrap=True)
            tell(curl_command(url_of(service), service.settings.gateway), markup=False, highlight=False, soft_wrap=True)

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

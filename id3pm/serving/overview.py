"""What `id3pm serve` prints about a running service: a table, and a command to try it."""

from __future__ import annotations

import shlex

from rich.table import Table

from id3pm.serving.gateway.auth import KINDS, Access
from id3pm.serving.gateway.options import GatewayOptions
from id3pm.serving.protocol.served_models import MODELS, SIGNATURES
from id3pm.serving.service import Service

_CURL = r"""(printf '{"seed": 1, "photo": "'; base64 -w0 %s; printf '"}') |
  curl -sS %s/v2/models/id3pm_photo_png/generate -d @- |
  python3 -c 'import base64, json, sys; answer = json.loads(sys.stdin.read() or "{}")
png = answer.get("png") or sys.exit(answer.get("error", 1)); open("%s", "wb").write(base64.b64decode(png))'"""


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


def url_of(service: Service) -> str:
    """The URL of its HTTP port."""
    return f"{'http' if service.settings.gateway.tls is None else 'https'}://{service.http_url}"


def overview(service: Service) -> Table:
    """What a running service serves, to which callers, and where."""
    table = Table(title=f"id3pm serves on {url_of(service)} and grpc://{service.grpc_url}", title_justify="left")
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

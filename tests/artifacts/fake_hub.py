"""A hub over HTTP: what of the Hugging Face Hub's protocol is used, and misbehaviour that a test asks for."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class HttpServer:
    """Answers requests by a function; remembers them."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None: ...

            def _any(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(int(headers.get("content-length", 0)))
                outer.requests.append((self.command, self.path, headers))
                try:
                    outer.answer(self, self.command, self.path, headers, body)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            do_GET = do_POST = do_PUT = do_HEAD = _any  # noqa: N815

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def answer(self, handler: Any, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


def send(handler: Any, status: int, body: bytes = b"", **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def send_file(handler: Any, data: bytes, headers: dict[str, str], stop_after: int | None = None, **more: str) -> None:
    """A file, or its end; the connection may break after so many bytes."""
    start = int(headers["range"].removeprefix("bytes=").rstrip("-")) if "range" in headers else 0
    handler.send_response(206 if start else 200)
    for name, value in {"Content-Length": str(len(data) - start), **more}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data[start:][:stop_after])
    if stop_after is not None and stop_after < len(data) - start:
        handler.close_connection = True
        handler.connection.shutdown(2)


class Storage(HttpServer):
    """Another host, to which a hub or a registry may lead."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        super().__init__()

    def answer(self, handler: Any, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        send_file(handler, self.files[path.strip("/")], headers)


class FakeHub(HttpServer):
    """The hub.

    Attributes:
        files: By commit, then by path.
        branches: Commit by name.
        on_file: Called before a file is sent; a true value means that it has answered.
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.branches: dict[str, str] = {}
        self.repositories: set[str] = set()
        self.on_file: Callable[[Any, str, bytes, dict[str, str]], bool] = lambda *_: False
        self.sent_commit: str | None = None
        super().__init__()

    def answer(self, handler: Any, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        parts = path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "repos"]:
            self.repositories.add(f"{json.loads(body).get('organization')}/{json.loads(body)['name']}")
            send(handler, 200, json.dumps({"url": f"{self.url}/lab/faces"}).encode())
        elif parts == ["api", "validate-yaml"]:
            send(handler, 200, b'{"errors": [], "warnings": []}')
        elif parts[0] == "api" and parts[4:5] == ["preupload"]:
            listed = json.loads(body)["files"]
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in listed]
            send(handler, 200, json.dumps({"files": files}).encode())
        elif parts[0] == "api" and parts[4:5] == ["commit"]:
            self._commit(handler, parts[5], body)
        elif parts[0] == "api" and parts[4:5] == ["revision"]:
            self._revision(handler, parts[5])
        elif len(parts) > 3 and parts[2] == "resolve":
            self._file(handler, parts[3], "/".join(parts[4:]), headers)
        else:
            send(handler, 404)

    def _commit(self, handler: Any, branch: str, body: bytes) -> None:
        files = dict(self.files.get(self.branches.get(branch, ""), {}))
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.files[commit], self.branches[branch] = files, commit
        send(
            handler,
            200,
            json.dumps(
                {"success": True, "commitUrl": f"{self.url}/lab/faces/commit/{commit}", "commitOid": commit}
            ).encode(),
        )

    def _revision(self, handler: Any, name: str) -> None:
        commit = self.branches.get(name)
        if commit is None:
            send(handler, 404, b"{}", X_Error_Code="RevisionNotFound")
        else:
            send(handler, 200, json.dumps({"id": "x/y", "sha": commit, "siblings": []}).encode())

    def _file(self, handler: Any, commit: str, path: str, headers: dict[str, str]) -> None:
        data = self.files.get(commit, {}).get(path)
        if data is None:
            send(handler, 404, b"", X_Error_Code="EntryNotFound")
        elif not self.on_file(handler, path, data, headers):
            send_file(handler, data, headers, X_Repo_Commit=self.sent_commit or commit)

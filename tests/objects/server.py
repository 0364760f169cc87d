"""An S3 server on loopback for tests: a process with that of moto, behind a proxy that counts and spoils requests."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

STARTING_SECONDS = 120


@dataclass(frozen=True)
class Request:
    """One request that the proxy has seen."""

    method: str
    target: str
    """Path and query."""
    range: str
    """The range that was asked for; empty for all."""
    sent: int
    """Bytes of the answer."""


class Proxy:
    """Passes requests on, remembers them, and answers some itself."""

    def __init__(self, port: int) -> None:
        self.requests: list[Request] = []
        self.spoil: Callable[[str, str], str | None] = lambda method, target: None
        """Given method and target: `throttle`, `fail`, `reset`, `deny` or `lose` (carried out, but not answered)."""
        self._guard = Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(port))
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def counted(self) -> Iterator[list[Request]]:
        """The requests that are made while the block runs."""
        found: list[Request] = []
        before = len(self.requests)
        try:
            yield found
        finally:
            found += self.requests[before:]

    @contextmanager
    def spoiling(self, how: Callable[[str, str], str | None]) -> Iterator[None]:
        self.spoil = how
        try:
            yield
        finally:
            self.spoil = lambda method, target: None

    def _handler(self, port: int) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def _answer(self, status: int, code: str) -> None:
                body = f"<Error><Code>{code}</Code><Message>by the proxy</Message></Error>".encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def _reset(self) -> None:
                with suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True

            def _pass_on(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                how = proxy.spoil(self.command, self.path)
                if how == "throttle":
                    self._answer(503, "SlowDown")
                elif how == "fail":
                    self._answer(500, "InternalError")
                elif how == "deny":
                    self._answer(403, "AccessDenied")
                elif how == "reset":
                    self._reset()
                if how not in (None, "lose"):
                    return
                server = HTTPConnection("127.0.0.1", port)
                server.request(self.command, self.path, content, dict(self.headers))
                response = server.getresponse()
                body = response.read()
                server.close()
                with proxy._guard:
                    asked = self.headers.get("Range") or ""
                    proxy.requests.append(Request(self.command, self.path, asked, len(body)))
                if how == "lose":
                    self._reset()
                    return
                self.send_response(response.status)
                dropped = ("connection", "transfer-encoding", "date", "server")
                for name, value in response.getheaders():
                    if name.lower() not in (*dropped, "content-length"):
                        self.send_header(name, value)
                length = response.getheader("Content-Length") if self.command == "HEAD" else str(len(body))
                self.send_header("Content-Length", length or "0")
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass_on  # noqa: N815

        return Handler


@dataclass(frozen=True)
class Server:
    """The server."""

    port: int

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which obstore finds it."""
        return {
            "AWS_ACCESS_KEY_ID": "name",
            "AWS_SECRET_ACCESS_KEY": "very-secret",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
        }

    def make_bucket(self, name: str) -> None:
        url = f"http://127.0.0.1:{self.port}/{name}"
        with urllib.request.urlopen(urllib.request.Request(url, method="PUT")) as response:
            response.read()


@contextmanager
def running(**options: Any) -> Iterator[Server]:
    """Start moto on a free port, and end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        ends = time.monotonic() + STARTING_SECONDS
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert process.poll() is None, "moto's server ended"
            assert time.monotonic() < ends, "moto's server does not answer"
            time.sleep(0.05)
        yield Server(port)
    finally:
        process.kill()
        process.wait()

"""An S3 server on loopback for tests: a process with that of moto, behind a proxy that counts and spoils requests."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

from tests.objects.loopback import Handler, Loopback, Request

STARTING_SECONDS = 120


class Proxy(Loopback):
    """Passes requests on, remembers them, and answers some itself.

    They are spoilt by `throttle`, `fail`, `reset`, `deny` or `lose` (carried out, but not answered).
    """

    def __init__(self, port: int) -> None:
        super().__init__(self._handler(port))

    def _handler(self, port: int) -> type[Handler]:
        proxy = self

        class Passing(Handler):
            def _answer(self, status: int, code: str) -> None:
                body = f"<Error><Code>{code}</Code><Message>by the proxy</Message></Error>".encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

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
                    self.reset()
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
                    self.reset()
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

        return Passing


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
    command = [sys.executable, "-m", "tests.objects.one_by_one", "--host", "127.0.0.1", "--port", str(port)]
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

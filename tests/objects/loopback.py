"""What servers of the tests have in common: they listen on loopback, remember what they were asked, and spoil some."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread


@dataclass(frozen=True)
class Request:
    """One request that a server has seen."""

    method: str
    target: str
    """Path and query."""
    range: str
    """The range that was asked for; empty for all."""
    sent: int
    """Bytes of the answer."""


class Handler(BaseHTTPRequestHandler):
    """Answers silently over connections that stay."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def reset(self) -> None:
        """Break the connection."""
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True


class Loopback:
    """A server on a free port, which answers until it is closed."""

    def __init__(self, handler: type[Handler]) -> None:
        self.requests: list[Request] = []
        self.spoil: Callable[[str, str], str | None] = lambda method, target: None
        """Given method and target: how the answer is spoilt; see the server."""
        self._guard = Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
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
        usual, self.spoil = self.spoil, how
        try:
            yield
        finally:
            self.spoil = usual

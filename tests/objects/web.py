"""A web server on loopback that publishes a folder: ranges, tags, no lists; it counts requests and spoils some."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from urllib.parse import unquote

from tests.objects.server import Request


class WebServer:
    """What is served, and how."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[Request] = []
        self.most_at_once = 0
        """Requests under way at the same time, at most."""
        self.ranges = self.tags = True
        """Whether ranges are answered, and whether files have an `ETag` that `If-Match` is compared with."""
        self.weak = False
        """Whether tags are weak ones (`W/`), which match none where one is asked for."""
        self.spoil: Callable[[str, str], str | None] = lambda method, target: None
        """Given method and path: `throttle`, `fail`, `reset`, `deny`, `short` (some bytes, then none) or `redirect`."""
        self._guard, self._now = Lock(), 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
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
        before, self.most_at_once = len(self.requests), 0
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

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def answer(self, status: int, content: bytes = b"", **headers: str) -> None:
                with web._guard:  # before whoever asked can go on, and count
                    asked = self.headers.get("Range") or ""
                    web.requests.append(Request(self.command, self.path, asked, len(content)))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def reset(self) -> None:
                with suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True

            def handle_file(self) -> None:
                with web._guard:
                    web._now += 1
                    web.most_at_once = max(web.most_at_once, web._now)
                try:
                    self.give()
                finally:
                    with web._guard:
                        web._now -= 1

            def give(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                how = web.spoil(self.command, self.path)
                statuses = {"throttle": 503, "fail": 500, "deny": 403}
                if how in statuses:
                    return self.answer(statuses[how], b"<html>secret=very-secret</html>")
                if how == "reset":
                    return self.reset()
                if how == "redirect" and not self.path.startswith("/moved"):
                    return self.answer(302, Location=f"/moved{self.path}")
                file = web.folder / unquote(self.path.removeprefix("/moved")).strip("/")
                if self.command not in ("GET", "HEAD"):
                    return self.answer(501)
                if not file.is_file():
                    return self.answer(404)
                content, status = file.read_bytes(), 200
                headers = {"ETag": f'{"W/" if web.weak else ""}"{hash(content):x}"'} if web.tags else {}
                wanted = self.headers.get("If-Match")
                if web.tags and wanted is not None and (web.weak or wanted != headers["ETag"]):
                    return self.answer(412)
                asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
                if asked and web.ranges:
                    size = len(content)
                    start = int(asked[1]) if asked[1] else max(size - int(asked[2]), 0)
                    stop = min(int(asked[2]) + 1, size) if asked[1] else size
                    if start >= size:
                        return self.answer(416)
                    headers |= {"Content_Range": f"bytes {start}-{stop - 1}/{size}"}
                    content, status = content[start:stop], 206
                if how == "short":
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name.replace("_", "-"), value)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content[: len(content) // 2])
                    return self.reset()
                return self.answer(status, content, **headers)

            do_GET = do_HEAD = do_PUT = do_DELETE = do_PROPFIND = handle_file  # noqa: N815

        return Handler

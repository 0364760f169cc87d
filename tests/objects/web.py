"""A web server on loopback that publishes a folder: ranges, tags, no lists; it counts requests and spoils some."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from tests.objects.loopback import Handler, Loopback, Request


class WebServer(Loopback):
    """What is served, and how.

    Answers are spoilt by `throttle`, `fail`, `reset`, `deny`, `short` (some bytes, then none) or `redirect`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.most_at_once = 0
        """Requests under way at the same time, at most; from `counted` on."""
        self.ranges = self.tags = True
        """Whether ranges are answered, and whether files have an `ETag` that `If-Match` is compared with."""
        self.weak = False
        """Whether tags are weak ones (`W/`), which match none where one is asked for."""
        self._now = 0
        super().__init__(self._handler())

    @contextmanager
    def counted(self) -> Iterator[list[Request]]:
        self.most_at_once = 0
        with super().counted() as found:
            yield found

    def _handler(self) -> type[Handler]:
        web = self

        class Giving(Handler):
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

        return Giving

"""moto's server, which answers one request at a time: `python -m tests.objects.one_by_one --host HOST --port PORT`.

Its conditional writes look first and write then. Of two at once both would succeed, which no object store allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any

from moto import server
from werkzeug.serving import run_simple

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def run_one_by_one(host: str, port: int, application: Application, **options: Any) -> None:
    """Serve an application as werkzeug does, but for that."""
    guard = Lock()

    def answer(environment: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        with guard:
            return [b"".join(application(environment, start_response))]

    run_simple(host, port, answer, **options)


if __name__ == "__main__":
    server.run_simple = run_one_by_one
    server.main()

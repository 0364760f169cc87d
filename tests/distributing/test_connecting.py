"""What can be named as a cluster, and what is said of what cannot."""

from __future__ import annotations

import io
import json
import logging
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import cachetool
from cachetool.distributing import Cluster, connect, connecting
from cachetool.errors import ClusterError, MissingPackageError, UnknownNameError


def connected_to(name: Any) -> Cluster | None:
    with connect(name) as cluster:
        return cluster


@pytest.mark.parametrize("name", ["localhost", "local:", "local:0", "local:x", "nowhere.json", "8786"])
def test_names_that_mean_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError, match=rf"--cluster {name}: expected .*local:(N|2)"):
        connected_to(name)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"address": '])
def test_a_file_that_is_no_scheduler_file(text: str, tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    file.write_text(text)
    with pytest.raises(UnknownNameError, match="expected a scheduler file"):
        connected_to(file)


def test_a_wrong_address_is_refused_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachetool.distributing.connecting.CONNECT_SECONDS", 1.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(ClusterError, match=rf"no dask scheduler answers at tcp://127.0.0.1:{port} within 1 s"):
        connected_to(f"tcp://127.0.0.1:{port}")
    assert time.monotonic() - started < 10
    with pytest.raises(ClusterError, match="no dask scheduler answers at nonsense://x"):
        connected_to("nonsense://x")


def test_another_service_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes the connection and says nothing."""
    monkeypatch.setattr("cachetool.distributing.connecting.CONNECT_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ClusterError, match=f"no dask scheduler answers at {address}"):
            connected_to(address)


def test_the_package_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingPackageError, match=r"--cluster needs (.|\n)*pip install 'cachetool\[distributed\]'"):
        connected_to("local:2")
    assert connected_to(None) is None
    cachetool.extract("tiny-reg", "shapes", limit=4, layers=(12,), root=tmp_path, workers=0)


def test_a_scheduler_file_names_the_address(client: Any, tmp_path: Path) -> None:
    """Workers of this process answer under an address of their own scheme, which no other process reaches."""
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"address": client.scheduler.address}))
    cluster = connected_to(file)
    assert cluster is not None


def test_a_client_that_is_closed_while_its_scheduler_is_gone_logs_nothing(tmp_path: Path) -> None:
    """As it is closed, dask's own begins to look for the scheduler again, or has done so for a while."""
    file, noted = tmp_path / "scheduler.json", io.StringIO()
    logger, handler = logging.getLogger("distributed.client"), logging.StreamHandler(noted)
    logger.addHandler(handler)
    command = ("distributed.cli.dask_scheduler", "--scheduler-file", str(file), "--no-dashboard", "--port", "0")
    try:
        with subprocess.Popen([sys.executable, "-m", *command], stderr=subprocess.DEVNULL) as scheduler:
            try:
                while not file.is_file():
                    time.sleep(0.05)
                with connecting._client(json.loads(file.read_text())["address"]) as client:
                    scheduler.kill()
                    while client.status == "running":
                        time.sleep(0.01)
            finally:
                scheduler.kill()
    finally:
        logger.removeHandler(handler)
    assert noted.getvalue() == ""


def test_a_cluster_without_workers(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cachetool.distributing.cluster.WAIT_SECONDS", 0.1)
    monkeypatch.setattr(Cluster, "_workers", lambda self: {})
    with pytest.raises(ClusterError, match="has no worker, and none joined"):
        connected_to(client)


def test_the_command_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from cachetool.cli import main

    arguments = ["cachetool", "extract", "tiny-reg", "shapes", "--root", str(tmp_path / "root"), "--cluster", "nowhere"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "--cluster nowhere: expected the address" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "root").exists()

"""A cache from somebody else through the command line: exit code 2 and a message that names it, never a traceback."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import cachetool  # noqa: F401 (a fixture)
from tests.hostile.conftest import forged

EXTRACT = ("extract", "tiny-reg", "shapes", "--limit", "6", "--workers", "0")


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def about(cache: Path) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    file = cache / "zarr.json"
    document = forged(cache)
    return file, document, document["attributes"]["cachetool"]


def test_foreign_caches_are_refused_in_words(cachetool: Any, tmp_path: Path) -> None:  # noqa: F811
    assert cachetool(*EXTRACT).code == 0
    (cache,) = Path("activations").glob("*/*.zarr")
    file, _, _ = about(cache)
    sound = file.read_bytes()
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Payload(tmp_path / "trace")))
    os.mkfifo(tmp_path / "pipe.pth")

    changes: list[tuple[Callable[[dict[str, Any]], object], str]] = [
        (lambda entry: entry["facts"].pop("model"), "facts.model is missing"),
        (lambda entry: entry["facts"].update(model=["x"]), "facts.model must be text"),
        (lambda entry: entry["facts"].update(model="timm:hf-hub:somebody/else"), "no model is named"),
        (lambda entry: entry["key"].update(transform=3), "key.transform"),
        (lambda entry: entry["key"]["transform"].update(size=10**9), "key.transform.size"),
        (lambda entry: entry["key"].pop("weights_sha256"), "key.weights_sha256 is missing"),
        (lambda entry: entry["facts"].update(weights_file=str(tmp_path / "evil.pth")), "run code"),
        (lambda entry: entry["facts"].update(weights_file=str(tmp_path / "pipe.pth")), "named by"),
        (lambda entry: entry["facts"].update(weights_file="/nowhere"), "named by"),
        (lambda entry: entry["facts"].update(weights_file=5), "facts.weights_file must be text"),
    ]
    for change, message in changes:
        _, document, entry = about(cache)
        change(entry)
        file.write_text(json.dumps(document))
        outcome = cachetool("replay", "--ablation", "zero", "--from-layer", "11")
        file.write_bytes(sound)
        assert outcome.code == 2, (message, outcome)
        assert message in outcome.err
        assert "Traceback" not in outcome.err
    assert not (tmp_path / "trace").exists()
    assert not list(Path("activations").glob("*/*.runs/*"))


@pytest.mark.parametrize(
    "command", [("info",), ("verify",), ("replay", "--ablation", "zero"), ("analyze", "token-norms")]
)
def test_a_document_of_nonsense_is_refused_by_every_command(
    cachetool: Any,  # noqa: F811
    tmp_path: Path,
    command: tuple[str, ...],
) -> None:
    cache = tmp_path / "activations" / "x" / "y.zarr"
    cache.mkdir(parents=True)
    nonsense = {"attributes": {"cachetool": {"format": 1, "kind": "cache", "key": [], "facts": {}, "layout": 5}}}
    for document in ({}, nonsense, {"attributes": 3}):
        (cache / "zarr.json").write_text(json.dumps({**document, "consolidated_metadata": {"metadata": {"../x": 1}}}))
        outcome = cachetool(command[0], str(cache), *command[1:])
        assert outcome.code == 2, outcome
        assert "y.zarr" in outcome.err
        assert "Traceback" not in outcome.err

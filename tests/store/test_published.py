"""Stores that others publish: on a web server, in an archive, in a file system of fsspec; the values of the disk."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from cachetool.errors import DamagedError, MissingDataError, StoreError
from cachetool.objects import ObjectPath, bucket, filesystem, tree_bytes
from cachetool.places import find_cache, list_caches
from cachetool.removing import remove_store
from cachetool.store import (
    SmallArray,
    StateDigests,
    StoreReader,
    StoreWriter,
    check_block,
    check_flags,
    check_tables,
    create,
    extend,
    progress,
)
from cachetool.store.lock import lock
from cachetool.store.metadata import Root
from cachetool.store.tables import read_table
from cachetool.tokens import TokenLayout
from tests.objects.web import WebServer

KINDS = ("http", "memory", "zip", "zip over http")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebServer]:
    """A server of the folder `www`."""
    pytest.importorskip("obstore", reason="the extra [s3] is not installed")
    (tmp_path / "www").mkdir()
    server = WebServer(tmp_path / "www")
    yield server
    server.close()


@pytest.fixture
def publish(web: WebServer, tmp_path: Path) -> Callable[[Path, str], ObjectPath]:
    """What publishes a store, and gives its URL."""

    def published(store: Path, kind: str) -> ObjectPath:
        if kind == "http":
            shutil.copytree(store, web.folder / "with space" / store.name)
            return ObjectPath(f"{web.url}/with%20space/{store.name}")
        if kind == "memory":
            fsspec.filesystem("memory").put(str(store), f"/{tmp_path.name}/", recursive=True)
            return ObjectPath(f"memory://{tmp_path.name}/{store.name}")
        shutil.make_archive(str(web.folder / "published"), "zip", store.parent, store.name)
        where = web.url if kind == "zip over http" else str(web.folder)
        return ObjectPath(f"zip://{store.name}::{where}/published.zip")

    return published


@pytest.mark.parametrize("kind", KINDS)
def test_the_values_are_those_of_the_disk(publish: Any, tmp_path: Path, example: Any, kind: str) -> None:
    source = tmp_path / "disk" / "a.zarr"
    source.parent.mkdir()
    create(source, example.spec)
    example.fill(source, [1, 2], ["cls", "patches"])
    example.fill(source)
    writer = StoreWriter(source)
    writer.write_image_arrays({"donor": SmallArray(np.arange(10), ["image"])})
    writer.write_block(1, example.arrays(1, [2], ["registers"], 10), [2], {example.spec.images.image_id[5]: "cut"})
    path = publish(source, kind)
    reader, like = StoreReader(path), StoreReader(source)
    assert (reader.spec.key, reader.spec.facts, reader.images) == (like.spec.key, like.spec.facts, like.images)
    assert reader.readable.tolist() == like.readable.tolist()
    assert reader.array("donor").tolist() == like.array("donor").tolist()
    assert reader.complete.tolist() == like.complete.tolist()
    for name in reader.spec.token_types:
        np.testing.assert_array_equal(reader.read(name, 2, 1, 9), like.read(name, 2, 1, 9))
        layered = reader.read_layers(name, [3, 0, 1], 0, 10)
        np.testing.assert_array_equal(layered, like.read_layers(name, [3, 0, 1], 0, 10))
    images, tokens = np.array([9, 0, 5]), np.array([1, 3, 5])
    np.testing.assert_array_equal(
        reader.read_tokens("patches", 0, images, tokens), like.read_tokens("patches", 0, images, tokens)
    )
    assert StateDigests(path).of({"cls": [0, 3]}) == StateDigests(source).of({"cls": [0, 3]})
    assert [check_block(path, block) + check_flags(path, block) for block in range(3)] == [[], [], []]
    assert check_tables(path) == {}
    assert progress(reader).blocks_done == progress(like).blocks_done == 3
    assert tree_bytes(path) == (None if kind == "http" else tree_bytes(source))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_written_there(publish: Any, tmp_path: Path, example: Any, kind: str) -> None:
    source = example.make(tmp_path / "disk" / "a.zarr")
    path = publish(source, kind)
    writer = StoreWriter(path)
    works: dict[str, Callable[[], Any]] = {
        "create": lambda: create(path.with_name("b.zarr"), example.spec),
        "block": lambda: writer.write_block(0, example.arrays(0, [1], ["cls"], 10), [1]),
        "array": lambda: writer.write_image_arrays({"donor": SmallArray(np.arange(10), ["image"])}),
        "facts": lambda: writer.update_facts({"a": 1}),
        "discard": lambda: writer.discard(0),
        "flags": lambda: writer.restore_flags(0),
        "extend": lambda: extend(path, images=example.spec.images),
        "remove": lambda: remove_store(path),
        "lock": lambda: lock(path, "extract").__enter__(),
    }
    for name, work in works.items():
        with pytest.raises(StoreError, match=r"can only be read.*nothing was changed\. Copy the cache") as caught:
            work()
        assert str(path).partition("::")[0].rpartition("/")[0] in str(caught.value), name
    example.check(path)
    assert check_tables(path) == {}


def test_one_layer_of_a_thousand_images_takes_two_requests_a_shard(
    publish: Any, web: Any, tmp_path: Any, kit: Any
) -> None:
    layout = TokenLayout(cls=1, registers=0, rows=4, columns=4)
    example = kit.make_example(layout, images=1000, channels=8, layers=tuple(range(6)), block=64)
    path = publish(example.make(tmp_path / "disk" / "a.zarr"), "http")
    with web.counted() as opening:
        reader = StoreReader(path)
        assert len(reader.images) == 1000
    # The root document, then for each of layer, ids, digests, labels, names whether it is there, and its content.
    assert Counter(one.method for one in opening) == {"GET": 6, "HEAD": 6}
    with web.counted() as requests:
        found = reader.read("patches", 4, 0, 1000)
    np.testing.assert_array_equal(found, example.values["patches"][:, 4])
    kinds = Counter(
        "record" if ".cachetool/blocks" in one.target else "index" if one.range.startswith("bytes=-") else "range"
        for one in requests
    )
    assert kinds == {"record": 16, "index": 16, "range": 16}
    assert 1 < web.most_at_once <= 16
    with web.counted() as requests:
        assert reader.readable.all()
    assert Counter(one.method for one in requests) == {"HEAD": 16}, "no image failed, so no flag is stored"


def test_a_web_server_gives_no_list(publish: Any, web: Any, tmp_path: Path, example: Any) -> None:
    path = publish(example.make(tmp_path / "disk" / "a.zarr"), "http")
    root = path.parent.parent
    for work in (lambda: list_caches(root), lambda: find_cache(None, root), lambda: list(path.walk_objects())):
        with pytest.raises(StoreError, match=r"gives no list of what lies there; name each cache and run by its own"):
            work()
    assert find_cache("with space/a", root) == path
    assert find_cache(str(path)) == path
    with pytest.raises(MissingDataError, match=r"no cache at .*/b\.zarr.*; name one by its own URL"):
        find_cache("with space/b", root)
    with pytest.raises(MissingDataError, match="There is no store at http://"):
        StoreReader(path.with_name("b.zarr"))
    assert {one.method for one in web.requests} == {"GET", "HEAD"}


def test_an_archive_that_holds_caches_is_a_root(publish: Any, tmp_path: Path, example: Any) -> None:
    path = publish(example.make(tmp_path / "disk" / "data" / "a.zarr").parent, "zip over http")
    root = path.parent
    assert list_caches(root) == [path / "a.zarr"] == [find_cache(None, root)]
    example.check(path / "a.zarr")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "FIRST_PAUSE", timedelta(milliseconds=1))


@pytest.fixture
def impatient(hasty: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "RETRIES", 2)
    monkeypatch.setattr(bucket, "LONGEST_RETRYING", timedelta(seconds=5))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["throttle", "fail", "reset", "short", "redirect"])
def test_requests_that_fail_are_made_again(
    publish: Any, web: Any, tmp_path: Path, example: Any, hasty: None, how: str
) -> None:
    path = publish(example.make(tmp_path / "disk" / "a.zarr"), "http")
    asked: Counter[str] = Counter()

    def once(method: str, target: str) -> str | None:
        asked[target] += 1
        spoilt = target.endswith(("a.zarr/zarr.json", "layer/c.0", "0000001.json", "cls/c.1.0.0", "patches/c.0.0.0.0"))
        return how if (asked[target] == 1 and spoilt) or how == "redirect" else None

    with web.spoiling(once):
        example.check(path, [1])
        assert check_block(path, 1) == []
    assert len(asked) > 15


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("throttle", r"503 Service Unavailable \(tried 3 times\).*try again"),
        ("fail", r"500 Internal Server Error"),
        ("deny", r"access is denied; see that the URL is right and open to everybody"),
        ("reset", r"see that the URL is right and the network is up"),
        ("short", r"see that the URL is right and the network is up"),
    ],
)
def test_what_goes_on_failing_is_an_error_that_names_url_cause_and_remedy(
    publish: Any, web: Any, tmp_path: Path, example: Any, impatient: None, how: str, said: str
) -> None:
    path = publish(example.make(tmp_path / "disk" / "a.zarr"), "http")
    reader = StoreReader(path)
    with web.spoiling(lambda method, target: how):
        for work in (lambda: StoreReader(path), lambda: reader.read("cls", 0, 0, 10)):
            with pytest.raises(StoreError, match=said) as caught:
                work()
            assert f"{web.url}/with%20space/a.zarr/" in str(caught.value)
            assert "very-secret" not in str(caught.value)


def test_a_server_without_ranges_is_refused_and_one_without_tags_is_not(
    publish: Any, web: Any, tmp_path: Path, example: Any
) -> None:
    path = publish(example.make(tmp_path / "disk" / "a.zarr"), "http")
    web.weak = True
    example.check(path)
    web.tags = False
    example.check(path)
    web.ranges = False
    with pytest.raises(StoreError, match=r"does not give parts of files \(`Range`\); copy the cache to a local disk"):
        StoreReader(path).read("cls", 0, 0, 10)


@pytest.mark.parametrize("tags", [True, False, "weak"])
@pytest.mark.parametrize("kind", ["http", "memory"])
def test_a_shard_that_changes_between_index_and_range(
    publish: Any, web: Any, tmp_path: Path, example: Any, kind: str, tags: bool | str
) -> None:
    source = tmp_path / "disk" / "a.zarr"
    create(source, example.spec)
    example.fill(source, [2])
    path = publish(source, kind)
    web.tags, web.weak = bool(tags), tags == "weak"
    reader = StoreReader(path)
    reader._shards.get("patches", 0, 2)
    example.fill(source, [0, 1, 2])
    if kind == "http":
        shutil.copytree(source, web.folder / "with space" / source.name, dirs_exist_ok=True)
    else:
        publish(source, kind)
    np.testing.assert_array_equal(reader.read("patches", 2, 0, 4), example.values["patches"][:4, 2])
    np.testing.assert_array_equal(reader.read("patches", 0, 0, 10), example.values["patches"][:, 0])


@pytest.mark.parametrize("kind", ["http", "memory"])
def test_damage_is_refused_by_name(publish: Any, tmp_path: Path, example: Any, monkeypatch: Any, kind: str) -> None:
    monkeypatch.setattr(filesystem, "FIRST_PAUSE", 0.0)
    source = example.make(tmp_path / "disk" / "a.zarr")
    shard = source / "patches" / "c.1.0.0.0"
    sound = shard.read_bytes()
    for number, (damage, said) in enumerate((
        (sound[:100] + bytes([sound[100] ^ 1]) + sound[101:], "do not match their checksum or done record"),
        (sound[:-8], "expected .* bytes, found"),
        (b"", "expected .* bytes, found 0"),
        (None, "is missing, though it is recorded as done"),
    )):  # fmt: skip
        shard.write_bytes(damage) if damage is not None else shard.unlink()
        spoilt = source.with_name(f"{number}.zarr")
        shutil.copytree(source, spoilt)
        path = publish(spoilt, kind)
        with pytest.raises(DamagedError, match=said) as caught:
            StoreReader(path).read("patches", 0, 0, 10)
        assert f"{number}.zarr/patches/c.1.0.0.0" in str(caught.value)
        assert "fetch it anew where it is a copy, or ask whoever publishes it" in str(caught.value)
        assert check_block(path, 1) != []


def test_a_document_that_claims_many_files_is_not_believed(
    publish: Any, web: Any, tmp_path: Path, example: Any
) -> None:
    source = example.make(tmp_path / "disk" / "a.zarr")
    document = json.loads((source / "zarr.json").read_bytes())
    del document["attributes"]["cachetool"]["crc32c"]
    document["consolidated_metadata"]["metadata"]["image_id"]["shape"] = [2**40]
    document["consolidated_metadata"]["metadata"]["image_id"]["chunk_grid"]["configuration"]["chunk_shape"] = [1]
    (source / "zarr.json").write_text(json.dumps(document))
    path = publish(source, "http")
    with pytest.raises(DamagedError, match="image_id is declared to have 1099511627776 files"):
        StoreReader(path)
    assert len(web.requests) == 1


def test_sizes_that_are_told_and_do_not_come_are_not_believed(
    publish: Any, tmp_path: Path, example: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = example.make(tmp_path / "disk" / "a.zarr")
    root = Root(source)
    values = read_table(source / "image_id", root.arrays["image_id"])
    document = json.loads(json.dumps(root.arrays["image_id"]))
    document["shape"] = document["chunk_grid"]["configuration"]["chunk_shape"] = [2**40]
    path = publish(source, "memory")
    listed = filesystem.FileSystem.children

    def lying(self: Any, prefix: str) -> Any:
        folders, files = listed(self, prefix)
        return folders, {name: replace(found, size=2**50) for name, found in files.items()}

    monkeypatch.setattr(filesystem.FileSystem, "children", lying)
    assert read_table(path / "image_id", root.arrays["image_id"]).tolist() == values.tolist()
    for required in (0, 2**40):
        with pytest.raises(DamagedError, match=r"declared as string \(1099511627776,\), .* hold \d+ bytes"):
            read_table(path / "image_id", document, required)


def test_anything_that_is_no_store_is_refused(web: Any, tmp_path: Path) -> None:
    (web.folder / "zarr.json").write_text("<html>not found</html>")
    with pytest.raises(DamagedError, match=r"zarr\.json is damaged"):
        StoreReader(web.url)
    with pytest.raises(MissingDataError):
        StoreReader(f"{web.url}/elsewhere")

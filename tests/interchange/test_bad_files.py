"""Files from somebody else: whatever does not fit is refused by name, and nothing is left on disk."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from cachetool.errors import DamagedError, IncompleteError, MissingDataError, StoreError, UnknownNameError
from cachetool.interchange import export_file, import_file, importing
from cachetool.store.object_folders import make_whole

Spoil = Callable[[Any], None]


def replaced(name: str, change: Callable[[Any], Any]) -> Spoil:
    def spoil(handle: Any) -> None:
        values = change(handle[name][...])
        del handle[name]
        handle[name] = values

    return spoil


def attribute(name: str, value: Any) -> Spoil:
    return lambda handle: handle.attrs.__setitem__(name, value)


def external_link(handle: Any) -> None:
    del handle["patches"]
    handle["patches"] = h5py.ExternalLink("other.h5", "patches")


def soft_link(handle: Any) -> None:
    handle["extra"] = h5py.SoftLink("/cls")


def external_storage(handle: Any) -> None:
    del handle["norm_weight"]
    handle.create_dataset("norm_weight", (5,), "f4", external=[("/etc/hostname", 0, 20)])


def virtual(handle: Any) -> None:
    layout = h5py.VirtualLayout(shape=(5,), dtype="f4")
    layout[:] = h5py.VirtualSource("other.h5", "secret", shape=(5,))
    del handle["norm_bias"]
    handle.create_virtual_dataset("norm_bias", layout)


def compressed(handle: Any) -> None:
    handle.create_dataset("bomb", (4096,), "u1", chunks=(4096,), compression="gzip")


def promised(handle: Any) -> None:
    handle.create_dataset("bomb", (10**12,), "f8", chunks=(1024,))


def hole(handle: Any) -> None:
    old = handle["cls"]
    values, shape = old[...], old.shape
    del handle["cls"]
    new = handle.create_dataset("cls", shape, "<f2", chunks=(4, 1, 5), fillvalue=np.float16(np.nan))
    new[4:8] = values[4:8]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (external_link, "patches is a link to elsewhere"),
        (soft_link, "extra is a link"),
        (external_storage, "norm_weight keeps its values in other files"),
        (virtual, "norm_bias keeps its values in other files"),
        (compressed, "bomb is compressed"),
        (promised, "bomb has the shape"),
        (lambda handle: handle.create_group("more"), "more is no data set"),
        (attribute("place", "../../etc/model"), "DATASET/CACHE"),
        (attribute("place", "photos/.hidden"), "DATASET/CACHE"),
        (attribute("place", "photos/model/run"), "is not that of a cache"),
        (attribute("kind", "calibration"), "cache or run"),
        (attribute("cachetool_hdf5", np.int64(2)), "layout version 2"),
        (attribute("key", '{"architecture": "test"}'), "weights_sha256 is absent"),
        (attribute("key", "[" * 100_000), "cannot be imported"),
        (attribute("facts", '{"depth": NaN}'), "NaN is no number"),
        (attribute("dtype", "float32"), "expected float32"),
        (attribute("layout", '{"cls": 1, "registers": 2, "rows": 99999999, "columns": 99999999}'), "patches"),
        (attribute("block", np.int64(10**9)), "at most 4096 images"),
        (attribute("block", np.int64(0)), "block 0"),
        (attribute("channels", np.int64(6)), "expected float16 (10, 4, 6)"),
        (attribute("all_layers", np.array([0, 1])), "no states of"),
        (lambda handle: handle.attrs.__delitem__("key"), "key"),
        (lambda handle: handle.__delitem__("image_id"), "image_id"),
        (replaced("image_id", lambda ids: ids[:9]), "same length"),
        (replaced("image_id", lambda ids: ids[[0, 0, 2, 3, 4, 5, 6, 7, 8, 9]]), "more than once"),
        (replaced("content_sha256", lambda ids: np.array([b"x"] * 10)), "64 hexadecimal digits"),
        (replaced("complete", lambda flags: flags[:2]), "complete"),
        (replaced("layer", lambda layers: layers[::-1]), "no states of"),
        (replaced("norm_weight", lambda weight: weight[:3]), "3 numbers for 5 channels"),
        (replaced("cls", lambda values: values.astype("f4")), "expected float16"),
        (replaced("registers", lambda values: values.view("u2")), "expected float16"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(cache: Path, tmp_path: Path, spoil: Spoil, expected: str) -> None:
    export_file(cache, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as handle:
        spoil(handle)
    with pytest.raises(StoreError) as refused:
        import_file(tmp_path / "a.h5", root=tmp_path / "new")
    assert expected in str(refused.value)
    assert not (tmp_path / "new").exists()


def test_values_that_are_promised_and_absent(cache: Path, tmp_path: Path) -> None:
    export_file(cache, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as handle:
        hole(handle)
    with pytest.raises(DamagedError, match="images 0 to 3, state 0 of cls: it is called finished, but holds no values"):
        import_file(tmp_path / "a.h5", root=tmp_path / "new")
    assert [path for path in (tmp_path / "new").rglob("*") if path.is_file()] == []


def text_that_is_no_unicode(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b'"dataset": "photos"', b'"dataset": "phot\xffs"'))


def root_that_is_no_group(file: Path) -> None:
    content = bytearray(file.read_bytes())
    with h5py.File(file) as handle:
        message = h5py.h5o.get_info(handle.id).addr + 16
    content[message + 1] ^= 1  # it said that this is a group
    file.write_bytes(content)


def chunks_that_cannot_be_found(file: Path) -> None:
    content = file.read_bytes()
    with h5py.File(file) as handle:
        chunk = handle["patches"].id.get_chunk_info_by_coord((4, 1, 0, 0)).byte_offset
    node = content.rindex(b"TREE", 0, content.index(chunk.to_bytes(8, "little")))  # which tells where chunks lie
    file.write_bytes(content[:node] + b"TRUE" + content[node + 4 :])


@pytest.mark.parametrize(
    ("spoil", "error", "expected"),
    [
        (text_that_is_no_unicode, StoreError, r"a\.h5 cannot be imported:\s+UnicodeEncodeError"),
        (root_that_is_no_group, StoreError, r"a\.h5 cannot be read as HDF5"),
        (chunks_that_cannot_be_found, DamagedError, r"a\.h5 is damaged at the images 0 to 3, state 0 of patches"),
    ],
)
def test_spoilt_bytes_are_refused_by_name(
    cache: Path, tmp_path: Path, spoil: Callable[[Path], None], error: type[StoreError], expected: str
) -> None:
    file = tmp_path / "a.h5"
    export_file(cache, file)
    spoil(file)
    with pytest.raises(error, match=expected):
        import_file(file, root=tmp_path / "new")
    assert [path for path in (tmp_path / "new").rglob("*") if path.is_file()] == []


def test_a_heap_without_an_end_is_refused(cache: Path, tmp_path: Path) -> None:
    """In a process of its own: HDF5 would go round in it for ever, and nothing but a kill would stop it."""
    file = tmp_path / "a.h5"
    export_file(cache, file)
    content = file.read_bytes()
    first = content.index(b"GCOL") + 16
    file.write_bytes(content[:first] + bytes(16) + content[first + 16 :])
    read = f"from cachetool.interchange import import_file; import_file({str(file)!r})"
    done = subprocess.run([sys.executable, "-c", read], capture_output=True, text=True, timeout=60, check=False)
    assert f"StoreError: {file} cannot be read as HDF5: an object of a heap claims 0 bytes" in done.stderr


def test_changed_bytes_and_truncation_are_seen(cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.h5"
    export_file(cache, file)
    whole = file.read_bytes()
    with h5py.File(file) as handle:
        where = handle["patches"].id.get_chunk_info_by_coord((4, 1, 0, 0)).byte_offset
    changed = bytearray(whole)
    changed[where + 3] ^= 1
    file.write_bytes(changed)
    with pytest.raises(DamagedError, match="images 4 to 7, state 1 of patches"):
        import_file(file, root=tmp_path / "new")
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match="cannot be read as HDF5"):
        import_file(file, root=tmp_path / "new")
    assert [path for path in (tmp_path / "new").rglob("*") if path.is_file()] == []


def test_nothing_is_overwritten(cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.h5"
    export_file(cache, file)
    before = file.read_bytes()
    with pytest.raises(StoreError, match="never overwrites"):
        export_file(cache, file)
    with pytest.raises(StoreError, match="--name"):
        import_file(file, root=tmp_path / "root")
    assert file.read_bytes() == before
    assert import_file(file, root=tmp_path / "root", name="second").path.name == "second.zarr"


def test_what_cannot_be_exported(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(IncompleteError, match=r"state 7; heads \(the store holds cls, registers, patches\)"):
        export_file(cache, tmp_path / "a.h5", layers=[1, 7], token_types=["cls", "heads"])
    with pytest.raises(IncompleteError, match="state 3"):
        export_file(cache, tmp_path / "a.h5", layers=[3], token_types=["patches"])
    with pytest.raises(UnknownNameError, match="--limit 0"):
        export_file(cache, tmp_path / "a.h5", limit=0)
    with pytest.raises(MissingDataError, match="there is no folder"):
        export_file(cache, tmp_path / "absent" / "a.h5")
    with pytest.raises(MissingDataError, match=r"there is no file"):
        import_file(tmp_path / "absent.h5")
    assert list(tmp_path.glob("a.h5*")) == []


CHILD = """
import os, signal, sys
from cachetool.interchange import export_file, import_file, importing
from cachetool.store.object_folders import make_whole
from cachetool.store import StoreReader, StoreWriter
calls = []
def dying(original):
    def method(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *arguments, **options)
    return method
StoreReader.read = dying(StoreReader.read)
StoreWriter.write_block = dying(StoreWriter.write_block)
cache, file, root = sys.argv[1:]
if root == "-":
    export_file(cache, file)
else:
    import_file(file, root=root)
"""


def test_killed_on_the_way(cache: Path, tmp_path: Path) -> None:
    file, root = tmp_path / "a.h5", tmp_path / "new"
    for target in ("-", str(root)):
        killed = subprocess.run([sys.executable, "-c", CHILD, cache, file, target], check=False, capture_output=True)
        assert killed.returncode == -9, killed.stderr
        assert not file.exists() or target != "-"
        if target == "-":
            assert len(list(tmp_path.glob("a.h5.partial-*"))) == 1
            export_file(cache, file)
            assert list(tmp_path.glob("a.h5*")) == [file]
    assert not (root / "photos" / "model.zarr").exists()
    import_file(file, root=root)
    assert [path.name for path in (root / "photos").iterdir()] == ["model.zarr"]


def test_a_disk_that_takes_no_more(cache: Path, tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000));"
        "from cachetool.cli import main; sys.argv = ['cachetool', 'export', *sys.argv[1:]]; main()"
    )
    assert resource.RLIMIT_FSIZE is not None
    done = subprocess.run(
        [sys.executable, "-c", code, cache, tmp_path / "a.h5"], check=False, capture_output=True, text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.glob("a.h5*")) == []


def test_an_interrupted_import_into_an_object_store_leaves_runs_that_lay_there(object_root, monkeypatch) -> None:
    root = {"zarr.json": b'{"cachetool": 1}'}
    run = object_root / "d" / "m.runs" / "r.zarr"
    make_whole(run, root)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(importing, "_create", lambda path, *_: make_whole(path, root))
    monkeypatch.setattr(importing, "_fill", interrupted)
    with pytest.raises(KeyboardInterrupt):
        importing._fill_in_place(object_root / "d" / "m.zarr", None, None, None)
    assert not (object_root / "d" / "m.zarr" / "zarr.json").is_file()
    assert (run / "zarr.json").is_file()

"""Calibrations against NumPy over all tokens at once, in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import cachetool
from cachetool.calibrating import calibrate
from cachetool.edits import Calibration
from cachetool.errors import (
    DamagedError,
    IncompleteError,
    InvalidEditError,
    KeyMismatchError,
    MissingDataError,
    StoreError,
)
from cachetool.store import ImageTable, StoreReader, StoreSpec, StoreWriter, create, from_float32, to_float32
from cachetool.tokens import TokenLayout
from tests.reference.quick import quick

LAYOUT = TokenLayout(cls=1, registers=2, rows=2, columns=3)
KEY = {
    "architecture": "vit",
    "weights_sha256": "ab",
    "dataset": "imagefolder",
    "transform": {"size": 32, "crop": "center", "crop_fraction": 0.875, "exif": False},
    "dtype": "float32",
}


class FakeReader:
    """States (layer, image, token, channel) in memory, stored as `dtype`."""

    def __init__(self, images=10, *, block=4, labels=None, names=None, unreadable=(), dtype="float32", key=KEY, seed=0):
        states = np.random.default_rng(seed).normal(3, 2, (4, images, LAYOUT.tokens, 5)) * [1, 2, 4, 8, 0.5]
        self.states = states.astype(dtype)
        self.states[:, list(unreadable)] = np.nan
        self.readable = ~np.isin(np.arange(images), list(unreadable))
        ids = tuple(f"{index:03d}.png" for index in range(images))
        table = ImageTable(ids, tuple(f"sha-{seed}-{index}" for index in range(images)), labels, names)
        self.spec = StoreSpec(
            "cache", key, {}, LAYOUT, 5, (0, 1, 2, 3), ("cls", "registers", "patches"), dtype, block, table
        )
        self.covered = {"cls": (1, 2, 3), "registers": (1, 2, 3), "patches": (1, 3)}
        self.reads = []

    def coverage(self, token_type, images=None):
        return self.covered[token_type]

    def read(self, token_type, layer, start, stop):
        self.reads.append((token_type, layer, start))
        return self.states[layer, start:stop, LAYOUT.slice(token_type)]


def expected(reader, token_type, layer, rows):
    """Tokens of each slot, (slot, token, channel), in float64."""
    tokens = reader.states[layer][rows][:, LAYOUT.slice(token_type)].astype(np.float64)
    return tokens.reshape(1, -1, 5) if token_type == "patches" else tokens.swapaxes(0, 1)


@given(
    images=st.integers(1, 14),
    block=st.integers(1, 16),
    dtype=st.sampled_from(["float32", "float16"]),
    chosen=st.sets(st.integers(0, 13), min_size=1),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_moments_equal_numpy_for_any_chunking(images, block, dtype, chosen, seed):
    reader = FakeReader(images, block=block, dtype=dtype, seed=seed, unreadable=(2,) if images > 3 else ())
    rows = np.array(sorted({index % images for index in chosen} | {0}))
    found = calibrate(reader, images=rows[::-1].tolist(), covariance=True)
    rows = rows[reader.readable[rows]]
    assert found.layers == (1, 3)
    assert found.image_ids == tuple(reader.spec.images.image_id[row] for row in rows)
    for token_type in LAYOUT.types:
        for layer in found.layers:
            tokens = expected(reader, token_type, layer, rows)
            assert found.count(token_type) == tokens.shape[1]
            np.testing.assert_allclose(found.mean(layer, token_type), tokens.mean(axis=1), rtol=1e-12)
            np.testing.assert_allclose(found.variance(layer, token_type), tokens.var(axis=1), rtol=1e-10, atol=1e-12)
            covariance = [np.cov(slot, rowvar=False, ddof=0) for slot in tokens]
            np.testing.assert_allclose(found.covariance(layer, token_type), covariance, rtol=1e-8, atol=1e-10)


def test_large_means_cost_no_precision():
    reader = FakeReader(200, block=16)
    reader.states += np.float32(1e4)
    found = calibrate(reader, token_types=["cls"], layers=[2])
    tokens = expected(reader, "cls", 2, slice(None))
    np.testing.assert_allclose(found.variance(2, "cls"), tokens.var(axis=1), rtol=1e-12)


def test_one_pass():
    reader = FakeReader(10, labels=tuple(range(10)))
    calibrate(reader)
    assert len(reader.reads) == len(set(reader.reads)) == 3 * 2 * 3


def test_class_means():
    labels = (4, 4, 0, -1, 9, 0, 0, 9, 4, 1)
    reader = FakeReader(10, block=3, labels=labels, names=tuple(f"class {label}" for label in labels), unreadable=[9])
    found = calibrate(reader)
    assert found.classes.tolist() == [0, 4, 9]
    assert found.class_names == {0: "class 0", 4: "class 4", 9: "class 9"}
    for token_type in LAYOUT.types:
        means = [
            expected(reader, token_type, 3, np.flatnonzero(np.array(labels) == label)).mean(axis=1)
            for label in (0, 4, 9)
        ]
        np.testing.assert_allclose(found.class_mean(3, token_type), means, rtol=1e-6)
    with pytest.raises(InvalidEditError, match="no image of class 1, 7;"):
        found.check_classes(np.array([0, 1, 7, 7]))


def test_no_class_means_without_labels_or_where_not_asked_for():
    for reader, wanted in (
        (FakeReader(), True),
        (FakeReader(labels=(1,) * 10), False),
        (FakeReader(labels=(-1,) * 10), True),
    ):
        found = calibrate(reader, class_means=wanted)
        assert len(found.classes) == 0
        with pytest.raises(InvalidEditError, match="holds no class mean of registers"):
            found.class_mean(3, "registers")


@pytest.mark.parametrize("count", [1, 5, 12, 40, 1000])
def test_reference_tokens_are_natural_and_halves_share_no_image(count):
    reader = FakeReader(12, unreadable=[3])
    found = calibrate(reader, reference_tokens=count)
    for token_type, slots, most in (("cls", 1, 11), ("registers", 2, 11), ("patches", 1, 66)):
        for slot in range(slots):
            reference = found.reference(3, token_type, slot)
            rows = np.concatenate([reference.fit, reference.held_out])
            assert len(rows) == min(count, most)
            assert len(np.unique(rows, axis=0)) == len(rows)
            natural = {token.tobytes() for token in expected(reader, token_type, 3, reader.readable)[slot].astype("f4")}
            assert {row.tobytes() for row in rows} <= natural
            held_out = {
                reader.spec.images.image_id[image]
                for row in reference.held_out
                for image in np.flatnonzero((reader.states[3] == row).all(axis=2).any(axis=1))
            }
            assert not held_out & set(reference.fit_image)
            assert abs(len(reference.fit) - len(reference.held_out)) <= 6


def test_reference_tokens_do_not_depend_on_blocks_and_can_be_left_out():
    drawn = [
        calibrate(FakeReader(12, block=block), reference_tokens=6).reference(1, "patches", 0) for block in (1, 5, 12)
    ]
    for other in drawn[1:]:
        np.testing.assert_array_equal(other.fit, drawn[0].fit)
        np.testing.assert_array_equal(other.fit_image, drawn[0].fit_image)
    without = calibrate(FakeReader(), reference_tokens=0)
    assert not without.has_reference(1, "cls")
    with pytest.raises(InvalidEditError, match="holds no reference of cls"):
        without.reference(1, "cls", 0)


def test_states_that_the_cache_lacks_are_all_named():
    reader = FakeReader()
    with pytest.raises(
        IncompleteError, match="lacks cls at state 0; registers at state 0; patches at state 0, 2; extract"
    ):
        calibrate(reader, layers=[0, 1, 2])
    reader.covered["patches"] = ()
    with pytest.raises(IncompleteError, match="no state is finished"):
        calibrate(reader)
    assert calibrate(reader, token_types=["registers"]).layers == (1, 2, 3)


def test_images_and_types_that_do_not_exist_are_named():
    reader = FakeReader(unreadable=[1])
    with pytest.raises(InvalidEditError, match="from 0 to 9; there is no image -1, 10, 12"):
        calibrate(reader, images=[3, 10, 12, -1])
    with pytest.raises(InvalidEditError, match="at least one readable image"):
        calibrate(reader, images=[1])
    with pytest.raises(InvalidEditError, match="cannot be calibrated for tokens, heads"):
        calibrate(reader, token_types=["cls", "tokens", "heads"])


def test_progress_is_told_in_images():
    class Recorder:
        def __init__(self):
            self.told = []

        def start(self, phase, total):
            self.told.append(total)

        def advance(self, images, nbytes=0):
            self.told.append(images)

        def message(self, text):
            raise AssertionError(text)

    events = Recorder()
    calibrate(FakeReader(10, block=4, unreadable=[5]), images=range(1, 10), events=events)
    assert events.told == [8, 3, 3, 2]


@pytest.fixture
def written(tmp_path):
    labels = (0, 0, 1, 1, 2, 2, 0, 1, 2, 0)
    reader = FakeReader(10, labels=labels, names=tuple("abc"[label] for label in labels), unreadable=[5])
    made = calibrate(reader, covariance=True, reference_tokens=8)
    path = tmp_path / "deep" / "calibration.zarr"
    made.write(path)
    return made, path


def test_an_artefact_reads_back_equal(written):
    made, path = written
    found = Calibration.read(path)
    for name in ("layers", "token_types", "image_ids", "sha256", "digest", "class_names", "key"):
        assert getattr(found, name) == getattr(made, name), name
    assert found.facts == {**made.facts, "content_sha256": made.content_sha256}
    np.testing.assert_array_equal(found.classes, made.classes)
    for token_type in LAYOUT.types:
        assert found.count(token_type) == made.count(token_type)
        for layer in made.layers:
            for name in ("mean", "variance", "covariance", "class_mean"):
                here, there = getattr(found, name)(layer, token_type), getattr(made, name)(layer, token_type)
                assert here.dtype == there.dtype
                np.testing.assert_array_equal(here, there)
            here, there = found.reference(layer, token_type, 0), made.reference(layer, token_type, 0)
            np.testing.assert_array_equal(here.fit, there.fit)
            np.testing.assert_array_equal(here.held_out, there.held_out)
            assert here.fit_image.tolist() == there.fit_image.tolist()


def test_plain_xarray_opens_an_artefact_without_warnings(written):
    made, path = written
    with xr.open_zarr(path) as opened:
        assert opened.registers_mean.dims == ("layer", "register", "channel")
        assert opened.patches_reference.dims == ("layer", "patches_reference_row", "channel")
        assert opened.cls_class_mean.dims == ("layer", "class", "channel")
        np.testing.assert_array_equal(opened.registers_mean.sel(layer=3), made.mean(3, "registers"))
        assert opened.image_id.values.tolist() == list(made.image_ids)
        assert {"layer", "image_id", "content_sha256", "label", "class", "class_name", "class_count"} == set(
            opened.coords
        )
        assert opened.attrs["cachetool"]["kind"] == "calibration"
        assert opened.attrs["cachetool"]["format"] == 1
        assert opened.attrs["cachetool"]["key"] == KEY


def test_writing_happens_or_does_not(written, monkeypatch):
    made, path = written
    with pytest.raises(StoreError, match="needs a free place"):
        made.write(path)
    monkeypatch.setattr("cachetool.edits.calibration_store.write_document", fail)
    with pytest.raises(StoreError, match="disk is full"):
        made.write(path.with_name("other.zarr"))
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def fail(*_):
    raise OSError(28, "No space left on device")


def test_reading_what_is_no_calibration(tmp_path, written):
    with pytest.raises(MissingDataError):
        Calibration.read(tmp_path / "none.zarr")
    document = written[1] / "zarr.json"
    unsealed = document.read_text().replace('"crc32c": ', '"other": ')
    document.write_text(unsealed.replace('"kind": "calibration"', '"kind": "cache"'))
    with pytest.raises(StoreError, match="it is a cache; make one"):
        Calibration.read(written[1])


def test_damage_is_noticed(written):
    path = written[1]
    changed, missing = sorted(file for file in (path / "registers_mean" / "c").rglob("*") if file.is_file())
    content = bytearray(changed.read_bytes())
    content[10] ^= 1
    changed.write_bytes(content)
    missing.unlink()
    found = Calibration.read(path)
    for layer, cause in zip(found.layers, ("checksum", "numbers are missing"), strict=True):
        with pytest.raises(DamagedError, match=rf"{path}/registers_mean is damaged \(.*{cause}"):
            found.mean(layer, "registers")


def test_the_model_must_match_but_not_the_data_set_and_its_framing():
    found = calibrate(FakeReader())
    framed = KEY["transform"] | {"crop": "none", "crop_fraction": 1.0, "exif": True}
    found.check_matches(KEY | {"dataset": "voc2012", "transform": framed})
    with pytest.raises(
        KeyMismatchError, match=r"transform, size: 32 here, 64 there; weights sha256: ab here, cd there"
    ):
        found.check_matches(KEY | {"weights_sha256": "cd", "transform": KEY["transform"] | {"size": 64}})
    with pytest.raises(KeyMismatchError, match="dtype"):
        found.check_matches(KEY | {"dtype": "float16"})


def test_overlap_is_by_content():
    found = calibrate(FakeReader(10, unreadable=[3]))
    assert found.overlap(["x", "y", "z"], ["sha-0-3", "sha-0-4", "sha-1-4"]) == ["y"]


def test_digests_follow_images_labels_and_key():
    digests = {
        calibrate(reader, images=images).digest
        for reader, images in (
            (FakeReader(), None),
            (FakeReader(), range(9)),
            (FakeReader(seed=1), None),
            (FakeReader(labels=(1,) * 10), None),
            (FakeReader(key=KEY | {"dtype": "float16"}), None),
        )
    }
    assert len(digests) == 5
    assert calibrate(FakeReader(), layers=[1], reference_tokens=0).digest == calibrate(FakeReader(block=3)).digest


def test_a_real_cache_in_a_small_dtype(tmp_path):
    memory = FakeReader(10, block=4, labels=(0, 1) * 5)
    spec = replace(memory.spec, dtype="bfloat16")
    create(tmp_path / "cache.zarr", spec)
    writer = StoreWriter(tmp_path / "cache.zarr")
    stored = from_float32(memory.states.astype(np.float32), "bfloat16")
    for block, start in enumerate(range(0, 10, 4)):
        part = stored[:, start : start + 4]
        arrays = {name: np.ascontiguousarray(part[:, :, LAYOUT.slice(name)]) for name in LAYOUT.types}
        writer.write_block(block, arrays | {"cls": arrays["cls"][:, :, 0]}, spec.layers)
    found = calibrate(StoreReader(tmp_path / "cache.zarr"))
    memory.states = to_float32(stored, "bfloat16")
    memory.covered = dict.fromkeys(LAYOUT.types, spec.layers)
    expected_calibration = calibrate(memory)
    assert found.layers == spec.layers
    for token_type in LAYOUT.types:
        for name in ("mean", "variance", "class_mean"):
            here, there = (getattr(one, name)(2, token_type) for one in (found, expected_calibration))
            np.testing.assert_allclose(here, there, rtol=1e-9)
        here, there = (one.reference(2, token_type, 0).fit for one in (found, expected_calibration))
        np.testing.assert_array_equal(here, there)


def test_states_need_to_be_finished_for_the_calibration_images_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("cachetool.extraction.request.default_block", lambda *arguments: 8)
    with quick():
        for layers, limit in (([12], 20), ([3, 12], 8)):
            cache = cachetool.extract(
                "tiny-reg", "shapes", root=tmp_path, layers=layers, limit=limit, tokens=["cls"], workers=0
            )
        calibration = cachetool.calibrate(cache, name="first", layers=[3], limit=8)
        assert calibration.layer.values.tolist() == [3]
        with pytest.raises(IncompleteError, match=r"for all of its images, .* lacks cls at state 3"):
            cachetool.calibrate(cache, name="more", layers=[3], limit=9)

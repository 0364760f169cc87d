from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from scipy import stats

from cachetool.edits import Edit
from cachetool.errors import IncompleteError, InvalidEditError, MissingDataError
from cachetool.randomness import generator, normals

FIXTURES = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LABELS = (5, 5, 2, 2, 9, 9, 2)


def put_in(sources, edit, layer, start=0, stop=None):
    """Values, and the intact tokens they stand for, of the images start to stop."""
    stop = len(sources.images.image_id) if stop is None else stop
    ids = sources.images.image_id[start:stop]
    state, readable = sources.states[edit.from_layer, start:stop], sources.readable[start:stop]
    selection = edit.select(sources.layout, state, ids, readable)
    images = selection.image + start
    values = edit.build().values(sources, edit, layer, images, selection)
    assert values.dtype == np.float32
    assert values.shape == (len(selection), sources.channels)
    return values, sources.states[layer, images, selection.position], images, selection


def test_zero(make_sources):
    values, *_ = put_in(make_sources(), Edit("patches:random4", "zero", 1), 2)
    assert not values.any()


def test_nothing(make_sources):
    values, *_ = put_in(make_sources(), Edit("registers", "none", 1), 2)
    assert len(values) == 0


@pytest.mark.parametrize("target", ["cls", "registers", "registers:1-2", "patches:random3"])
def test_mean(make_sources, calibrated, target):
    sources = calibrated(make_sources(unreadable=[2]))
    values, _, images, selection = put_in(sources, Edit(target, "mean", 1), 3)
    natural = sources.states[3, sources.readable].astype(np.float64)
    per_position = natural.mean(axis=0)
    per_position[sources.layout.slice("patches")] = natural[:, sources.layout.slice("patches")].mean(axis=(0, 1))
    np.testing.assert_allclose(values, per_position[selection.position], rtol=1e-6)
    assert 2 not in images


def test_noise_has_the_mean_and_variance_of_the_layer(make_sources, calibrated):
    sources = calibrated(make_sources(images=3000, channels=2))
    values, *_ = put_in(sources, Edit("registers:1", "noise", 1, seed=4), 3)
    natural = sources.states[3, :, 2].astype(np.float64)
    for channel in range(2):
        standard = (values[:, channel] - natural[:, channel].mean()) / natural[:, channel].std()
        assert stats.kstest(standard, "norm").pvalue > 1e-3


def test_noise_is_a_function_of_seed_image_layer_and_token(make_sources, calibrated):
    sources = calibrated(make_sources())
    values, _, images, selection = put_in(sources, Edit("registers", "noise", 1, seed=3), 2)
    natural = sources.states[2].astype(np.float64)
    for pair, (image, token) in enumerate(zip(images, selection.token, strict=True)):
        stream = generator(3, sources.images.image_id[image], 2, int(token), "noise/registers")
        drawn = stream.standard_normal(sources.channels, dtype=np.float32)
        expected = natural[:, 1 + token].mean(axis=0) + natural[:, 1 + token].std(axis=0) * drawn
        np.testing.assert_allclose(values[pair], expected, rtol=2e-6, atol=1e-6)
    calibration = sources.calibration
    deviation = np.sqrt(calibration.variance(2, "registers")).astype(np.float32)[selection.token]
    mean = calibration.mean(2, "registers").astype(np.float32)[selection.token]
    ids = [sources.images.image_id[image] for image in images]
    drawn = normals(3, ids, 2, selection.token, sources.channels, "noise/registers")
    np.testing.assert_array_equal(values, drawn * deviation + mean, err_msg="float32, to the bit")
    assert not np.allclose(values, put_in(sources, Edit("registers", "noise", 1, seed=4), 2)[0])
    assert not np.allclose(values, put_in(sources, Edit("registers", "noise", 1, seed=3), 3)[0])
    single, *_ = put_in(sources, Edit("registers:2", "noise", 1, seed=3), 2)
    np.testing.assert_array_equal(single, values[2::3])


@pytest.mark.parametrize("name", ["noise", "shuffle", "other-class-shuffle", "norm-matched", "interpolate:noise:0.3"])
@given(cut=st.integers(1, 6), seed=st.integers(0, 9))
@FIXTURES
def test_values_do_not_depend_on_the_split_into_blocks(make_sources, calibrated, name, cut, seed):
    sources = calibrated(make_sources(labels=LABELS, unreadable=[3]))
    edit = Edit("patches:random3", name, 1, seed=seed)
    whole, *_ = put_in(sources, edit, 3)
    parts = [put_in(sources, edit, 3, 0, cut)[0], put_in(sources, edit, 3, cut)[0]]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("name", ["shuffle", "same-class-shuffle", "other-class-shuffle"])
@pytest.mark.parametrize("target", ["cls", "registers:1", "patches:random3"])
def test_shuffles_put_in_the_donors_token(make_sources, name, target):
    sources = make_sources(labels=LABELS)
    edit = Edit(target, name, 1, seed=5)
    replacement = edit.build()
    donors = replacement.donors(sources, edit, 1)
    for layer in (1, 3):
        np.testing.assert_array_equal(replacement.donors(sources, edit, layer), donors)
        values, _, images, selection = put_in(sources, edit, layer)
        np.testing.assert_array_equal(values, sources.states[layer, donors[images], selection.position])
    labels = np.array(LABELS)
    if name != "shuffle":
        assert ((labels[donors] == labels) == (name == "same-class-shuffle")).all()


def test_fresh_donors_per_layer(make_sources):
    sources = make_sources(images=30)
    edit = Edit("registers", "shuffle", 1, fresh_per_layer=True)
    replacement = edit.build()
    drawn = {tuple(replacement.donors(sources, edit, layer)) for layer in range(1, 5)}
    assert len(drawn) == 4


def test_unreadable_images_neither_donate_nor_receive(make_sources):
    sources = make_sources(unreadable=[0, 4])
    edit = Edit("registers", "shuffle", 1)
    values, _, images, _ = put_in(sources, edit, 2)
    assert not np.isnan(values).any()
    assert not {0, 4} & set(images)
    assert edit.build().donors(sources, edit, 1)[[0, 4]].tolist() == [-1, -1]


def test_one_replacement_object_can_serve_several_caches_and_seeds(make_sources):
    few, many = make_sources(images=4), make_sources(images=40)
    edit, other = Edit("cls", "shuffle", 1), Edit("cls", "shuffle", 1, seed=1)
    replacement = edit.build()
    assert len(replacement.donors(few, edit, 1)) == 4
    assert len(replacement.donors(many, edit, 1)) == 40
    assert (replacement.donors(many, other, 1) != replacement.donors(many, edit, 1)).any()


def test_a_grown_cache_is_another_key(make_sources):
    edit = Edit("cls", "shuffle", 1)
    small, large = make_sources(images=4), make_sources(images=5)
    assert edit.build().key_parts(small, edit) != edit.build().key_parts(large, edit)


def test_class_mean(make_sources, calibrated):
    sources = calibrated(make_sources(labels=LABELS))
    for target in ("registers", "patches:random3", "cls"):
        values, _, images, selection = put_in(sources, Edit(target, "class-mean", 1), 2)
        for pair, image in enumerate(images):
            same = np.array(LABELS) == LABELS[image]
            position = selection.position[pair] if target != "patches:random3" else sources.layout.slice("patches")
            natural = sources.states[2, same][:, position].astype(np.float64)
            expected = natural.reshape(-1, sources.channels).mean(axis=0)
            np.testing.assert_allclose(values[pair], expected, rtol=1e-5, atol=1e-6)


def test_class_mean_names_all_classes_without_calibration_image(make_sources, calibrated):
    calibration = calibrated(make_sources(labels=LABELS)).calibration
    sources = make_sources(labels=(5, 2, 4, 9, -1, 2, 7))
    sources.calibration = calibration
    with pytest.raises(InvalidEditError, match="no image of class -1, 4, 7;"):
        Edit("registers", "class-mean", 1).check(sources)


def test_class_mean_refuses_classes_of_other_names(make_sources, calibrated):
    names = tuple({5: "cat", 2: "dog", 9: "owl"}[label] for label in LABELS)
    sources = calibrated(make_sources(labels=LABELS, names=names))
    Edit("registers", "class-mean", 1).check(sources)
    other = make_sources(labels=LABELS, names=tuple({"dog": "fox"}.get(name, name) for name in names))
    other.calibration = sources.calibration
    with pytest.raises(InvalidEditError, match=r"2 \('fox', 'dog'\); calibrate"):
        Edit("registers", "class-mean", 1).check(other)


def test_norm_matched(make_sources):
    sources = make_sources(images=400, channels=8)
    edit = Edit("registers:0", "norm-matched", 1)
    early, intact, *_ = put_in(sources, edit, 1)
    late, intact_late, *_ = put_in(sources, edit, 4)
    np.testing.assert_allclose(np.linalg.norm(early, axis=1), np.linalg.norm(intact, axis=1), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(late, axis=1), np.linalg.norm(intact_late, axis=1), rtol=1e-5)
    directions = early / np.linalg.norm(early, axis=1, keepdims=True)
    np.testing.assert_allclose(late / np.linalg.norm(late, axis=1, keepdims=True), directions, atol=1e-5)
    assert np.linalg.norm(directions.mean(axis=0)) < 4 / np.sqrt(400)
    fresh = Edit("registers:0", "norm-matched", 1, fresh_per_layer=True)
    assert not np.allclose(put_in(sources, fresh, 4)[0], late)


@pytest.mark.parametrize(("fresh", "drawn_for"), [(False, None), (True, 3)])
def test_directions_are_a_function_of_seed_image_and_token(make_sources, fresh, drawn_for):
    sources = make_sources()
    edit = Edit("registers", "norm-matched", 1, seed=3, fresh_per_layer=fresh)
    values, intact, images, selection = put_in(sources, edit, 3)
    for pair, (image, token) in enumerate(zip(images, selection.token, strict=True)):
        stream = generator(3, sources.images.image_id[image], drawn_for, int(token), "norm-matched/registers")
        drawn = stream.standard_normal(sources.channels, dtype=np.float32).astype(np.float64)
        expected = drawn * np.linalg.norm(intact[pair].astype(np.float64)) / np.linalg.norm(drawn)
        np.testing.assert_allclose(values[pair], expected, rtol=1e-6)


@given(dose=st.floats(0, 1))
@FIXTURES
def test_interpolation(make_sources, calibrated, dose):
    sources = calibrated(make_sources())
    edit = Edit("registers", f"interpolate:shuffle:{dose!r}", 1)
    values, intact, *_ = put_in(sources, edit, 2)
    other, *_ = put_in(sources, Edit("registers", "shuffle", 1), 2)
    if dose == 0:
        np.testing.assert_array_equal(values, intact)
    if dose == 1:
        np.testing.assert_array_equal(values, other)
    np.testing.assert_allclose(values, (1 - dose) * intact + dose * other, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(
        edit.build().donors(sources, edit, 2), Edit("registers", "shuffle", 1).build().donors(sources, edit, 2)
    )


def test_a_dose_of_fresh_donors_has_those_of_its_state(make_sources):
    sources = make_sources(images=30)
    edit, whole = (Edit("registers", name, 1, fresh_per_layer=True) for name in ("interpolate:shuffle:0.5", "shuffle"))
    for layer in (1, 3):
        np.testing.assert_array_equal(
            edit.build().donors(sources, edit, layer), whole.build().donors(sources, whole, layer)
        )


@pytest.mark.parametrize("dose", [0, 1])
@pytest.mark.parametrize("name", ["zero", "mean", "noise", "norm-matched", "class-mean", "patch:n0/003.png"])
def test_interpolation_ends(make_sources, calibrated, name, dose):
    sources = calibrated(make_sources(labels=LABELS))
    values, intact, *_ = put_in(sources, Edit("registers", f"interpolate:{name}:{dose}", 1), 2)
    np.testing.assert_array_equal(values, put_in(sources, Edit("registers", name, 1), 2)[0] if dose else intact)


def test_patch_from_a_named_image(make_sources):
    sources = make_sources()
    edit = Edit("registers", "patch:n2/002.png", 1)
    edit.check(sources)
    values, _, _, selection = put_in(sources, edit, 3)
    np.testing.assert_array_equal(values, sources.states[3, 2, selection.position])
    assert edit.build().donors(sources, edit, 1).tolist() == [2] * 7


def test_patch_looks_its_donors_up_once_for_each_cache(make_sources):
    sources, more = make_sources(unreadable=[4]), make_sources(images=9)
    edit = Edit("registers", "patch:n2/002.png", 1)
    replacement = edit.build()
    donors = replacement.donors(sources, edit, 1)
    assert donors.tolist() == [2, 2, 2, 2, -1, 2, 2]
    assert replacement.donors(sources, edit, 3) is donors
    assert replacement.donors(more, edit, 1).tolist() == [2] * 9


def test_images_that_neither_cache_could_read_need_no_donor(make_sources):
    sources, other = make_sources(unreadable=[1]), make_sources(seed=9, unreadable=[1])
    sources.others["other.zarr"] = other
    edit = Edit("registers", "patch:same@other.zarr", 1)
    edit.check(sources)
    values, _, images, selection = put_in(sources, edit, 3)
    np.testing.assert_array_equal(values, other.states[3, images, selection.position])
    assert 1 not in images


def test_patch_from_a_second_cache(make_sources):
    sources, corrupt = make_sources(unreadable=[1]), make_sources(seed=9)
    order = np.array([6, 0, 5, 1, 4, 2, 3])
    corrupt.states = corrupt.states[:, order]
    corrupt.images = type(corrupt.images)(tuple(corrupt.images.image_id[row] for row in order), ())
    corrupt.key_digest = "other"
    sources.others["corrupt.zarr"] = corrupt
    edit = Edit("registers", "patch:same@corrupt.zarr", 1)
    edit.check(sources)
    values, _, images, selection = put_in(sources, edit, 3)
    np.testing.assert_array_equal(values, corrupt.states[3, np.argsort(order)[images], selection.position])
    assert edit.build().key_parts(sources, edit) == {"patch_cache": "other"}
    assert edit.build().donors(sources, edit, 1) is None
    named = Edit("registers", "patch:n0/000.png@corrupt.zarr", 1)
    values, _, _, selection = put_in(sources, named, 3)
    np.testing.assert_array_equal(values, corrupt.states[3, 1, selection.position])


def test_patch_names_what_the_donor_cache_lacks(make_sources):
    sources, small = make_sources(), make_sources(images=5, unreadable=[1])
    sources.others |= {"small.zarr": small, "deep.zarr": make_sources(depth=9), "partial.zarr": make_sources()}
    sources.others["partial.zarr"].missing = (2, 4)
    with pytest.raises(InvalidEditError, match=r"no readable image n1/001.png, n2/005.png, n0/006.png; use"):
        Edit("registers", "patch:same@small.zarr", 1).check(sources)
    with pytest.raises(InvalidEditError, match=r"this cache, which has no readable image nobody.png"):
        Edit("registers", "patch:nobody.png", 1).check(sources)
    with pytest.raises(InvalidEditError, match="same shape"):
        Edit("registers", "patch:same@deep.zarr", 1).check(sources)
    with pytest.raises(IncompleteError, match="lacks state 2, 4;"):
        Edit("registers", "patch:same@partial.zarr", 1).check(sources)
    Edit("registers", "patch:same@partial.zarr", 3, until_layer=3).check(sources)


def test_what_is_missing_is_refused_before_there_is_a_cache(tmp_path):
    for name in ("patch:a.png", "interpolate:patch:a.png:0.5"):
        replacement = Edit("cls", name, 1).build()
        replacement.check_early(["b.png", "a.png"])
        with pytest.raises(MissingDataError) as caught:
            replacement.check_early(["b.png"])
        assert str(caught.value) == "'patch:a.png' needs an image that is not among the edited ones"
    cache = tmp_path / "second.zarr"
    replacement = Edit("cls", f"patch:a.png@{cache}", 1).build()
    with pytest.raises(MissingDataError) as caught:
        replacement.check_early(["a.png"])
    assert str(caught.value) == f"'patch:a.png@{cache}' needs the cache '{cache}', but there is none"
    cache.mkdir()
    (cache / "zarr.json").write_text("{}")
    replacement.check_early([])


def test_patch_keeps_an_at_sign_in_the_image_id():
    replacement = Edit("cls", "patch:a@b.png@x/y.zarr/", 1).build()
    assert (replacement.image_id, replacement.cache) == ("a@b.png", "x/y.zarr/")
    for image_id in ("a@b.png", "a@b.zarrX", "a@zarr"):
        replacement = Edit("cls", f"patch:{image_id}", 1).build()
        assert (replacement.image_id, replacement.cache) == (image_id, None)


@pytest.mark.parametrize("suffix", ["npy", "safetensors"])
def test_add(make_sources, tmp_path, suffix):
    sources = make_sources()
    rows = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    for name, direction in (("one", rows[2]), ("each", rows)):
        path = tmp_path / f"{name}.{suffix}"
        if suffix == "npy":
            np.save(path, direction)
        else:
            save_file({"direction": direction}, path)
        edit = Edit("registers", f"add:{path}:-2.5", 1)
        edit.check(sources)
        values, *_ = put_in(sources, edit, 2)
        np.testing.assert_array_equal(values, np.broadcast_to(np.float32(-2.5) * rows[2], values.shape))
        assert edit.build().kind == "add"


def test_add_depends_on_the_numbers_in_the_file(make_sources, tmp_path):
    edit = Edit("registers", f"add:{tmp_path / 'x.npy'}", 1)
    digests = []
    for value in (1, 2):
        np.save(tmp_path / "x.npy", np.full(6, value, dtype=np.float32))
        digests.append(edit.build().key_parts(make_sources(), edit)["direction"])
    assert digests[0] != digests[1]


def test_add_refuses_files_that_do_not_fit(make_sources, tmp_path):
    sources = make_sources()
    with pytest.raises(MissingDataError, match="no such file"):
        Edit("cls", f"add:{tmp_path / 'none.npy'}", 1).check(sources)
    np.save(tmp_path / "shape.npy", np.zeros((4, 6)))
    with pytest.raises(InvalidEditError, match=r"\(6,\) or \(layer, channel\) = \(5, 6\), but .* holds \(4, 6\)"):
        Edit("cls", f"add:{tmp_path / 'shape.npy'}", 1).check(sources)
    np.save(tmp_path / "nan.npy", np.full(6, np.nan))
    with pytest.raises(InvalidEditError, match="NaN"):
        Edit("cls", f"add:{tmp_path / 'nan.npy'}", 1).check(sources)
    save_file({"a": np.zeros(6), "b": np.zeros(6)}, tmp_path / "two.safetensors")
    with pytest.raises(InvalidEditError, match="holds 2: a, b"):
        Edit("cls", f"add:{tmp_path / 'two.safetensors'}", 1).check(sources)


def test_attention_edits_have_no_values(make_sources):
    for name in ("remove", "knockout"):
        with pytest.raises(TypeError, match="attention mask"):
            put_in(make_sources(), Edit("registers", name, 1), 2)


def test_calibrated_replacements_depend_on_the_calibration(make_sources, calibrated):
    sources = calibrated(make_sources(labels=LABELS))
    for name in ("mean", "noise", "class-mean", "interpolate:mean:0.5"):
        edit = Edit("registers", name, 1)
        assert edit.build().key_parts(sources, edit) == {"calibration": sources.calibration.digest}


def test_states_without_calibration_are_named(make_sources, calibrated):
    sources = calibrated(make_sources())
    deeper = make_sources(depth=6)
    deeper.calibration = sources.calibration
    with pytest.raises(InvalidEditError, match="lacks state 5, 6: it covers states 0, 1, 2, 3, 4"):
        Edit("registers", "mean", 1).check(deeper)

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachetool.edits import Edit, parse_replacement, replacements
from cachetool.errors import BrokenPluginWarning, InvalidEditError, UnknownNameError

SIMPLE = ["zero", "mean", "noise", "shuffle", "class-mean", "same-class-shuffle", "other-class-shuffle", "norm-matched"]
PATHS = st.text(st.sampled_from("abc/._-: "), min_size=1, max_size=10)
FILES = st.tuples(PATHS, st.sampled_from([".npy", ".safetensors"])).map("".join)
SCALES = st.floats(allow_nan=False, allow_infinity=False)
MIXABLE = st.one_of(
    st.sampled_from(SIMPLE),
    PATHS.filter(lambda name: name != "same").map("patch:{}".format),
    st.tuples(PATHS, PATHS).map(lambda pair: f"patch:{pair[0]}@{pair[1]}.zarr"),
)
SPECIFICATIONS = st.one_of(
    MIXABLE,
    st.sampled_from(["none", "remove", "knockout"]),
    st.tuples(MIXABLE, st.floats(0, 1)).map(lambda pair: f"interpolate:{pair[0]}:{pair[1]!r}"),
    st.tuples(FILES, SCALES).map(lambda pair: f"add:{pair[0]}:{pair[1]!r}"),
    FILES.map("add:{}".format),
)


@given(SPECIFICATIONS)
@settings(deadline=None)
def test_every_replacement_survives_its_own_text(text):
    canonical = str(parse_replacement(text))
    assert str(parse_replacement(canonical)) == canonical


@given(SPECIFICATIONS, st.sampled_from(["registers", "patches:random4", "cls"]), st.integers(0, 5), st.integers(0, 9))
@settings(deadline=None)
def test_every_edit_survives_json_and_has_a_path_safe_slug(replacement, target, layer, seed):
    edit = Edit(target, replacement, layer, seed=seed)
    assert Edit(**json.loads(json.dumps(edit.to_json()))) == edit
    assert re.fullmatch(r"[A-Za-z0-9.,_+-]{1,200}", edit.slug)


def test_all_fourteen_are_discovered():
    assert set(replacements()) == {*SIMPLE, "none", "interpolate", "remove", "knockout", "patch", "add"}
    for name, replacement in replacements().items():
        assert replacement.name == name
        assert replacement.description
        assert replacement.usage.startswith(name)


def test_another_package_can_announce_a_replacement(monkeypatch):
    class Mine(replacements()["zero"]):
        name = "mine"

    modules = SimpleNamespace(mine=Mine, number=int)
    monkeypatch.setitem(sys.modules, "my_edits", modules)

    def announce(value):
        replacements.cache_clear()
        monkeypatch.setattr("cachetool.plugins.entry_points", lambda group: [EntryPoint("my", value, group)])

    announce("my_edits:mine")
    assert isinstance(parse_replacement("mine"), Mine)
    for value, reason in (
        ("my_edits:number", r"TypeError: it must be a subclass of cachetool\.edits\.Replacement"),
        ("my_edits:absent", "AttributeError: .*absent"),
        ("no_such_module:mine", "ModuleNotFoundError: No module named 'no_such_module'"),
    ):
        announce(value)
        with pytest.warns(BrokenPluginWarning, match=rf"the replacement 'my' \({value}\) cannot be loaded: {reason}"):
            found = replacements()
        assert "zero" in found
        assert "mine" not in found
    monkeypatch.undo()
    replacements.cache_clear()


def test_oracles_are_marked():
    marked = {name for name, replacement in replacements().items() if replacement.oracle}
    assert marked == {"class-mean", "same-class-shuffle"}
    assert parse_replacement("interpolate:class-mean:0.5").oracle
    assert not parse_replacement("interpolate:mean:0.5").oracle


def test_unknown_replacement_suggests_and_lists():
    with pytest.raises(UnknownNameError, match=r"no replacement 'shufle'; did you mean 'shuffle'.*norm-matched"):
        Edit("registers", "shufle", 1)


@pytest.mark.parametrize(
    ("replacement", "message"),
    [
        ("zero:1", "takes no argument"),
        ("zero:", "takes no argument"),
        ("interpolate", "interpolate:mean:0.5"),
        ("interpolate:mean", "found 'mean'"),
        ("interpolate:mean:1.5", "from 0 to 1"),
        ("interpolate:mean:nan", "from 0 to 1"),
        ("interpolate:remove:0.5", "puts in no values"),
        ("interpolate:none:0.5", "puts in no values"),
        ("interpolate:add:x.npy:2:0.5", "puts in no values"),
        ("patch", "needs the id"),
        ("patch:@a.zarr", "needs the id"),
        ("patch:same", "second cache"),
        ("add", "npy or .safetensors"),
        ("add:direction.csv", "npy or .safetensors"),
        ("add:direction.npy:big", "finite scale"),
        ("add:direction.npy:inf", "finite scale"),
    ],
)
def test_wrong_arguments(replacement, message):
    with pytest.raises(InvalidEditError, match=message):
        parse_replacement(replacement)


def test_equal_edits_are_equal():
    assert Edit("registers:0,1", "interpolate:mean:0.50", 1) == Edit("registers:0-1", "interpolate:mean:.5", 1)
    assert Edit("cls", "add:x.npy:1.0", 1) == Edit("cls", "add:x.npy", 1)
    assert Edit("cls", "zero", 1, fresh_per_layer=True) == Edit("cls", "zero", 1)
    assert Edit("cls", "shuffle", 1, fresh_per_layer=True) != Edit("cls", "shuffle", 1)


@pytest.mark.parametrize(
    ("typed", "canonical"),
    [
        ("add:x.npy:1.0", "add:x.npy"),
        ("add:x.npy:2.0", "add:x.npy:2"),
        ("add:x.npy:-0.50", "add:x.npy:-0.5"),
        ("interpolate:mean:.5", "interpolate:mean:0.5"),
        ("patch:a.png@b.zarr", "patch:a.png@b.zarr"),
        ("zero", "zero"),
    ],
)
def test_canonical_text(typed, canonical):
    assert str(parse_replacement(typed)) == canonical


def test_file_names_may_have_more_than_one_line():
    assert Edit("cls", "add:a\nb.npy:2", 1).build().path == "a\nb.npy"


def test_slugs():
    assert Edit("registers:0-2", "zero", 1).slug == "registers-0-2.zero.from1.seed0"
    assert (
        Edit("cls", "shuffle", 6, sustained=False, seed=3, fresh_per_layer=True).slug == "cls.shuffle.only6.seed3.fresh"
    )
    assert Edit("cls", "mean", 1, until_layer=11).slug == "cls.mean.from1to11.seed0"
    slugs = {Edit("cls", f"patch:{image}", 1).slug for image in ("a/b.png", "a-b.png", "a b.png", "x" * 300)}
    assert len(slugs) == 4


def test_edited_states():
    assert Edit("cls", "zero", 1).edited_layers(12) == range(1, 13)
    assert Edit("cls", "zero", 1, until_layer=11).edited_layers(12) == range(1, 12)
    assert Edit("cls", "zero", 4, sustained=False).edited_layers(12) == range(4, 5)
    assert Edit("cls", "zero", 12).edited_layers(12) == range(12, 13)
    with pytest.raises(InvalidEditError, match=r"first edited state is 13 and the last edited state is 15.*0 to 12"):
        Edit("cls", "zero", 13, until_layer=15).edited_layers(12)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"from_layer": -1}, "0 or later"),
        ({"from_layer": 4, "until_layer": 3}, "before the first"),
        ({"from_layer": 4, "until_layer": 5, "sustained": False}, "drop one"),
        ({"from_layer": 4, "until_layer": 5, "replacement": "remove"}, "until state 5.*use 'knockout'"),
        ({"from_layer": 4, "sustained": False, "replacement": "remove"}, "state 4 only.*use 'knockout'"),
    ],
)
def test_states_that_do_not_fit(parameters, message):
    with pytest.raises(InvalidEditError, match=message):
        Edit(**{"target": "registers", "replacement": "zero"} | parameters)


def test_masked_blocks():
    assert Edit("cls", "zero", 3).masked_blocks(12) == range(0)
    assert Edit("cls", "knockout", 3).masked_blocks(12) == range(3, 12)
    assert Edit("cls", "knockout", 3, until_layer=5).masked_blocks(12) == range(3, 6)
    assert Edit("cls", "knockout", 3, sustained=False).masked_blocks(12) == range(3, 4)
    assert Edit("cls", "remove", 3).masked_blocks(12) == range(3, 12)
    assert Edit("cls", "remove", 12).masked_blocks(12) == range(12, 12)
    with pytest.raises(InvalidEditError, match="no block attends to the last state; choose state 11"):
        Edit("cls", "knockout", 12).masked_blocks(12)


def test_needed_states():
    states = {"registers": (2, 3, 4)}
    assert Edit("registers", "shuffle", 2).needed_states(4) == states
    assert Edit("registers", "shuffle", 2, until_layer=3).needed_states(4) == {"registers": (2, 3)}
    assert Edit("registers", "norm-matched", 2, sustained=False).needed_states(4) == {"registers": (2,)}
    assert Edit("registers", "interpolate:zero:0.5", 2).needed_states(4) == states
    assert Edit("registers", "mean", 2).needed_states(4) == {}
    assert Edit("registers", "mean", 2).needed_states(4, own_calibration=True) == states
    assert Edit("registers", "zero", 2).needed_states(4, own_calibration=True) == {}
    assert Edit("registers", "patch:a.png", 2).needed_states(4) == states
    assert Edit("registers", "patch:same@other.zarr", 2).needed_states(4) == {}


def test_what_a_seed_changes():
    assert not Edit("registers", "zero", 1).random
    assert Edit("patches:random4", "zero", 1).random
    assert Edit("registers", "interpolate:shuffle:0.5", 1).random


def test_none_selects_nothing_but_needs_its_target(layout):
    state = np.zeros((2, layout.tokens, 3), dtype=np.float32)
    selection = Edit("registers", "none", 1).select(layout, state, ["a", "b"], np.ones(2, dtype=bool))
    assert len(selection) == 0
    assert selection.per_image.tolist() == [0, 0]
    with pytest.raises(InvalidEditError, match="registers 3"):
        Edit("registers:3", "none", 1).select(layout, state, ["a", "b"], np.ones(2, dtype=bool))


def test_check_names_what_is_missing(make_sources, calibrated):
    sources = make_sources()
    with pytest.raises(InvalidEditError, match="no labels"):
        Edit("registers", "class-mean", 1).check(sources)
    with pytest.raises(InvalidEditError, match="registers 3-5"):
        Edit("registers:1,3-5", "zero", 1).check(sources)
    with pytest.raises(InvalidEditError, match="states 0 to 4"):
        Edit("registers", "zero", 5).check(sources)
    for name in (
        "zero",
        "mean",
        "noise",
        "shuffle",
        "norm-matched",
        "interpolate:mean:0.5",
        "remove",
        "knockout",
        "none",
    ):
        Edit("registers", name, 1).check(calibrated(sources))

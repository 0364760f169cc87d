"""Whether the parts of a root document agree: every part that does not is named, with what was found."""

from __future__ import annotations

import copy

import pytest

from cachetool.store import Root, create
from cachetool.store.consistency import (
    MOST_CHANNELS,
    MOST_IMAGES_OF_A_BLOCK,
    MOST_STATES,
    entry_problems,
    size_problems,
)
from cachetool.tokens import MOST_TOKENS


@pytest.fixture
def root(tmp_path, example):
    create(tmp_path / "a.zarr", example.spec)
    return Root(tmp_path / "a.zarr")


@pytest.fixture
def geometry(example):
    return example.spec.geometry


def problems(root, *, layout=None, arrays=None, **entries) -> list[str]:
    """Problems of the entries of a sound root document after these were changed."""
    about = root.about | entries
    about["layout"] = about["layout"] | (layout or {})
    return entry_problems(about, root.arrays | (arrays or {}))


def test_a_sound_document_has_no_problems(root, geometry) -> None:
    assert entry_problems(root.about, root.arrays) == []
    assert size_problems(geometry, root.arrays) == []


def test_a_layout_has_four_parts(root) -> None:
    for layout in (None, [1], {"cls": 1, "registers": 2, "rows": 3}):
        found = entry_problems(root.about | {"layout": layout}, root.arrays)
        assert found == [f"layout must hold cls, registers, rows and columns, found {layout!r}"]


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("cls", 0, 1),
        ("registers", 0, MOST_TOKENS),
        ("rows", 0, MOST_TOKENS),
        ("columns", 0, MOST_TOKENS),
        ("channels", 1, MOST_CHANNELS),
        ("block", 1, MOST_IMAGES_OF_A_BLOCK),
    ],
)
def test_numbers_lie_in_their_limits(root, name, low, high) -> None:
    def found(value: object) -> list[str]:
        # The other parts of the layout at their least, so that this one alone decides.
        others = {"registers": 0, "rows": 0, "columns": 0} if name in root.about["layout"] else {}
        return problems(root, layout=others | {name: value}) if others else problems(root, **{name: value})

    assert found(low) == []
    for value in (low - 1, high + 1, 1.0, True, None):
        assert found(value) == [f"{name} must be an integer from {low} to {high}, found {value}"]
    assert not any("must be an integer" in problem for problem in found(high))


def test_a_layout_has_no_more_tokens_than_any_model(root) -> None:
    layout = {"cls": 0, "registers": 3, "rows": 1, "columns": MOST_TOKENS - 4}
    assert problems(root, layout=layout) == []
    layout["columns"] += 1
    assert problems(root, layout=layout) == [f"a layout of {layout} has more than {MOST_TOKENS} tokens"]
    layout = {"cls": 0, "registers": 0, "rows": 2**10, "columns": 2**10}
    assert problems(root, layout=layout) == [f"a layout of {layout} has more than {MOST_TOKENS} tokens"]


def test_entries_and_arrays_are_all_named(root) -> None:
    arrays = copy.deepcopy(root.arrays)
    del arrays["image_id"], arrays["readable"]
    arrays["label"]["data_type"] = "int32"
    arrays["norm_bias"]["dimension_names"] = ["register"]
    arrays["complete"].pop("dimension_names")
    assert entry_problems(root.about | {"dtype": "float64"}, arrays) == [
        "dtype must be one of float32, float16, bfloat16, found 'float64'",
        "the array image_id is missing",
        "the array readable is missing",
        "label must be int64, found int32",
        "complete must have the dimensions block, token_type, layer, found None",
        "norm_bias must have the dimensions channel, found ['register']",
    ]


@pytest.mark.parametrize(("states", "fit"), [(0, False), (1, True), (MOST_STATES, True), (MOST_STATES + 1, False)])
def test_a_store_has_states_but_no_more_than_any_model(root, states, fit) -> None:
    layer = root.arrays["layer"] | {"shape": [states]}
    expected = [] if fit else [f"a store has 1 to {MOST_STATES} states, found {states}"]
    assert problems(root, arrays={"layer": layer}) == expected
    assert problems(root, arrays={"layer": layer | {"shape": []}}) == []


def test_sizes_agree_with_the_geometry(root, geometry) -> None:
    arrays = copy.deepcopy(root.arrays)
    arrays["label"]["shape"] = [11]
    arrays["complete"]["shape"] = [4, 2, 5]
    arrays["row"]["shape"] = [7]
    arrays["norm_bias"]["shape"] = [6]
    arrays["donor"] = arrays["label"] | {"shape": [9, 3], "dimension_names": ["image", "register"]}
    arrays["free"] = arrays["label"] | {"shape": [9], "dimension_names": ["neighbour"]}
    arrays["bare"] = {name: part for name, part in arrays["label"].items() if name != "dimension_names"}
    arrays["bare"]["shape"] = []
    assert size_problems(geometry, arrays) == [
        "complete has 4 along block, the store 3",
        "complete has 2 along token_type, the store 3",
        "complete has 5 along layer, the store 4",
        "label has 11 along image, the store 10",
        "norm_bias has 6 along channel, the store 5",
        "row has 7 along patch, the store 6",
        "donor has 9 along image, the store 10",
        "donor has 3 along register, the store 2",
    ]


def test_token_arrays_and_they_alone_are_stored_in_shards(root, geometry) -> None:
    arrays = copy.deepcopy(root.arrays)
    arrays["label"]["codecs"], arrays["cls"]["codecs"] = arrays["cls"]["codecs"], arrays["label"]["codecs"]
    assert size_problems(geometry, arrays) == ["cls must be stored in shards", "label must not be stored in shards"]


def test_shards_are_those_of_the_geometry(root, geometry) -> None:
    arrays = copy.deepcopy(root.arrays)
    patches = arrays["patches"]
    patches["dimension_names"] = ["image", "layer", "patch", "other"]
    patches["data_type"] = "float32"
    patches["chunk_grid"]["configuration"]["chunk_shape"] = [8, 4, 6, 5]
    patches["codecs"][0]["configuration"]["chunk_shape"] = [2, 1, 6, 5]
    assert size_problems(geometry, arrays) == [
        "patches: dimension_names must be ['image', 'layer', 'patch', 'channel'],"
        " found ['image', 'layer', 'patch', 'other']",
        "patches: data_type must be float16, found 'float32'",
        "patches: shards must be [4, 4, 6, 5], found [8, 4, 6, 5]",
        "patches: chunks must be [4, 1, 6, 5], found [2, 1, 6, 5]",
    ]
    patches["codecs"][0]["configuration"].pop("chunk_shape")
    assert size_problems(geometry, arrays)[-1] == "patches: chunks must be [4, 1, 6, 5], found None"

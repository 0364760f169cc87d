from __future__ import annotations

import numpy as np
import pytest

from cachetool.errors import StoreError
from cachetool.store import ArraySpec, Geometry, ImageTable, default_block
from cachetool.tokens import TokenLayout


@pytest.mark.parametrize(
    ("layout", "channels", "layers", "block"),
    [
        (TokenLayout(1, 4, 16, 16), 384, 13, 32),
        (TokenLayout(1, 4, 16, 16), 1536, 41, 8),
        (TokenLayout(1, 4, 7, 7), 96, 13, 256),
        (TokenLayout(1, 0, 1, 1), 8, 2, 256),
    ],
)
def test_default_block_keeps_shards_under_128_mebibytes(layout, channels, layers, block) -> None:
    assert default_block(layout, channels, layers, 2) == block
    if block > 8:
        assert block * layout.patches * channels * layers * 2 <= 2**27


def test_a_spec_names_everything_that_cannot_be_stored(kit) -> None:
    with pytest.raises(StoreError, match="not registers"):
        kit.make_example(TokenLayout(1, 0, 2, 2), token_types=("cls", "registers")).spec.geometry  # noqa: B018
    with pytest.raises(StoreError, match=r"block 0.*ascending"):
        kit.make_example(layers=(3, 1), block=0).spec.geometry  # noqa: B018


def test_image_tables_are_rectangular_and_unique() -> None:
    with pytest.raises(StoreError, match="same length"):
        ImageTable(("a", "b"), ("0",))
    with pytest.raises(StoreError, match=r"a, b\."):
        ImageTable(("a", "b", "a", "b"), ("0", "1", "2", "3"))


def test_a_blocks_images_end_with_the_store(example) -> None:
    geometry = example.spec.geometry
    assert [geometry.block_range(block) for block in range(3)] == [range(4), range(4, 8), range(8, 10)]
    with pytest.raises(StoreError, match="blocks 0 to 2; block 3"):
        geometry.block_range(3)
    assert geometry.shard_layout("patches").shard_bytes(2, 2) == 2 * (4 * 6 * 5 * 2 + 4) + 4 * 16 + 4
    assert np.prod(geometry.shape("cls")) == 10 * 4 * 5


def test_arrays_have_their_dimensions_shapes_and_keys() -> None:
    cls, registers, patches = ArraySpec("cls", 0, 5), ArraySpec("registers", 2, 5), ArraySpec("patches", 6, 5)
    assert [array.dimensions for array in (cls, registers, patches)] == [
        ("image", "layer", "channel"),
        ("image", "layer", "register", "channel"),
        ("image", "layer", "patch", "channel"),
    ]
    assert [array.inner_shape for array in (cls, registers, patches)] == [(5,), (2, 5), (6, 5)]
    assert [array.values for array in (cls, registers, patches)] == [5, 10, 30]
    assert [array.chunk_key(7) for array in (cls, patches)] == ["c.7.0.0", "c.7.0.0.0"]


def test_patches_are_cut_into_chunks_of_the_most_images_up_to_8_that_divide_a_block() -> None:
    patches = ArraySpec("patches", 6, 5)
    expected = {1: 1, 2: 2, 7: 7, 8: 8, 11: 1, 12: 6, 16: 8, 18: 6, 22: 2, 27: 3, 256: 8}
    assert {block: patches.chunk_images(block) for block in expected} == expected
    assert [ArraySpec(name, 2, 5).chunk_images(22) for name in ("cls", "registers")] == [22, 22]


SOUND = {
    "layout": TokenLayout(1, 2, 2, 3),
    "channels": 1,
    "layers": (0,),
    "token_types": ("cls",),
    "dtype": "float16",
    "block": 1,
    "images": 0,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "int8"}, "dtype must be one of float32, float16, bfloat16, not 'int8'"),
        ({"block": 0}, "block 0 and channels 1 must be positive"),
        ({"channels": 0}, "block 1 and channels 0 must be positive"),
        ({"images": -1}, "images -1 too"),
        ({"layers": ()}, r"layers must be ascending state numbers from 0 on, not \(\)"),
        ({"layers": (1, 1)}, r"layers must be ascending state numbers from 0 on, not \(1, 1\)"),
        ({"layers": (2, 1)}, r"layers must be ascending state numbers from 0 on, not \(2, 1\)"),
        ({"layers": (-1, 1)}, r"layers must be ascending state numbers from 0 on, not \(-1, 1\)"),
        ({"token_types": ("cls", "neck", "head")}, "has the token types .*, not neck, head"),
        ({"token_types": ()}, "at least one token type must be stored"),
        ({"token_types": (), "dtype": "x"}, "dtype must be .*; at least one token type"),
    ],
)
def test_what_cannot_be_stored_is_named(changes, message) -> None:
    assert Geometry(**SOUND).blocks == 0
    with pytest.raises(StoreError, match=rf"This store cannot be made: .*{message}.*\."):
        Geometry(**(SOUND | changes))


def test_places_of_states_and_blocks(kit) -> None:
    geometry = kit.make_example(layers=(1, 4, 6), images=9, block=4).spec.geometry
    assert geometry.blocks == 3
    assert geometry.layer_indices([6, 1]) == [2, 0]
    with pytest.raises(StoreError, match=r"has the states \[1, 4, 6\]; it has no place for \[0, 5\]\."):
        geometry.layer_indices([0, 4, 5])
    with pytest.raises(StoreError, match="blocks 0 to 2; block -1"):
        geometry.block_range(-1)
    assert [geometry.shape(name) for name in ("cls", "registers", "patches")] == [(9, 3, 5), (9, 3, 2, 5), (9, 3, 6, 5)]
    layout = geometry.shard_layout("registers")
    assert (layout.layers, layout.chunks, layout.chunk_images, layout.image_bytes) == (3, 1, 4, 20)
    wide = kit.make_example(dtype="float32", block=16).spec.geometry.shard_layout("patches")
    assert (wide.layers, wide.chunks, wide.chunk_images, wide.image_bytes) == (4, 2, 8, 120)


def test_tables_without_labels_or_names_lack_these_columns() -> None:
    table = ImageTable(("a", "b"), ("0", "1"), class_name=("x", ""))
    assert table.columns == {"image_id": ("a", "b"), "content_sha256": ("0", "1"), "class_name": ("x", "")}
    assert len(table) == 2
    with pytest.raises(StoreError, match=r"must have the same length; found \{'image_id': 2, .*'label': 1\}"):
        ImageTable(("a", "b"), ("0", "1"), label=(1,))


def test_a_default_block_halves_until_its_largest_array_fits() -> None:
    # One layer of one channel of one byte: a block of 256 images takes 256 times its tokens.
    tokens = 2**27 // 256
    assert [default_block(TokenLayout(1, 0, 1, count), 1, 1, 1) for count in (tokens, tokens + 1)] == [256, 128]
    assert [default_block(TokenLayout(1, count, 1, 1), 1, 1, 1) for count in (tokens, tokens + 1)] == [256, 128]
    assert [default_block(TokenLayout(1, 0, 1, tokens), *more) for more in ((2, 1, 1), (1, 4, 1), (1, 1, 8))] == [
        *(128, 64, 32)
    ]
    assert default_block(TokenLayout(1, 0, 1, 2**20), 1024, 64, 4) == 8

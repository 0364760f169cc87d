from __future__ import annotations

import numpy as np
import pytest

from cachetool.errors import StoreError
from cachetool.store import ImageTable, default_block
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

"""Edits are computed together as far as what they give, and what they put in, fits into a bounded memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachetool import Edit
from cachetool.replaying import portions
from cachetool.replaying.run_blocks import value_bytes
from cachetool.store import StoreReader

SOME = st.sampled_from(
    [
        Edit("registers", "zero", 6),
        Edit("patches", "mean", 6),
        Edit("patches:random16", "noise", 6, until_layer=8),
        Edit("registers", "remove", 6),
    ]
)


@given(edits=st.lists(SOME, max_size=12), images=st.integers(1, 64), bound=st.integers(1, 2**24))
def test_portions_hold_all_edits_in_order_and_as_many_at_a_time_as_fit(
    caches: dict[str, Path], edits: list[Edit], images: int, bound: int
) -> None:
    spec = StoreReader(caches["float32"]).spec
    states = images * 69 * 96 * 4

    def fits(some: list[Edit]) -> bool:
        values = images * sum(value_bytes(spec, edit, 12) for edit in some)
        return len(some) * states <= bound and values <= bound

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portions, "HELD_BYTES", bound)
        cut = portions.portions(spec, edits, images, [12], spec.token_types)
    assert [place for part in cut for place in part] == list(range(len(edits)))
    for part in cut:
        mine, following = edits[part.start : part.stop], edits[part.stop : part.stop + 1]
        assert len(mine) == 1 or fits(mine)
        assert not following or not fits([*mine, *following])


def test_many_edits_of_registers_go_together_and_few_of_all_patches(caches: dict[str, Path]) -> None:
    spec = StoreReader(caches["float32"]).spec
    registers, patches = [Edit("registers", "noise", 6)] * 30, [Edit("patches", "mean", 6)] * 30
    # 384 images: 10 MB of a stored state in float32, 66 MB that are put into all patches at 7 states.
    assert portions.portions(spec, registers, 384, [12], spec.token_types) == [range(26), range(26, 30)]
    assert [len(part) for part in portions.portions(spec, patches, 384, [12], spec.token_types)] == [4] * 7 + [2]

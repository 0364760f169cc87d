"""Images are computed again: which, from what, and what they are found to differ in."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cachetool
from cachetool import Edit
from cachetool.errors import MissingDataError, UnknownNameError
from cachetool.store import StoreWriter
from tests.verifying.conftest import Made, alter, damaged, run_of


def test_what_other_batches_gave_is_sound_within_rounding(made: Made) -> None:
    """Some processors multiply the few rows of one image by another kernel than those of eight."""
    run = cachetool.replay(made.cache, Edit("registers", "shuffle", 6, seed=5), batch_size=8)
    report = cachetool.verify(run)
    assert report.sound
    assert min(one.bit_equal for one in report.recomputed) > 0.99


def test_the_sample_follows_from_the_seed_and_can_be_all_or_nothing(made: Made) -> None:
    first, again, other = (cachetool.verify(made.cache, recompute=3, seed=seed) for seed in (5, 5, 6))
    drawn = [[one.image for one in report.recomputed] for report in (first, again, other)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert cachetool.verify(made.cache, recompute=0).recomputed == []
    assert [one.image for one in cachetool.verify(made.cache, recompute=99).recomputed] == list(range(12))
    with pytest.raises(UnknownNameError, match="--recompute -1"):
        cachetool.verify(made.cache, recompute=-1)


@pytest.mark.parametrize(("token_type", "layer"), [("cls", 12), ("registers", 0), ("patches", 7)])
def test_values_with_right_checksums_are_found_by_computing_them_again(made: Made, token_type: str, layer: int) -> None:
    def one_value(values: Any) -> Any:
        values[0, 7] *= np.float16(1.02)
        return values

    alter(made.cache, token_type, layer, 10, one_value)
    report = cachetool.verify(made.cache, recompute=12)
    (bad,) = report.differing
    assert (bad.image, bad.image_id, bad.token_type, bad.layer) == (10, made.ids[10], token_type, layer)
    assert f"{token_type} at state {layer} is not what is stored" in bad.problem
    assert bad.bit_equal < 1.0 < bad.allowed
    assert not report.sound
    assert report.problems == []


def test_a_tampered_run_is_found(made: Made) -> None:
    run = run_of(made, "mean")
    alter(run, "patches", 12, 4, lambda values: values * np.float16(1.01))
    (bad,) = cachetool.verify(run, recompute=12).differing
    assert bad.image == 4


def test_another_file_is_named(made: Made, tmp_path: Path) -> None:
    images = Path(shutil.copytree(made.images, tmp_path / "scenes"))
    StoreWriter(made.cache).update_facts({"dataset": f"imagefolder:{images}"})
    (images / made.ids[3]).write_bytes((images / made.ids[4]).read_bytes())
    (images / made.ids[5]).unlink()
    report = cachetool.verify(made.cache, recompute=12)
    assert [one.image for one in report.differing] == [3, 5]
    assert "is another file than was extracted" in report.differing[0].problem
    assert "has no such image any more" in report.differing[1].problem
    refused = cachetool.verify(damaged(made.cache), repair=True, recompute=0)
    assert not refused.sound
    assert "does not begin with the images" in refused.repairs[0].text
    assert (made.cache / "cls" / "c.0.0.0").exists()


def test_what_is_not_at_hand_is_a_note_unless_it_was_asked_for(made: Made) -> None:
    StoreWriter(made.cache).update_facts({"dataset": "imagefolder:/nowhere/at/all"})
    report = cachetool.verify(made.cache)
    assert report.sound
    assert "no image was computed again" in report.notes[0]
    with pytest.raises(MissingDataError, match="nowhere"):
        cachetool.verify(made.cache, recompute=1)

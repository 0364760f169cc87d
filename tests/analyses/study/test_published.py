from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analyses.evaluation.rows import Row
from analyses.study.published import published_note, published_numbers, published_of

ROW = Row(
    model="dinov2-reg-s", dataset="d", train="t", task="classification", metric="top1", unit="image",
    edit="registers zero", target="registers", replacement="zero", from_layer=1, until_layer=12, sustained=True,
    seeds=1, head="intact", value=0.5, value_low=0.4, value_high=0.6, intact=0.7, difference_pp=-20.0, low_pp=-22.0,
    high_pp=-18.0, p_value=0.001, p_holm=0.002, equivalent_1pp=False, p_equivalence=1.0, mcnemar_p=0.001, units=100,
    images=100, drawn=100, confidence=0.95, edited_tokens=4.0,
    off_distribution=99.0, off_distribution_mahalanobis=30.0, off_distribution_neighbour_percentile=99.0,
    certificate=0.0, calibration="c", calibration_overlap=0.0, training_overlap=0.0,
    oracle=False, by_construction=False, note="",
)  # fmt: skip


def test_numbers_are_those_of_the_paper() -> None:
    found = published_of(ROW, "top1", 12)
    assert [found.value, found.drop_pp] == pytest.approx([0.484, 18.9])
    assert found.source == "arXiv 2604.14433"
    # The drops that the paper states in words, from its own table of values.
    numbers = published_numbers()
    assert numbers["dinov3-s", "classification", "registers zero"].drop_pp == pytest.approx(36.6)
    assert numbers["dinov3-s", "segmentation", "registers zero"].drop_pp == pytest.approx(30.9)
    assert numbers["dinov2-s", "correspondence", "cls zero"].drop_pp == pytest.approx(15.9)


def test_a_drop_alone_has_no_value() -> None:
    found = published_numbers()["dinov2-s", "segmentation", "cls zero"]
    assert np.isnan(found.value)
    assert found.drop_pp == 37
    assert ("dinov2-s", "segmentation", "intact") not in published_numbers()


def test_the_intact_arm_has_a_value_and_no_drop() -> None:
    intact = replace(ROW, edit="intact", target="", replacement="none", until_layer=1)
    found = published_of(intact, "top1", 12)
    assert found.value == pytest.approx(0.673)
    assert np.isnan(found.drop_pp)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "dinov2-reg-b"},
        {"task": "retrieval"},
        {"metric": "top5"},
        {"replacement": "shuffle", "target": "registers:0"},
        {"from_layer": 3},
        {"until_layer": 11},
        {"sustained": False, "until_layer": 1},
        {"head": "refit"},
    ],
)
def test_other_rows_have_no_published_number(change: dict[str, object]) -> None:
    found = published_of(replace(ROW, **change), "top1", 12)  # type: ignore[arg-type]
    assert np.isnan([found.value, found.drop_pp]).all()
    assert found.source == ""


def test_the_note_warns_of_other_data() -> None:
    assert "may differ" in published_note()

"""Findings follow from the table by the stated rule, in every case, and their numbers are those of the table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analyses.report.effects import effects_of, outcome_of
from analyses.report.headline import Finding, findings
from tests.analyses.figures.synthetic import study_frame

HOLDS, BREAKS, OPEN = (-0.5, 0.4), (-9.0, -3.0), (-2.0, 0.5)


def found(**intervals: tuple[float, float]) -> Finding:
    """The finding on registers where the edits of each replacement have these intervals on every task."""
    frame = study_frame()
    wanted = (frame["target"] == "registers") & frame["replacement"].isin(intervals)
    frame = frame[(frame["target"] == "") | wanted].copy()
    for replacement, (low, high) in intervals.items():
        rows = frame["replacement"] == replacement
        frame.loc[rows & (frame["target"] != ""), ["low_pp", "high_pp", "difference_pp"]] = [
            low,
            high,
            (low + high) / 2,
        ]
    (effects,) = effects_of(frame, Path("table.csv"))
    (only,) = findings(effects)
    return only


@pytest.mark.parametrize(
    ("intervals", "verdict", "words"),
    [
        ({"zero": BREAKS, "mean": HOLDS, "shuffle": HOLDS}, "zeros alone", "Zeros break what plausible replacements"),
        ({"zero": BREAKS, "mean": HOLDS, "shuffle": BREAKS}, "both", "Both zeros and plausible"),
        ({"zero": HOLDS, "noise": BREAKS}, "plausible alone", "break what zeros do not"),
        ({"zero": HOLDS, "mean": HOLDS}, "nothing", "Nothing breaks"),
        ({"zero": BREAKS, "mean": OPEN}, "undecided", "not decided"),
        ({"zero": OPEN, "mean": HOLDS}, "undecided", "not decided"),
        ({"zero": BREAKS}, "no plausible arm", "Zeros alone were tried"),
    ],
)
def test_every_case_of_the_rule(intervals: dict[str, tuple[float, float]], verdict: str, words: str) -> None:
    finding = found(**intervals)
    assert finding.verdict == verdict
    assert words in finding.headline
    assert (finding.model, finding.target) == ("tiny-reg", "registers")


def test_the_numbers_are_those_of_the_table() -> None:
    finding = found(zero=BREAKS, mean=HOLDS, shuffle=(-0.9, 0.1))
    assert finding.sentence == (
        "From state 1 to 12, zero: of 4 measurements 4 break; largest change \u22126.0 pp [\u22129.0, \u22123.0] "
        "(classification: top-1 accuracy). Mean, shuffle: of 8 measurements 8 hold; largest change \u22120.4 pp "
        "[\u22120.9, +0.1] (classification: top-1 accuracy under shuffle)."
    )


def test_readouts_of_injected_cls_do_not_count() -> None:
    (effects,) = effects_of(study_frame(), Path("table.csv"))
    registers, cls = findings(effects)
    assert (registers.target, cls.target) == ("registers", "cls")
    assert cls.sentence.startswith("From state 1 to 11, zero: of 4 measurements")


def test_an_interval_at_the_margin() -> None:
    assert outcome_of(-1.0, 1.0) == "holds"
    assert outcome_of(-1.1, 1.0) == "open"
    assert outcome_of(-3, -1.0) == "open"
    assert outcome_of(-3, -1.01) == "breaks"
    assert outcome_of(1.01, 3) == "gains"
    assert outcome_of(float("nan"), float("nan")) == "open"


def test_a_model_without_zeros_has_no_finding() -> None:
    frame = study_frame()
    (effects,) = effects_of(frame[frame["replacement"] != "zero"], Path("table.csv"))
    assert findings(effects) == []
    assert effects_of(pd.DataFrame(frame[frame["target"] == ""]), Path("table.csv")) == []

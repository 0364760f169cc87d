"""What a table says about zeros and plausible replacements, in sentences with numbers, by a stated rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from analyses.report.charts import between, signed
from analyses.report.effects import MARGIN, Effects, outcome_of

PLAUSIBLE = ("mean", "noise", "shuffle")
"""Replacements that keep tokens near natural ones, as in the study of arXiv 2604.14433."""

Verdict = Literal["zeros alone", "both", "plausible alone", "nothing", "undecided", "no plausible arm"]

RULE = (
    "For every model and for registers and [CLS] apart: the edits that begin at the earliest state (of [CLS], those "
    "that end before a readout of [CLS] would be the injected token itself), headline metric of every task, heads "
    "fitted on intact features. A measurement breaks where the whole interval of its change lies below "
    f"\u2212{MARGIN:g} pp, and holds where it lies within \u00b1{MARGIN:g} pp; else it is open. Plausible replacements "
    f"are {', '.join(PLAUSIBLE[:-1])} and {PLAUSIBLE[-1]}."
)
"""How findings are made, for readers."""

_SUBJECTS = {"registers": "the registers", "cls": "[CLS]"}


@dataclass(frozen=True)
class Finding:
    """What one model does when one kind of token is replaced."""

    model: str
    """The model."""
    target: str
    """`registers` or `cls`."""
    verdict: Verdict
    """What follows by the rule."""
    headline: str
    """The verdict in words."""
    sentence: str
    """The numbers behind it."""


def findings(effects: Effects) -> list[Finding]:
    """Findings of one model, registers first; none for tokens that were not set to zero."""
    found = [_finding(effects, target) for target in _SUBJECTS]
    return [finding for finding in found if finding is not None]


def _finding(effects: Effects, target: str) -> Finding | None:
    arms = effects.arms
    arms = arms[(arms["target"] == target) & arms["sustained"] & ~arms["by_construction"] & arms["low_pp"].notna()]
    arms = _comparable(arms[arms["replacement"].isin(("zero", *PLAUSIBLE))])
    zero, plausible = arms[arms["replacement"] == "zero"], arms[arms["replacement"] != "zero"]
    if zero.empty:
        return None
    broken, spared = _with(zero, "breaks"), _with(plausible, "breaks")
    subject = _SUBJECTS[target]
    replacements = list(dict.fromkeys(plausible["replacement"]))
    verdict: Verdict
    if plausible.empty:
        verdict, text = "no plausible arm", f"Zeros alone were tried on {subject}: content and plausibility are mixed"
    elif len(broken) and len(_with(plausible, "holds")) == len(plausible):
        verdict, text = "zeros alone", f"Zeros break what plausible replacements of {subject} leave whole"
    elif len(broken) and len(spared):
        verdict, text = "both", f"Both zeros and plausible replacements of {subject} break something"
    elif len(spared):
        verdict, text = "plausible alone", f"Plausible replacements of {subject} break what zeros do not"
    elif len(_with(arms, "holds")) == len(arms):
        verdict, text = "nothing", f"Nothing breaks whatever replaces {subject}, zeros included"
    else:
        verdict, text = "undecided", f"Whether replacing {subject} breaks anything is not decided"
    state, until = int(arms["from_layer"].iloc[0]), int(arms["until_layer"].iloc[0])
    sentence = f"From state {state} to {until}, zero: {_said(zero)}."
    if len(plausible):
        sentence += f" {', '.join(replacements).capitalize()}: {_said(plausible, name=True)}."
    return Finding(effects.model, target, verdict, text, sentence)


def _comparable(arms: pd.DataFrame) -> pd.DataFrame:
    """Arms of one range of states: the earliest first state, there the most measurements, then the latest end."""
    if arms.empty:
        return arms
    counts = arms.groupby(["from_layer", "until_layer"]).size().reset_index(name="arms")
    best = counts.sort_values(["from_layer", "arms", "until_layer"], ascending=[True, False, False]).iloc[0]
    chosen: pd.DataFrame = arms[
        (arms["from_layer"] == best["from_layer"]) & (arms["until_layer"] == best["until_layer"])
    ]
    return chosen


def _with(arms: pd.DataFrame, outcome: str) -> pd.DataFrame:
    return arms[[outcome_of(low, high) == outcome for low, high in zip(arms["low_pp"], arms["high_pp"], strict=True)]]


def _said(arms: pd.DataFrame, *, name: bool = False) -> str:
    """How many measurements break, hold and are open, and the largest change."""
    largest = arms.iloc[int(arms["difference_pp"].abs().to_numpy().argmax())]
    counts = {outcome: len(_with(arms, outcome)) for outcome in ("breaks", "gains", "holds", "open")}
    words = {"breaks": "break", "gains": "gain", "holds": "hold", "open": "are open"}
    parts = [f"{count} {words[outcome]}" for outcome, count in counts.items() if count]
    of = f" under {largest['replacement']}" if name else ""
    return (
        f"of {len(arms)} measurement{'s' * (len(arms) != 1)} {', '.join(parts)}; largest change "
        f"{signed(largest['difference_pp'])} pp {between(largest['low_pp'], largest['high_pp'])} "
        f"({largest['column']}{of})"
    )

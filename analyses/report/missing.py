"""What a page cannot show because it was not measured, and the command that measures it."""

from __future__ import annotations

from dataclasses import dataclass

from analyses.analysis import Analysis, analyses
from analyses.report.subject import Subject

OF_IMAGES = ("attention-maps", "patch-colours")
"""Analyses of single images: galleries compute what they show of them."""


@dataclass(frozen=True)
class Missing:
    """One thing that is not there."""

    what: str
    """What the page would show."""
    why: str
    """Why it does not."""
    command: str
    """What to run; empty where nothing helps."""


def missing_analyses(subject: Subject) -> list[Missing]:
    """Analyses that could be made on a cache, and were not."""
    found = []
    for name, analysis in analyses().items():
        if name in subject.results or name in OF_IMAGES or obstacle(subject, analysis):
            continue
        train = " --train CACHE" if analysis.needs_train else ""
        found.append(
            Missing(analysis.description, "not measured yet", f"cachetool analyze {name} {subject.path}{train}")
        )
    return found


def obstacle(subject: Subject, analysis: Analysis) -> str:
    """Why an analysis makes no sense on a cache; empty where it may be tried."""
    if analysis.name in ("register-cosine", "nearest-patches") and "registers" not in subject.cache:
        return "the model has no registers"
    if analysis.name == "register-probes" and "label" not in subject.cache.coords:
        return "the images have no classes"
    if analysis.compares and not subject.edited:
        return "the cache has no edited runs"
    return ""


def missing_runs(subject: Subject) -> list[Missing]:
    """Edits, and states of them, that galleries and attention over layers need."""
    replay = f"cachetool replay {subject.path} --ablation none --ablation zero --ablation mean --ablation shuffle"
    tokens = "" if "registers" in subject.cache else " --tokens cls"
    if not subject.edited:
        return [Missing("intact beside every ablation", "the cache has no edited runs", replay + tokens)]
    if not any(run.sizes["layer"] > 1 for run in subject.edited):
        reason = "runs hold their last state alone"
        command = f"{replay}{tokens} --keep all"
        return [Missing("attention and similarity of edited tokens by layer", reason, command)]
    return []

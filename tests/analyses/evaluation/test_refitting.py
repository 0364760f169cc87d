"""Edits that cannot be carried over to training images are left out, each with its reason, and the others are made."""

from __future__ import annotations

from pathlib import Path

import cachetool
from analyses.evaluation.evaluate import evaluate
from cachetool import Edit
from tests.analyses.conftest import Small


class Heard:
    def __init__(self) -> None:
        self.messages: list[str] = []

    def start(self, phase: str, total: int) -> None: ...

    def advance(self, images: int, nbytes: int = 0) -> None: ...

    def message(self, text: str) -> None:
        self.messages.append(text)


def test_a_donor_that_is_no_training_image_does_not_stop_the_others(small: Small, tmp_path: Path) -> None:
    cache = cachetool.extract("tiny-reg", "shapes#val", root=tmp_path, limit=12, workers=0)
    donor = str(cache.image_id.values[3])
    edits = [Edit("registers", "none", 6), Edit("registers", "zero", 6), Edit("registers", f"patch:{donor}", 6)]
    runs = cachetool.replay(cache, edits)
    heard = Heard()
    rows = evaluate(cache, small.train, ["classification"], runs=runs, refit=True, resamples=50, events=heard)
    assert {row.replacement for row in rows if row.head == "refit"} == {"zero"}
    assert {row.replacement for row in rows if row.head == "intact"} == {"none", "zero", f"patch:{donor}"}
    (said,) = (text for text in heard.messages if "not refitted" in text)
    assert "on the training images, " in said
    assert "needs an image that is not among the edited ones" in said

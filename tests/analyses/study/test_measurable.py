from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from analyses.study.labels import FirstImages
from analyses.study.measurable import task_obstacle
from analyses.tasks import parse_task
from cachetool.tokens import TokenLayout

LAYOUT = TokenLayout(cls=1, registers=0, rows=2, columns=2)
FULL: dict[str, Any] = {
    "name": "photos",
    "labels": (0, 1, 0),
    "has_masks": True,
    "pairs": (SimpleNamespace(source=0, target=2),),
}


def images(count: int = 3, **changes: Any) -> Any:
    dataset: Any = SimpleNamespace(**(FULL | changes))
    return FirstImages(dataset, count)


ALL = ("classification", "retrieval", "segmentation", "correspondence", "head")


@pytest.mark.parametrize("name", ALL)
def test_nothing_speaks_against_a_task_where_all_is_annotated(name: str) -> None:
    assert task_obstacle(parse_task(name), images(), images(), LAYOUT) is None


@pytest.mark.parametrize(
    ("evaluated", "without"),
    [
        (images(labels=None), {"classification", "retrieval", "head"}),
        (images(has_masks=False), {"segmentation"}),
        (images(pairs=()), {"correspondence"}),
        (images(count=2), {"correspondence"}),
    ],
)
def test_what_is_not_annotated_cannot_be_measured(evaluated: FirstImages, without: set[str]) -> None:
    reasons = {name: task_obstacle(parse_task(name), evaluated, images(), LAYOUT) for name in ALL}
    assert {name for name, reason in reasons.items() if reason is not None} == without
    assert all("photos has no" in reason for reason in reasons.values() if reason is not None)


def test_heads_need_annotated_training_images() -> None:
    train = images(name="others", labels=None, has_masks=False)
    reasons = {name: task_obstacle(parse_task(name), images(), train, LAYOUT) for name in ALL}
    assert reasons == dict.fromkeys(ALL) | {
        "classification": "others has no class labels",
        "segmentation": "others has no masks",
    }


def test_tokens_that_the_model_lacks_are_named() -> None:
    layout = TokenLayout(cls=0, registers=0, rows=2, columns=2)
    assert task_obstacle(parse_task("retrieval"), images(), None, layout) == "the model has no cls, but patches"
    assert task_obstacle(parse_task("correspondence"), images(), None, layout) is None

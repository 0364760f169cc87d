from __future__ import annotations

import pytest

from analyses.tasks import TASKS, parse_task
from analyses.tasks.classification import Classification
from analyses.tasks.correspondence import Correspondence
from analyses.tasks.retrieval import Retrieval
from analyses.tasks.segmentation import Segmentation
from cachetool.errors import UnknownNameError


def test_each_task_is_built_by_its_name() -> None:
    assert list(TASKS) == ["classification", "retrieval", "segmentation", "correspondence", "head"]
    for name, kind in TASKS.items():
        task = parse_task(name)
        assert type(task) is kind
        assert task.name == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("classification:cls+patches", Classification("cls+patches")),
        ("classification:registers:2@9", Classification("registers:2@9")),
        ("retrieval:patches", Retrieval("patches")),
        ("correspondence:soft-argmax", Correspondence("soft-argmax")),
        ("correspondence:soft-argmax@4", Correspondence("soft-argmax", layer=4)),
        ("correspondence@0", Correspondence(layer=0)),
        ("segmentation@9", Segmentation(layer=9)),
    ],
)
def test_options_stand_behind_a_colon(name: str, expected: object) -> None:
    task = parse_task(name)
    assert task == expected
    assert task.name == name


@pytest.mark.parametrize(
    ("name", "layer"),
    [("classification:cls@3", 3), ("retrieval", None), ("segmentation@9", 9), ("correspondence@0", 0), ("head", None)],
)
def test_the_state_that_is_read(name: str, layer: int | None) -> None:
    assert parse_task(name).layer == layer
    assert parse_task(name).name == name


@pytest.mark.parametrize("name", ["classification:cls", "retrieval:cls", "correspondence:argmax"])
def test_written_defaults_are_the_plain_task(name: str) -> None:
    assert parse_task(name) == parse_task(name.partition(":")[0])
    assert parse_task(name).name == name.partition(":")[0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clasification", "there are classification, retrieval, segmentation, correspondence, head"),
        ("classification:", "unknown readout ''"),
        ("classification:pooled", "unknown readout 'pooled'"),
        ("correspondence:best", "method is one of"),
        ("head:cls", "task head has no options"),
        ("depth:cls", "unknown task 'depth:cls'"),
        ("", "unknown task ''"),
    ],
)
def test_other_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        parse_task(name)

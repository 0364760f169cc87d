"""The tasks by name: classification, retrieval, segmentation, correspondence, and the weights' own head."""

from __future__ import annotations

import re
from typing import cast

from analyses.tasks.base import Task
from analyses.tasks.classification import Classification
from analyses.tasks.correspondence import Correspondence, Method
from analyses.tasks.head import OwnHead
from analyses.tasks.keypoints import Yardstick
from analyses.tasks.retrieval import Retrieval
from analyses.tasks.segmentation import Segmentation
from cachetool.errors import UnknownNameError

TASKS: dict[str, type[Task]] = {
    task.kind: task for task in (Classification, Retrieval, Segmentation, Correspondence, OwnHead)
}
"""Kinds of tasks by name; `parse_task` builds them."""

_NAME = re.compile(r"(?P<kind>[a-z]+)(?::(?P<option>[^@]*))?(?:@(?P<state>\d+))?")


def parse_task(name: str) -> Task:
    """Build a task from its name, with an option behind a colon where it has one.

    `classification:cls+patches` and `retrieval:registers:2@9` choose a readout (`analyses.tasks.readouts.Readout`),
    `correspondence:soft-argmax` how a position follows from similarities. `correspondence:image` and
    `correspondence:soft-argmax:image` measure errors against the size of the image. `segmentation@9` and
    `correspondence:soft-argmax@4` read an earlier state.

    Raises
    ------
    UnknownNameError
        There is no such task or option, or the task has no options.
    """
    found = _NAME.fullmatch(name)
    kind, option, state = (found["kind"], found["option"], found["state"]) if found else (name, None, None)
    layer = None if state is None else int(state)
    match kind:
        case "classification" | "retrieval":
            return TASKS[kind](f"{'cls' if option is None else option}{'' if state is None else f'@{state}'}")  # type: ignore[call-arg]
        case "segmentation" if option is None:
            return Segmentation(layer=layer)
        case "correspondence":
            method, _, size = ("argmax:image" if option == "image" else option or "argmax").partition(":")
            yardstick = cast(Yardstick, size or "box")
            return Correspondence(cast(Method, method), yardstick, layer=layer)
        case "head" if option is None and state is None:
            return OwnHead()
        case _ if kind in TASKS:
            raise UnknownNameError(f"task {kind} has no options, found {name!r}; write `{kind}`")
        case _:
            raise UnknownNameError(f"unknown task {name!r}; there are {', '.join(TASKS)}")

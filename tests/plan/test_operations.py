"""The operations of a plan are those that the replay then makes, whatever is edited, kept and wanted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import cachetool
from cachetool import Edit
from cachetool.places import runs_directory
from cachetool.plan import plan_replay
from cachetool.replaying import replay_edits
from tests.reference.quick import quick

IMAGES = 16
REGISTERS = [Edit("registers", one, 9) for one in ("zero", "mean", "noise")]
PATCHES = [Edit("patches", one, 9) for one in ("zero", "mean", "noise")]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("operations")
    with quick():
        opened = cachetool.extract("tiny-reg", "shapes", root=root, limit=IMAGES, workers=0)
        yield Path(opened.attrs["cachetool_path"])


@pytest.mark.parametrize(
    ("edits", "options"),
    [
        pytest.param(REGISTERS, {}, id="registers"),
        pytest.param(PATCHES, {}, id="all patches, of which nothing is shared"),
        pytest.param([*REGISTERS, *PATCHES, Edit("cls", "remove", 9)], {}, id="some of each"),
        pytest.param([*REGISTERS, Edit("registers", "zero", 6)], {}, id="from two states"),
        pytest.param([REGISTERS[0]] * 4, {}, id="the same edit four times"),
        pytest.param(REGISTERS, {"keep_tokens": ["cls"]}, id="[CLS] alone in the last block"),
        pytest.param([Edit("registers", "zero", 11), Edit("cls", "zero", 11)], {"keep_tokens": ["cls"]}, id="at once"),
        pytest.param([Edit("registers", "zero", 8), Edit("cls", "zero", 8)], {"keep": [10]}, id="up to state 10"),
        pytest.param(REGISTERS, {"keep": [9]}, id="no block"),
        pytest.param([Edit("registers", "zero", 0), Edit("cls", "zero", 0)], {"keep": [3]}, id="from the embedding"),
        pytest.param([Edit("registers", "zero", 0)], {"keep": [0]}, id="the embedding alone"),
        pytest.param(REGISTERS, {"compiled": True}, id="compiled blocks, which share nothing"),
        pytest.param([REGISTERS[0], Edit("registers", "zero", 11)], {"keep": "all"}, id="all states from each first"),
    ],
)
def test_planned_operations_are_those_of_the_replay(
    cache: Path, monkeypatch: pytest.MonkeyPatch, edits: list[Edit], options: dict[str, Any]
) -> None:
    shutil.rmtree(runs_directory(cache), ignore_errors=True)
    planned = plan_replay(cache, edits, **options).costs["floating_point_operations"]
    monkeypatch.setattr("cachetool.replaying.replayer.compile_blocks", lambda backbone, first_block: None)
    monkeypatch.setattr("cachetool.replaying.replayer.certify", lambda *_, **_kw: {"relative_error": 0.0})
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        replay_edits(cache, edits, **options)
    # Edited registers are projected anew: 4 of 69 tokens in one of at least three products of one block.
    assert planned == pytest.approx(counter.get_total_flops(), rel=0.015)

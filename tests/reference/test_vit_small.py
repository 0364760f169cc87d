"""Every state, and a sample of edits, of two ViT-S architectures at 224 pixels, random weights, against hooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from torch import Tensor

import cachetool
from cachetool import Edit
from cachetool.replaying import Run, replay_edits
from tests.reference.expected_values import Intact, changes_of, chosen_tokens, cyclic_donors
from tests.reference.hooked_forward import Tokens, hooked_forward, relative_rms
from tests.reference.plain_models import IMAGENET, random_vit, save_weights, scene_pixels, stored_sequence

DEPTH = 12
IMAGES = 4
TOLERANCE = 1e-5  # as in test_replays
EDITS = (
    Edit("registers", "zero", 1),
    Edit("registers:2", "shuffle", 6, seed=1),
    Edit("patches:random4", "mean", 3, seed=2),
    Edit("patches:outliers:1.1", "norm-matched", 9, sustained=False, seed=4),
    Edit("cls", "noise", 11, seed=5),
    Edit("patches", "interpolate:mean:0.3", 8, until_layer=10),
    Edit("registers:0-1", "patch:val/00002", 4, until_layer=6),
    Edit("registers", "remove", 5),
    Edit("patches:5,9", "remove", 10),
    Edit("patches:random4", "knockout", 7, until_layer=9, seed=6),
)


@dataclass
class Replayed:
    model: Any
    pixels: Tensor
    intact: Intact
    cache: str
    runs: dict[Edit, Run]


@pytest.fixture(
    scope="module",
    params=[
        ("dinov2-reg-s", "vit_small_patch14_reg4_dinov2", 256),
        ("dinov3-s", "vit_small_patch16_dinov3", 196),
    ],
    ids=["dinov2-reg-s", "dinov3-s"],
)
def replayed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    name, architecture, patches = request.param
    root = tmp_path_factory.mktemp(name)
    model, pixels = random_vit(architecture, seed=2), scene_pixels(IMAGES, 224, IMAGENET)
    weights = save_weights(model, root / "weights.safetensors")
    cache = cachetool.extract(name, "shapes", root=root, limit=IMAGES, dtype="float32", weights=weights, workers=0)
    path = str(cache.attrs["cachetool_path"])
    runs = replay_edits(path, EDITS)
    intact = Intact(hooked_forward(model, pixels), Tokens(4, patches), [f"val/{image:05d}" for image in range(IMAGES)])
    return Replayed(model, pixels, intact, path, dict(zip(EDITS, runs, strict=True)))


@pytest.mark.slow
def test_every_state_bit_for_bit(replayed: Replayed) -> None:
    assert np.array_equal(stored_sequence(replayed.cache), replayed.intact.states)


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.slug)
@pytest.mark.slow
def test_edit(replayed: Replayed, edit: Edit) -> None:
    run, intact = replayed.runs[edit], replayed.intact
    chosen = chosen_tokens(intact, edit.target, edit.from_layer, edit.seed)
    assert chosen.any()
    if edit.replacement == "remove":
        expected = hooked_forward(replayed.model, replayed.pixels, cut=(edit.from_layer, chosen[0]))
    elif edit.replacement == "knockout":
        hidden = dict.fromkeys(range(edit.from_layer, (edit.until_layer or DEPTH) + 1), chosen)
        expected = hooked_forward(replayed.model, replayed.pixels, hidden=hidden)
    else:
        donors = cyclic_donors(intact.image_ids, edit.seed, None)
        expected = hooked_forward(replayed.model, replayed.pixels, changes_of(intact, edit.to_json(), donors))
    found = stored_sequence(run.path)[0]
    assert relative_rms(found, expected[DEPTH]) < TOLERANCE
    if edit.replacement != "remove":
        assert relative_rms(expected[DEPTH], intact.states[DEPTH]) > 1e-3
    assert run.certificate["bit_equal"]
    assert np.isfinite(found).all() == (edit.replacement != "remove")

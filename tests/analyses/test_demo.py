from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analyses import demo
from analyses.figures import register_figure
from cachetool.events import Silent

pytestmark = pytest.mark.slow


def test_demo_on_a_few_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, images in (("TRAIN_IMAGES", 60), ("EVALUATED_IMAGES", 20), ("CALIBRATION_IMAGES", 20)):
        monkeypatch.setattr(demo, name, images)
    rows = demo.run_demo(tmp_path, from_layer=1, events=Silent())
    assert [row.name for row in rows] == list(demo.demo_edits(1))
    intact = rows[0]
    assert intact.difference.estimate == 0
    assert intact.cosine == pytest.approx(1, abs=1e-5)
    for row in rows[1:]:
        assert row.difference.images == 20
        assert row.accuracy - intact.accuracy == pytest.approx(row.difference.estimate)
        # The demo calibrates [CLS] and registers alone, so the meter has nothing to say of patches.
        assert np.isfinite(row.mahalanobis_percentile) == ("patches" not in row.name)

    again = demo.run_demo(tmp_path, from_layer=1, events=Silent())
    assert [row.to_json() for row in again] == [row.to_json() for row in rows]

    figure = tmp_path / "figure.png"
    register_figure(
        [row.name for row in rows],
        [row.difference for row in rows],
        [row.cosine for row in rows],
        figure,
        title="test",
    )
    with Image.open(figure) as drawn:
        assert drawn.size[0] > 800

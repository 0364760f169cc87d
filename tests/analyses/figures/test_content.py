from __future__ import annotations

from math import isnan

from analyses.figures.content import Content, content_of, dose_of, dose_towards


def test_content() -> None:
    assert content_of("interpolate:shuffle:0.5", oracle=False) is Content.OWN
    assert content_of("patch:image.jpg", oracle=False) is Content.OTHER
    assert content_of("interpolate:class-mean:0.5", oracle=True) is Content.ORACLE
    assert content_of("norm-matched", oracle=False) is Content.NONE
    assert content_of("add:direction.npy:2", oracle=False) is Content.UNKNOWN


def test_doses() -> None:
    assert dose_of("interpolate:zero:0.25") == ("zero", 0.25)
    assert dose_of("interpolate:patch:a:b.jpg:1e-07") == ("patch:a:b.jpg", 1e-7)
    assert dose_of("zero") is None
    assert dose_of("patch:image:1") is None
    assert dose_towards("interpolate:mean:0.75", "mean") == 0.75
    assert dose_towards("mean", "mean") == 1
    assert isnan(dose_towards("interpolate:mean:0.75", "zero"))
    assert isnan(dose_towards("zero", "mean"))

"""Which runs are shown, and which results belong to a cache."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import cachetool
from analyses.analyze import analyze
from analyses.netcdf import write_netcdf
from analyses.report.missing import missing_analyses, missing_runs
from analyses.report.report import build_report
from analyses.report.subject import check_named_runs, gallery_runs, open_subject
from cachetool import Edit
from cachetool.errors import InvalidEditError, MissingDataError
from cachetool.places import analyses_directory
from tests.analyses.conftest import path_of
from tests.analyses.report.conftest import Reported


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A small cache of its own, without runs."""
    cache = cachetool.extract("tiny-reg", "shapes#val", root=tmp_path, limit=6, layers=[11, 12], workers=0)
    return path_of(cache)


def test_runs_are_chosen_by_rule_or_by_name(reported: Reported) -> None:
    subject = open_subject(reported.cache)
    shown = gallery_runs(subject)
    assert list(shown)[:4] == [f"registers {name}, from 6" for name in ("zero", "mean", "noise", "shuffle")]
    # The zero that kept states is preferred to none other: there is one run of it.
    path = path_of(shown["registers noise, from 6"])
    assert list(gallery_runs(subject, [path])) == ["registers noise, from 6"]
    with pytest.raises(MissingDataError, match=r"expected finished, edited runs of .*found nowhere"):
        check_named_runs([subject], [path, Path("nowhere")])


def test_of_equal_edits_the_run_that_kept_more_is_shown(bare: Path) -> None:
    cachetool.replay(bare, [Edit("registers", "zero", 11)])
    kept = path_of(cachetool.replay(bare, [Edit("registers", "zero", 11)], keep=[11, 12])[0])
    (shown,) = gallery_runs(open_subject(bare)).values()
    assert path_of(shown) == kept


def test_runs_of_a_cache_that_grew_are_shown_on_the_images_that_they_hold(bare: Path, tmp_path: Path) -> None:
    cachetool.replay(bare, [Edit("registers", "zero", 11)])
    cachetool.extract("tiny-reg", "shapes#val", root=tmp_path, limit=40, layers=[11, 12], workers=0)
    gallery = build_report([bare]).caches[0].gallery
    assert gallery is not None
    assert gallery.arms == ("intact", "registers zero, from 11")
    assert [image.name.partition(" ")[0] for image in gallery.images] == [f"val/{index:05}" for index in (0, 2, 3, 5)]


def test_runs_of_one_edit_are_told_apart_by_their_files(bare: Path) -> None:
    runs = [path_of(cachetool.replay(bare, [Edit("registers", "zero", 11)], keep=keep)[0]) for keep in ([12], [11, 12])]
    assert list(gallery_runs(open_subject(bare), runs)) == [
        f"registers zero, from 11 ({path.stem})" for path in sorted(runs)
    ]


def test_results_of_another_cache_are_named_and_not_shown(reported: Reported, bare: Path) -> None:
    folder = analyses_directory(bare)
    write_netcdf(analyze("token-norms", bare), folder / "token-norms.nc")
    assert list(open_subject(bare).results) == ["token-norms"]
    other = cachetool.open(reported.cache).attrs["key"] | {"dtype": "float32"}
    found = analyze("token-norms", bare)
    found.attrs["cache_key"] = str(other)
    write_netcdf(found, folder / "token-norms.nc")
    (folder / "broken.nc").write_bytes(b"no netCDF")
    subject = open_subject(bare)
    assert subject.results == {}
    assert [text.rpartition("/")[2].split(" ")[0] for text in subject.stale] == ["broken.nc", "token-norms.nc"]


def test_what_a_cache_without_runs_needs_is_said(bare: Path) -> None:
    subject = open_subject(bare)
    (runs,) = missing_runs(subject)
    assert runs.command.startswith(f"cachetool replay {bare} --ablation none --ablation zero")
    names = [one.command for one in missing_analyses(subject)]
    assert f"cachetool analyze token-norms {bare}" in names
    # An analysis of runs makes no sense without any.
    assert not any("patch-similarity" in command for command in names)
    report = build_report([bare], images=[5])
    assert [of for of, _ in report.missing][:1] == ["tasks"]
    assert report.caches[0].gallery is not None
    assert report.caches[0].gallery.arms == ("intact",)
    assert report.caches[0].layers == ()


def test_a_cache_without_patches_or_images_is_reported_without_them(bare: Path, tmp_path: Path) -> None:
    slim = path_of(
        cachetool.extract(
            "tiny-reg", "shapes#val", root=tmp_path, name="slim", tokens=["cls"], limit=4, layers=[12], workers=0
        )
    )
    report = build_report([slim])
    assert report.caches[0].gallery is None
    assert "maps of tokens over images" in [one.what for _, one in report.missing]


def test_photographs_that_went_away_are_said_to_be_missing(tmp_path: Path, bare: Path) -> None:
    annotations = cachetool.open_annotations(bare)
    folder = tmp_path / "photos" / "one"
    folder.mkdir(parents=True)
    for index in range(3):
        annotations.dataset.decode(index).save(folder / f"{index}.png")
    cache = path_of(
        cachetool.extract("tiny-reg", f"imagefolder:{tmp_path / 'photos'}", root=tmp_path, layers=[11, 12], workers=0)
    )
    whole = build_report([cache])
    assert whole.caches[0].gallery is not None
    assert all(image.photo is not None for image in whole.caches[0].gallery.images)
    shutil.rmtree(tmp_path / "photos")
    report = build_report([cache])
    assert "photographs" in [one.what for _, one in report.missing]
    assert report.caches[0].gallery is not None
    assert all(image.photo is None for image in report.caches[0].gallery.images)


def test_images_that_are_not_there_are_refused(bare: Path) -> None:
    with pytest.raises(InvalidEditError, match="expected positions from 0 to 5, found 6, 99"):
        build_report([bare], images=[0, 6, 99])
    with pytest.raises(MissingDataError, match="nothing to report"):
        build_report([])

from __future__ import annotations

from pathlib import Path

import pytest

from cachetool.datasets.base import labels_of, listed, relative_id, slug_of


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a.png", "a.png"),
        ("a/b c/d.png", "a/b c/d.png"),
        ("./a//b.png", "a/b.png"),
        ("..a/b..png", "..a/b..png"),
        ("..", None),
        ("a/../b", None),
        ("/a", None),
        ("", None),
        (".", None),
        ("a\\..\\b", None),
        ("a\0b", None),
    ],
)
def test_paths_that_leave_the_root_are_told_apart(text: str, plain: str | None) -> None:
    assert relative_id(text) == plain


def test_slugs_are_readable_short_and_fit_for_a_path() -> None:
    slug = slug_of("imagefolder", Path("/data/Été & hiver/photos (2)"))
    assert slug.startswith("photos-2-")
    assert len(slug_of("imagefolder", Path("/" + "x" * 200))) < 80
    assert slug_of("pairs", Path("/")) == slug_of("pairs", Path("/")) != ""
    assert not slug_of("pairs", Path("/data/...")).startswith(".")


def test_slugs_differ_by_kind_place_and_split() -> None:
    place = Path("/data/x")
    slugs = [
        slug_of("segmentation", place),
        slug_of("segmentation", place, "val"),
        slug_of("segmentation", place, "train"),
        slug_of("pairs", place),
        slug_of("pairs", Path("/other/x")),
    ]
    assert len(set(slugs)) == len(slugs)
    assert slug_of("imagefolder", Path("/data/x/val")).startswith("x-val-")


def test_long_lists_of_offenders_say_how_many_follow() -> None:
    assert listed([]) == ""
    assert listed(["a", "b"]) == "\n  a\n  b"
    assert listed(range(25)).splitlines()[-2:] == ["  19", "  and 5 more"]


def test_categories_become_sorted_labels() -> None:
    assert labels_of(["dog", "ant", "dog"]) == ((1, 0, 1), ("ant", "dog"))

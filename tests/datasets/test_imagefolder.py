from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cachetool.datasets import Dataset, open_dataset
from cachetool.errors import DatasetError, ImageError, MissingDataError, UnknownNameError

WriteImage = Callable[..., Path]


def folder(path: Path, **options: str) -> Dataset:
    return open_dataset(f"imagefolder:{path}", **options)  # type: ignore[arg-type]


def test_class_directories_give_labels_in_sorted_order(tmp_path: Path, write_image: WriteImage) -> None:
    for name in ("zebra/b.png", "zebra/a.jpg", "ant/deep/er/x.JPEG", "ant-eater/y.bmp"):
        write_image(tmp_path / name)
    (tmp_path / "ant" / "notes.txt").write_text("not an image")
    (tmp_path / "README.md").write_text("nor this")
    dataset = folder(tmp_path)
    # '-' sorts before '/', so the order by path is not the order by class
    assert dataset.image_ids == ("ant-eater/y.bmp", "ant/deep/er/x.JPEG", "zebra/a.jpg", "zebra/b.png")
    assert dataset.class_names == ("ant", "ant-eater", "zebra")
    assert dataset.labels == (1, 0, 2, 2)
    assert (dataset.kind, dataset.default_crop, dataset.has_masks, dataset.pairs) == (
        "classification",
        "center",
        False,
        (),
    )
    assert len(dataset) == 4


def test_labels_equal_torchvision(shared: Path) -> None:
    from torchvision.datasets import ImageFolder

    dataset = open_dataset(f"imagefolder:{shared / 'data' / 'caltech101_subset'}#val")
    expected = ImageFolder(str(shared / "data" / "caltech101_subset" / "val"))
    root = shared / "data" / "caltech101_subset" / "val"
    labels = {Path(path).relative_to(root).as_posix(): label for path, label in expected.samples}
    assert dataset.labels is not None
    assert dict(zip(dataset.image_ids, dataset.labels, strict=True)) == labels
    assert list(dataset.class_names or ()) == expected.classes
    for index in (0, 400, 836):
        image, _ = expected[[path for path, _ in expected.samples].index(str(root / dataset.image_ids[index]))]
        assert np.array_equal(np.asarray(dataset.decode(index)), np.asarray(image))


def test_flat_folder_has_no_labels(tmp_path: Path, write_image: WriteImage) -> None:
    write_image(tmp_path / "b.png")
    write_image(tmp_path / "a.png")
    dataset = folder(tmp_path)
    assert dataset.image_ids == ("a.png", "b.png")
    assert dataset.labels is None
    assert dataset.class_names is None


def test_hidden_files_are_passed_over(tmp_path: Path, write_image: WriteImage) -> None:
    write_image(tmp_path / "cat" / "x.png")
    (tmp_path / "cat" / "._x.png").write_bytes(b"resource fork")
    write_image(tmp_path / ".thumbnails" / "x.png")
    assert folder(tmp_path).image_ids == ("cat/x.png",)


def test_a_split_is_a_folder_and_has_one_slug_however_it_is_named(tmp_path: Path, write_image: WriteImage) -> None:
    for split in ("train", "val"):
        write_image(tmp_path / "My photos!" / split / "cat" / "x.png")
    place = tmp_path / "My photos!"
    split = open_dataset(f"imagefolder:{place}#val")
    assert split.image_ids == ("cat/x.png",)
    assert split.slug == folder(place / "val").slug
    assert split.slug.startswith("My-photos-val-")
    assert split.slug != folder(place / "train").slug
    with pytest.raises(DatasetError, match=r"holds splits, not classes: train, val.*#train or .*#val"):
        folder(place)
    with pytest.raises(UnknownNameError, match=r"no folder 'test' in .*; it has train, val"):
        open_dataset(f"imagefolder:{place}#test")


def test_slugs_of_equal_names_in_two_places_differ(tmp_path: Path, write_image: WriteImage) -> None:
    for place in ("a", "b"):
        write_image(tmp_path / place / "photos" / "x.png")
    slugs = {folder(tmp_path / place / "photos").slug for place in ("a", "b")}
    assert len(slugs) == 2
    assert all(slug.startswith("photos-") and "/" not in slug for slug in slugs)


def test_relative_and_absolute_names_have_one_slug(
    tmp_path: Path, write_image: WriteImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "photos" / "x.png")
    monkeypatch.chdir(tmp_path)
    assert open_dataset("imagefolder:photos/").slug == folder(tmp_path / "photos").slug


def test_a_hash_sign_in_a_path_is_not_a_split(tmp_path: Path, write_image: WriteImage) -> None:
    write_image(tmp_path / "take #2" / "x.png")
    assert folder(tmp_path / "take #2").image_ids == ("x.png",)


def test_symbolic_links_are_followed_but_not_in_circles(tmp_path: Path, write_image: WriteImage) -> None:
    write_image(tmp_path / "elsewhere" / "x.png")
    (tmp_path / "set" / "cat").mkdir(parents=True)
    (tmp_path / "set" / "cat" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "elsewhere")
    assert folder(tmp_path / "set").image_ids == ("cat/linked/x.png", "dog/x.png")
    (tmp_path / "set" / "cat" / "again").symlink_to(tmp_path / "set")
    with pytest.raises(DatasetError, match="symbolic links lead in a circle"):
        folder(tmp_path / "set")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing to see")
    with pytest.raises(DatasetError, match=r"holds no images: expected files ending in .*\.jpeg, \.jpg"):
        folder(tmp_path)


def test_a_missing_folder_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"there is no folder .*nowhere") as caught:
        folder(tmp_path / "nowhere")
    assert len(str(caught.value).splitlines()) == 2


def test_every_image_beside_the_classes_is_named(tmp_path: Path, write_image: WriteImage) -> None:
    for name in ("cat/x.png", "loose-1.png", "loose-2.png"):
        write_image(tmp_path / name)
    with pytest.raises(DatasetError, match=r"(?s)images of no class.*loose-1\.png.*loose-2\.png"):
        folder(tmp_path)


def test_every_empty_class_is_named(tmp_path: Path, write_image: WriteImage) -> None:
    write_image(tmp_path / "cat" / "x.png")
    for name in ("dog", "emu"):
        (tmp_path / name).mkdir()
    with pytest.raises(DatasetError, match=r"(?s)without images.*dog\n.*emu"):
        folder(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not allow such names")
def test_names_that_are_no_unicode_are_refused(tmp_path: Path, write_image: WriteImage) -> None:
    path = write_image(tmp_path / "x.png")
    path.rename(tmp_path / os.fsdecode(b"caf\xe9.png"))
    with pytest.raises(DatasetError, match=r"not valid UTF-8"):
        folder(tmp_path)


def test_unicode_names_are_kept(tmp_path: Path, write_image: WriteImage) -> None:
    write_image(tmp_path / "Käfer" / "日本.png")
    assert folder(tmp_path).image_ids == ("Käfer/日本.png",)


def test_an_undecodable_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0nothing")
    dataset = folder(tmp_path)
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        dataset.decode(0)


def test_orientation_is_ignored_or_applied_and_part_of_the_key(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (20, 10)).save(tmp_path / "x.jpg", exif=exif)
    plain, turned = folder(tmp_path), folder(tmp_path, exif="applied")
    assert (plain.decode(0).size, plain.size(0)) == ((20, 10), (20, 10))
    assert (turned.decode(0).size, turned.size(0)) == ((10, 20), (10, 20))
    assert plain.decoding != turned.decoding
    with pytest.raises(DatasetError, match="stored pixels"):
        open_dataset("shapes", exif="applied")


def test_asking_for_a_mask_is_an_error(tmp_path: Path, write_image: WriteImage) -> None:
    write_image(tmp_path / "x.png")
    with pytest.raises(DatasetError, match="has no masks"):
        folder(tmp_path).mask(0)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refuse(folder: str) -> object:
        if folder.endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)  # a test may run as a user who may read everything
    with pytest.raises(DatasetError, match=r"cannot list the folder .*locked: Permission denied"):
        folder(tmp_path)

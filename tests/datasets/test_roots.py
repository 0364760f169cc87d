from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cachetool.datasets import catalogue, open_dataset
from cachetool.datasets.roots import find_root
from cachetool.errors import DatasetError, MissingDataError

if TYPE_CHECKING:
    from pathlib import Path

KNOWN = ("ade20k", "voc2012")


@pytest.fixture(autouse=True)
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own TOML file, not written yet; no variable set."""
    monkeypatch.delenv("CACHETOOL_DATA", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "cachetool").mkdir(parents=True)
    return tmp_path / "config" / "cachetool" / "data.toml"


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_a_folder_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHETOOL_DATA", str(tmp_path / "sets"))
    place = make(tmp_path / "sets" / "ade20k")
    assert find_root("ade20k", KNOWN) == (place, (str(place),))
    assert find_root("voc2012", KNOWN)[0] is None


def test_a_toml_file_named_by_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absolute, relative = make(tmp_path / "far" / "away"), make(tmp_path / "near")
    (tmp_path / "sets.toml").write_text(f'ade20k = "{absolute}"\nvoc2012 = "near"\n')
    monkeypatch.setenv("CACHETOOL_DATA", str(tmp_path / "sets.toml"))
    assert find_root("ade20k", KNOWN)[0] == absolute
    assert find_root("voc2012", KNOWN)[0] == relative


def test_the_users_configuration_comes_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configuration: Path
) -> None:
    configured = make(tmp_path / "configured")
    configuration.write_text(f'ade20k = "{configured}"\n')
    assert find_root("ade20k", KNOWN)[0] == configured
    monkeypatch.setenv("CACHETOOL_DATA", str(tmp_path / "sets"))
    assert find_root("ade20k", KNOWN)[0] == configured
    place = make(tmp_path / "sets" / "ade20k")
    assert find_root("ade20k", KNOWN)[0] == place


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configuration: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    place = make(tmp_path / "ade")
    configuration.write_text('ade20k = "~/ade"\n')
    assert find_root("ade20k", KNOWN)[0] == place


def test_a_missing_set_says_what_where_and_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configuration: Path
) -> None:
    monkeypatch.setenv("CACHETOOL_DATA", str(tmp_path / "sets"))
    configuration.write_text('voc2012 = "gone"\n')
    with pytest.raises(MissingDataError) as caught:
        open_dataset("voc2012")
    what, where, how = str(caught.value).splitlines()
    assert what.startswith("voc2012 is not on this machine; its folder holds VOCdevkit/VOC2012")
    assert str(tmp_path / "sets" / "voc2012") in where
    assert str(configuration.parent / "gone") in where
    assert "Set CACHETOOL_DATA" in how
    assert str(configuration) in how


def test_nothing_set_is_said(configuration: Path) -> None:
    with pytest.raises(MissingDataError, match=r"CACHETOOL_DATA \(not set\); .*data\.toml \(no such file\)"):
        open_dataset("ade20k")
    configuration.write_text("")
    with pytest.raises(MissingDataError, match=r"data\.toml \(does not name ade20k\)"):
        open_dataset("ade20k")


def test_every_faulty_entry_is_named(configuration: Path) -> None:
    configuration.write_text('imagenet_val = "x"\nade20k = 7\n[shapes]\nroot = "y"\n')
    with pytest.raises(DatasetError) as caught:
        catalogue()
    for expected in (
        "imagenet_val: no such data set",
        "ade20k: expected a folder in quotes",
        "shapes: no such data set",
    ):
        assert expected in str(caught.value)


def test_what_is_no_toml_is_refused(configuration: Path) -> None:
    configuration.write_text("ade20k: /data\n")
    with pytest.raises(DatasetError, match="cannot be read as TOML"):
        open_dataset("ade20k")

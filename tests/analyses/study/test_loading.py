from __future__ import annotations

from pathlib import Path

import pytest

from analyses.study.definition import CalibrationData, EditGroup, Study, StudyData, StudyModel
from analyses.study.loading import builtin_studies, load_study, parse_study, read_document, study_file
from cachetool.errors import MissingDataError, UnknownNameError

SMALL = """
name = "small"
[calibration]
data = "shapes#calibration"
limit = 40
[[models]]
name = "tiny-reg"
[[data]]
evaluate = "shapes#val"
train = "shapes#train"
tasks = ["classification"]
group_by = "(va)l"
calibration = { data = "shapes#train" }
[[edits]]
name = "registers replaced"
targets = ["registers"]
replacements = ["zero"]
"""


def write(folder: Path, text: str, name: str = "study.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def problems_of(folder: Path, text: str) -> list[str]:
    """The lines of the error, without the first (the file) and the last (what to do)."""
    with pytest.raises(UnknownNameError) as raised:
        load_study(str(write(folder, text)))
    return [line.strip() for line in str(raised.value).split("\n")[1:-1]]


def test_a_file_becomes_dataclasses_with_defaults(tmp_path: Path) -> None:
    assert load_study(str(write(tmp_path, SMALL))) == Study(
        name="small",
        calibration=CalibrationData("shapes#calibration", 40),
        models=(StudyModel("tiny-reg"),),
        data=(
            StudyData(
                "shapes#val",
                ("classification",),
                "shapes#train",
                group_by="(va)l",
                calibration=CalibrationData("shapes#train"),
            ),
        ),
        edits=(EditGroup("registers replaced", ("registers",), ("zero",), (1,)),),
        resamples=10_000,
        confidence=0.95,
        seed=0,
    )


def test_every_wrong_key_and_type_is_named(tmp_path: Path) -> None:
    text = SMALL.replace('name = "small"', 'resampels = 3\nconfidence = "high"\nseed = true')
    text = text.replace('name = "tiny-reg"', 'name = "tiny-reg"\nimage_size = 64.5')
    text = text.replace('targets = ["registers"]', 'targets = "registers"\nfrom_layers = [1, "two"]')
    found = problems_of(tmp_path, text)
    assert [line.split(":")[0] for line in found] == [
        "resampels",
        "name",
        "models[0].image_size",
        "edits[0].targets",
        "edits[0].from_layers",
        "confidence",
        "seed",
    ]
    assert found[0] == "resampels: there is no such key; did you mean resamples?"
    assert found[2] == "models[0].image_size: expected a whole number, found 64.5"
    assert found[4] == "edits[0].from_layers: expected a list of a whole number or text, found [1, 'two']"


def test_every_contradiction_is_named(tmp_path: Path) -> None:
    text = SMALL.replace('name = "small"', 'name = "a/b"\nconfidence = 2\nresamples = 0')
    text = text.replace('"shapes#train"\ntasks = ["classification"]', '"shapes#train"\ntasks = ["clasification"]')
    text = text.replace('"(va)l"', '"(v)(a)"')
    text += 'seeds = 0\nfrom_layers = "all"\nonce = true\nuntil_layers = [-2]\n[[edits]]\nname = "registers replaced"\n'
    text += 'targets = ["register"]\nreplacements = ["zeros", "none"]\n'
    found = "\n".join(problems_of(tmp_path, text))
    for words in (
        "name: expected letters",
        "confidence: expected a number between 0 and 1, found 2.0",
        "resamples: expected at least 1, found 0",
        "data[0].tasks: unknown task 'clasification'",
        "data[0].group_by: expected one group in parentheses, found 2",
        "edits[0] (registers replaced).seeds: expected at least 1, found 0",
        "edits[0] (registers replaced).from_layers: expected a list of states or 'sweep', found 'all'",
        "an edit of one state (once) has no until_layers",
        "edits[1] (registers replaced).targets: there is no target 'register'",
        "edits[1] (registers replaced).replacements: there is no replacement 'zeros'",
        "'none' is the intact arm",
        "edits: 'registers replaced' is there 2 times",
    ):
        assert words in found, words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('train = "shapes#train"\n', ""), "data[0].train: missing; classification need"),
        (('["classification"]', "[]"), "data[0].tasks: expected at least one entry, found none"),
        (('["classification"]', '["retrieval:cls@3"]'), "reads an earlier state"),
        (('"(va)l"', '"("'), "data[0].group_by: '(' is no regular expression"),
    ],
)
def test_one_contradiction(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    (found,) = problems_of(tmp_path, SMALL.replace(*change))
    assert words in found


def test_lists_of_an_extending_study_replace_those_of_the_other(tmp_path: Path) -> None:
    write(tmp_path, SMALL, "base.toml")
    path = write(tmp_path, 'extends = "base.toml"\nname = "other"\nseed = 7\n[[models]]\nname = "dinov2-s"\n')
    study, base = load_study(str(path)), load_study(str(tmp_path / "base.toml"))
    assert (study.name, study.seed, study.models) == ("other", 7, (StudyModel("dinov2-s"),))
    assert (study.data, study.edits, study.calibration) == (base.data, base.edits, base.calibration)


def test_studies_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    write(tmp_path, 'extends = "b.toml"', "a.toml")
    write(tmp_path, 'extends = "a.toml"', "b.toml")
    with pytest.raises(UnknownNameError, match="extend each other"):
        read_document(tmp_path / "a.toml")


def test_built_in_studies_are_valid() -> None:
    assert set(builtin_studies()) == {"zero-ablation", "zero-ablation-dino"}
    small, dino = load_study("zero-ablation"), load_study("zero-ablation-dino")
    assert small.edits == dino.edits
    assert [model.name for model in dino.models] == ["dinov2-s", "dinov2-reg-s", "dinov3-s"]


def test_wrong_names_and_files(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"no study 'zero'.*zero-ablation, zero-ablation-dino"):
        study_file("zero")
    with pytest.raises(MissingDataError, match=r"no file absent\.toml"):
        study_file("absent.toml")
    with pytest.raises(UnknownNameError, match="is no TOML"):
        load_study(str(write(tmp_path, "name = ")))
    with pytest.raises(UnknownNameError, match="found 3"):
        load_study(str(write(tmp_path, "extends = 3")))
    with pytest.raises(UnknownNameError, match=r"models: expected a list of a table, found \{"):
        parse_study({"models": {"name": "x"}}, "here")


def test_a_circle_is_found_however_its_paths_are_written(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "a.toml").write_text('extends = "../d/a.toml"')
    with pytest.raises(UnknownNameError, match="these studies extend each other"):
        load_study(str(folder / "a.toml"))

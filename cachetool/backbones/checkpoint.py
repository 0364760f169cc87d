"""`hf:REPO` and `hf:DIR`: a checkpoint as transformers saves it, in a repository of the Hugging Face hub or a folder.

A checkpoint is data: its configuration and tensors are read, none of its code is run, and transformers is not needed.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from huggingface_hub import constants

from cachetool.backbones.hub import NotFetchedError, NotPublishedError, cached_file, download_file
from cachetool.errors import MissingDataError, UnknownNameError, WeightsError
from cachetool.files import expanded, read_regular

if TYPE_CHECKING:
    from collections.abc import Sequence

Colours = tuple[float, float, float]
"""A number for red, green and blue."""

PREFIX = "hf:"
"""What stands before the name of a repository or the path of a folder."""

CONFIGURATION, PREPROCESSOR = "config.json", "preprocessor_config.json"
"""What the model is, and how its images are prepared."""

INDEX = "model.safetensors.index.json"
"""Names the files of weights that are kept in several."""

WEIGHTS = ("model.safetensors", INDEX, "pytorch_model.bin")
"""Files that weights are kept in, the preferred one first."""

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
"""What a preprocessor configuration says of colours, and what holds where it says nothing: the values of ImageNet."""

_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Checkpoint:
    """Where the files of a checkpoint are."""

    name: str
    """The name as the user gave it, with its prefix."""
    folder: Path | None
    """The folder, for a checkpoint on this machine."""
    repository: str
    """The repository of the hub; empty for a folder."""
    revision: str | None
    """Branch, tag or commit of the repository, where one was named."""

    @property
    def source(self) -> str:
        """What to call the place in messages and provenance."""
        return f"folder {self.folder}" if self.folder is not None else f"Hugging Face {self.name.removeprefix(PREFIX)}"

    def configuration(self) -> dict[str, Any]:
        """The model's configuration. Raises `MissingDataError`, `WeightsError` for one that cannot be read."""
        return _read_json(self._require((CONFIGURATION,)))

    def colours(self) -> tuple[Colours, Colours]:
        """Mean and standard deviation that inputs are normalised with, ImageNet's unless the checkpoint says.

        Raises as `configuration` does.
        """
        file = self._find((PREPROCESSOR,))
        entries = {} if file is None else _read_json(file)
        found = {name: entries.get(name, own) for name, own in IMAGENET.items()}
        wrong = [
            name
            for name, values in found.items()
            if not isinstance(values, list) or len(values) != 3
            or not all(type(value) in (int, float) and 0 <= value < math.inf for value in values)
            or (name == "image_std" and 0 in values)
        ]  # fmt: skip
        if wrong:
            raise WeightsError(f"{file}: {' and '.join(wrong)} should be 3 numbers, {found}; fetch it again")
        mean, std = (cast("Colours", tuple(map(float, values))) for values in found.values())
        return mean, std

    def weights(self) -> tuple[Path, ...]:
        """The files that hold the weights. Raises `MissingDataError`, `WeightsError` for a list that is not one."""
        file = self._require(WEIGHTS)
        if file.name != INDEX:
            return (file,)
        return tuple(self._require((shard,)) for shard in _shards(file))

    def is_here(self) -> bool:
        """Whether its files are on this machine."""
        weights = self._cached(WEIGHTS)
        if weights is None or self._cached((CONFIGURATION,)) is None:
            return False
        shards = _shards(weights) if weights.name == INDEX else ()
        return all(self._cached((shard,)) is not None for shard in shards)

    def _cached(self, files: Sequence[str]) -> Path | None:
        if self.folder is None:
            return cached_file(self.repository, self.revision, files)
        return next((self.folder / file for file in files if (self.folder / file).is_file()), None)

    def _require(self, files: Sequence[str]) -> Path:
        file = self._find(files)
        if file is None:
            raise MissingDataError(
                f"{self.name}: {self.source} has no {' or '.join(files)}; expected a checkpoint as transformers saves "
                f"it: {CONFIGURATION}, {WEIGHTS[0]} and, best, {PREPROCESSOR}"
            )
        return file

    def _find(self, files: Sequence[str]) -> Path | None:
        """The first of some files that is there; None where the checkpoint has none of them."""
        cached = self._cached(files)
        if cached is not None or self.folder is not None:
            return cached
        try:
            return download_file(self.repository, self.revision, files, "cachetool")
        except NotPublishedError:
            return None
        except NotFetchedError as error:
            raise MissingDataError(
                f"{self.name} is not on this machine ({error})\n"
                f"looked for {' or '.join(files)} of hub repository {self.repository} in {constants.HF_HUB_CACHE}\n"
                f"connect once; or copy the repository into a folder and name {PREFIX}FOLDER; or name a model that "
                "`cachetool models` lists and give the file of its weights with `--weights FILE`"
            ) from error


def open_checkpoint(name: str) -> Checkpoint:
    """The checkpoint of `hf:DIR`, where there is such a folder, or of `hf:REPO` or `hf:REPO@REVISION`.

    Raises `UnknownNameError` for what names neither, `MissingDataError` for a path where no folder is.
    """
    place = name.removeprefix(PREFIX)
    folder = expanded(place)
    if place.strip() and folder.is_dir():
        return Checkpoint(name, folder.absolute(), "", None)
    if place.startswith(("/", "./", "../", "~")):
        raise MissingDataError(f"{name}: there is no folder {folder.absolute()}")
    repository, at, revision = place.partition("@")
    if not _REPOSITORY.fullmatch(repository) or (at and not revision):
        raise UnknownNameError(
            f"{name} names neither a folder nor a repository of the hub; write hf:OWNER/NAME, hf:OWNER/NAME@REVISION "
            "or hf:FOLDER"
        )
    return Checkpoint(name, None, repository, revision or None)


def absolute_model(name: str) -> str:
    """Return the name of a model so that it means the same from any current folder."""
    place = name.removeprefix(PREFIX)
    if not name.startswith(PREFIX) or not place.strip() or not expanded(place).is_dir():
        return name
    return f"{PREFIX}{expanded(place).absolute()}"


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_regular(file))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{file} cannot be read as JSON: {error}; fetch it again") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{file} was expected to hold a JSON object, found a {type(content).__name__}")
    return content


def _shards(index: Path) -> tuple[str, ...]:
    """Names of the files that an index lists, which have to lie beside it."""
    listed = _read_json(index).get("weight_map")
    names = sorted({str(name) for name in listed.values()}) if isinstance(listed, dict) else []
    strange = [name for name in names if PurePosixPath(name).name != name or not name.endswith(".safetensors")]
    if strange or not names:
        raise WeightsError(
            f"{index} was expected to list .safetensors files beside it under `weight_map`, found "
            f"{', '.join(map(repr, strange)) or 'none'}"
        )
    return tuple(names)

"""What a replacement is: the one class to derive from in order to add another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from cachetool.errors import InvalidEditError

if TYPE_CHECKING:
    from cachetool.edits.edit import Edit
    from cachetool.edits.selection import Selection
    from cachetool.edits.sources import Sources

Kind = Literal["none", "values", "add", "attention"]
"""How a replay applies a replacement: not at all, by putting values in, by adding values, or by an attention mask."""

Need = Literal["calibration", "labels", "stored-states"]
"""What a replacement draws on: a calibration, the labels of the images, stored tokens of the edited states."""


class Replacement(ABC):
    """What is put in the place of the selected tokens.

    One instance serves one edit of one cache. To add a replacement, put a module with a subclass into
    `cachetool.edits.replacements`, or name the subclass in the entry-point group `cachetool.replacements`.
    """

    name: ClassVar[str]
    """The name users type."""
    description: ClassVar[str]
    """One line for lists of replacements."""
    usage: ClassVar[str]
    """The grammar of the whole specification, such as `interpolate:OTHER:DOSE`; the name where it takes no argument."""
    kind: Kind = "values"
    """How it is applied."""
    oracle: bool = False
    """Whether it injects the label: marked as oracle wherever it is shown."""
    needs: frozenset[Need] = frozenset()
    """What it draws on."""
    random: bool = False
    """Whether the seed changes what it puts in."""
    varies: bool = False
    """Whether `fresh_per_layer` changes what it draws."""
    argument: str | None = None
    """What follows the name in the canonical specification, or None."""

    @classmethod
    def parse(cls, argument: str | None) -> Self:
        """Build the replacement from what follows its name. Raises `InvalidEditError` where that does not fit."""
        if argument is not None:
            raise InvalidEditError(f"{cls.name!r} takes no argument, but {argument!r} was given; write {cls.usage!r}")
        return cls()

    def __str__(self) -> str:
        """The canonical specification, which parses back to an equal replacement."""
        return self.name if self.argument is None else f"{self.name}:{self.argument}"

    def check(self, sources: Sources, edit: Edit) -> None:  # noqa: B027 - most replacements have nothing more to check
        """Refuse, before any work is done, what cannot be carried out on these sources (`InvalidEditError`)."""

    def check_early(self, image_ids: Sequence[str]) -> None:  # noqa: B027 - most replacements need nothing besides
        """Refuse what is known to be missing before there is a cache: files, or donors among the images to be edited.

        Raises `MissingDataError` or `InvalidEditError`.
        """

    def key_parts(self, sources: Sources, edit: Edit) -> dict[str, str]:
        """What the result depends on beyond the edit and its cache, by name: digests of files, calibrations, caches."""
        return {}

    def donors(self, sources: Sources, edit: Edit, layer: int) -> NDArray[np.int64] | None:
        """Index of each image's donor at one state, int64 (image,), -1 for none; None where no image donates."""
        return None

    @abstractmethod
    def values(
        self, sources: Sources, edit: Edit, layer: int, images: NDArray[np.int64], selection: Selection
    ) -> NDArray[np.float32]:
        """The values for the selected tokens at state `layer`, float32 (pair, channel).

        `images` (pair,) holds the images' indices in the cache; `selection.image` those within the block at hand.
        """


class AttentionReplacement(Replacement):
    """A replacement that changes who may attend to whom, and puts in no values."""

    kind = "attention"

    def values(
        self, sources: Sources, edit: Edit, layer: int, images: NDArray[np.int64], selection: Selection
    ) -> NDArray[np.float32]:
        """Refused: there are no values to put in."""
        raise TypeError(f"{self.name!r} puts in no values: apply it as an attention mask")

"""An edit: target x replacement x states x seed, as plain data with one canonical form."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from cachetool.edits.base import Replacement
from cachetool.edits.registry import parse_replacement
from cachetool.edits.selection import Selection, select, select_nothing
from cachetool.edits.sources import Sources
from cachetool.edits.targets import RandomPatches, Target
from cachetool.errors import InvalidEditError
from cachetool.tokens import TokenLayout


@dataclass(frozen=True)
class Edit:
    """What is changed on the way through the network.

    Target and replacement are kept in canonical form, and what has no effect is dropped, so that edits which do the
    same compare equal.

    Raises `UnknownNameError` for an unknown target or replacement, `InvalidEditError` for parameters that do not fit.
    """

    target: str
    """Which tokens: see `cachetool.edits.targets`."""
    replacement: str
    """What is put in: see `cachetool.edits.registry.replacements()`."""
    from_layer: int
    """State k: the first edited state, and the one on which the tokens are chosen."""
    sustained: bool = True
    """Edit every state from k on (the protocol of the paper); False edits state k alone."""
    until_layer: int | None = None
    """The last edited state of a sustained edit; None for the last state of the model."""
    seed: int = 0
    """Seed of all draws."""
    fresh_per_layer: bool = False
    """Draw donors (and norm-matched directions) anew at each state; by default they are the same at all states."""

    def __post_init__(self) -> None:
        """Check what can be checked without a model, and bring the edit into canonical form."""
        target, replacement = self.parsed_target(), self.build()
        if self.from_layer < 0:
            raise InvalidEditError(f"the first edited state must be 0 or later, not {self.from_layer}")
        if self.until_layer is not None:
            if not self.sustained:
                raise InvalidEditError(
                    f"an edit of state {self.from_layer} alone cannot last until state {self.until_layer}; "
                    "drop one of the two"
                )
            if self.until_layer < self.from_layer:
                raise InvalidEditError(
                    f"the last edited state ({self.until_layer}) lies before the first ({self.from_layer}); "
                    f"choose {self.from_layer} or later"
                )
        if replacement.name == "remove" and (self.until_layer is not None or not self.sustained):
            limit = "in state " + str(self.from_layer) if not self.sustained else f"until state {self.until_layer}"
            raise InvalidEditError(
                f"'remove' cannot end ({limit} only): tokens that left the sequence have no state to come back with; "
                "use 'knockout', which leaves them in place"
            )
        object.__setattr__(self, "target", str(target))
        object.__setattr__(self, "replacement", str(replacement))
        object.__setattr__(self, "fresh_per_layer", self.fresh_per_layer and replacement.varies)

    def parsed_target(self) -> Target:
        """The target as a structure."""
        return Target.parse(self.target)

    def build(self) -> Replacement:
        """A new replacement object for one replay: it remembers the donors it has drawn."""
        return parse_replacement(self.replacement)

    @property
    def random(self) -> bool:
        """Whether the seed has an effect: if not, repetitions with other seeds give the same run."""
        return self.build().random or isinstance(self.parsed_target().choice, RandomPatches)

    def edited_layers(self, depth: int) -> range:
        """The edited states of a model with `depth` blocks; for `knockout` see `masked_blocks`.

        Raises `InvalidEditError` where a state lies beyond the model's last.
        """
        named = {"first": self.from_layer, "last": self.until_layer}
        beyond = [f"the {which} edited state is {layer}" for which, layer in named.items() if (layer or 0) > depth]
        if beyond:
            raise InvalidEditError(f"{' and '.join(beyond)}, but the model has states 0 to {depth}; choose among these")
        if not self.sustained:
            return range(self.from_layer, self.from_layer + 1)
        return range(self.from_layer, (depth if self.until_layer is None else self.until_layer) + 1)

    def masked_blocks(self, depth: int) -> range:
        """The blocks in which `remove` and `knockout` mask attention: block j works on state j.

        These are the blocks of the edited states: k up to and including `until_layer` (block k alone with
        `sustained=False`), as far as there are blocks: no block works on the last state. Empty for other replacements.

        Raises `InvalidEditError` for a `knockout` from the last state, which nothing attends to.
        """
        replacement = self.build()
        layers = self.edited_layers(depth)
        if replacement.kind != "attention":
            return range(0)
        if replacement.name == "knockout" and self.from_layer == depth:
            raise InvalidEditError(
                f"'knockout' from state {depth} has no effect: no block attends to the last state; "
                f"choose state {depth - 1} or earlier"
            )
        return range(layers.start, min(layers.stop, depth))

    def needed_states(self, depth: int, *, own_calibration: bool = False) -> dict[str, tuple[int, ...]]:
        """States that the cache must hold besides the whole state k, by token type.

        `own_calibration` says that the edit's calibration, if it needs one, is made from the same cache: then the
        calibrated states must be there too.
        """
        needs = self.build().needs
        layers = tuple(self.edited_layers(depth))
        if "stored-states" in needs or (own_calibration and "calibration" in needs):
            return {self.parsed_target().token_type: layers}
        return {}

    def select(
        self, layout: TokenLayout, state: NDArray[np.float32], image_ids: Sequence[str], readable: NDArray[np.bool_]
    ) -> Selection:
        """Choose the tokens on the intact state k of a block, float32 (image, token, channel); none for `none`.

        `readable` says whether each of the block's images could be decoded, bool (image,).
        """
        target = self.parsed_target()
        if self.build().kind == "none":
            target.check(layout)
            return select_nothing(target, len(image_ids))
        return select(target, layout, state, image_ids, readable, self.seed)

    def check(self, sources: Sources) -> None:
        """Refuse, before any work is done, what cannot be carried out on these sources.

        Raises `InvalidEditError`: states or tokens the model lacks; labels, donors or calibrated states missing.
        """
        self.check_without_calibration(sources)
        replacement, layers = self.build(), self.edited_layers(sources.depth)
        if "calibration" in replacement.needs:
            sources.calibration.check_covers(self.parsed_target().token_type, layers)
        replacement.check(sources, self)

    def check_without_calibration(self, sources: Sources) -> None:
        """What `check` refuses whatever the calibration holds. Raises `InvalidEditError`."""
        replacement = self.build()
        self.edited_layers(sources.depth)
        self.masked_blocks(sources.depth)
        self.parsed_target().check(sources.layout)
        if "labels" in replacement.needs and sources.images.label is None:
            raise InvalidEditError(
                f"{replacement.name!r} needs the class of each image, but the data set has no labels; "
                "choose a replacement without classes, or a classification data set"
            )

    def to_json(self) -> dict[str, str | int | bool | None]:
        """The edit as canonical JSON values; `Edit(**edit.to_json())` gives an equal edit."""
        return asdict(self)

    @property
    def slug(self) -> str:
        """A readable, path-safe name, different for different edits: registers-0-2.zero.from1.seed0."""
        states = f"from{self.from_layer}"
        if not self.sustained:
            states = f"only{self.from_layer}"
        elif self.until_layer is not None:
            states += f"to{self.until_layer}"
        typed = f"{self.target}.{self.replacement}".replace(":", "-")
        safe = re.sub(r"[^A-Za-z0-9.,_+-]+", "-", typed)
        shortened = safe[:_LONGEST]
        parts = [shortened, states, f"seed{self.seed}"]
        if self.fresh_per_layer:
            parts.append("fresh")
        if shortened != typed:
            canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
            parts.append(sha256(canonical.encode()).hexdigest()[:8])
        return ".".join(parts)


_LONGEST = 120
"""Characters of target and replacement that a slug spells out: file names end at 255 bytes."""

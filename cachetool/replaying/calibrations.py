"""Which calibration a replay draws on: the one it was given, or the cache's own, made once and kept beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cachetool import places
from cachetool.calibrating import Summarize, calibrate, summarize_here
from cachetool.edits import Calibration, Edit
from cachetool.edits.meter import Meter
from cachetool.errors import InvalidEditError, StoreError
from cachetool.events import Events
from cachetool.images import image_digest
from cachetool.objects import AnyPlace, Place
from cachetool.store import StateDigests, StoreReader, key_digest

OWN = "(the cache itself)"
"""Stands for the path of the cache's own calibration."""


class Calibrations:
    """The calibrations of one replay: edits of the same tokens and states share one."""

    def __init__(
        self,
        reader: StoreReader,
        given: AnyPlace | None,
        events: Events,
        summarize: Summarize = summarize_here,
    ) -> None:
        """Open the given calibration; `summarize` is what reads the cache for its own.

        Raises `KeyMismatchError` where the given one is of another model or transform.
        """
        self._summarize = summarize
        self._reader = reader
        self._events = events
        self._own: dict[tuple[str, tuple[int, ...]], Calibration] = {}
        self._meters: dict[int, Meter] = {}
        self._given = None if given is None else Calibration.read(given)
        self._given_path = None if given is None else str(given)
        if self._given is not None:
            self._given.check_matches(reader.spec.key)

    def maker(self, edit: Edit) -> Callable[[], Calibration]:
        """What gives the calibration for one edit when it is asked for."""
        return lambda: self.for_edit(edit)

    def for_edit(self, edit: Edit) -> Calibration:
        """The given calibration; else the cache's own, of the edit's token type at the states that it needs."""
        if self._given is not None:
            return self._given
        token_type = edit.parsed_target().token_type
        layers = self._needed_layers(edit, token_type)
        if (token_type, layers) not in self._own:
            self._own[token_type, layers] = self._make_own(token_type, layers)
        return self._own[token_type, layers]

    def at_hand(self, edit: Edit) -> Calibration | None:
        """The calibration for one edit, where it need not be made first."""
        if self._given is not None:
            return self._given
        token_type = edit.parsed_target().token_type
        path = self._own_path(token_type, self._needed_layers(edit, token_type))
        return Calibration.read(path) if (path / "zarr.json").is_file() else None

    def meter(self, edit: Edit) -> Meter:
        """The meter of the edit's calibration: edits that share a calibration share what is fitted to it."""
        calibration = self.for_edit(edit)
        return self._meters.setdefault(id(calibration), Meter(calibration))

    def describe(self, edit: Edit, *, refuse_overlap: bool) -> dict[str, Any]:
        """Facts for the run: digest, size and how many of the evaluated images were calibrated on.

        Raises
        ------
        InvalidEditError
            `refuse_overlap` and at least one evaluated image is a calibration image; names them.
        """
        calibration = self.for_edit(edit)
        images = self._reader.spec.images
        overlap = calibration.overlap(images.image_id, images.sha256)
        if overlap and refuse_overlap:
            shown = ", ".join(overlap[:5]) + (f" and {len(overlap) - 5} more" if len(overlap) > 5 else "")
            raise InvalidEditError(
                f"{len(overlap)} of {len(images)} evaluated images are calibration images too: {shown}; "
                "calibrate on other images and name the result with --calibration, or drop --no-overlap"
            )
        return {
            "path": self._given_path or OWN,
            "content_sha256": None if self._given is None else calibration.content_sha256,
            "digest": calibration.digest,
            "images": len(calibration.image_ids),
            "overlap": len(overlap),
        }

    def _needed_layers(self, edit: Edit, token_type: str) -> tuple[int, ...]:
        """All stored states of [CLS] and registers, which are few; of patches, the bulk, only what the edit needs."""
        covered = self._reader.coverage(token_type)
        if token_type != "patches":
            return covered
        if "calibration" in edit.build().needs:
            return tuple(edit.edited_layers(self._reader.spec.layers[-1]))
        return (edit.from_layer,)

    def _own_path(self, token_type: str, layers: Sequence[int]) -> Place:
        """Where the cache's own calibration lies: beside it, under a name that says what it was made from."""
        spec = self._reader.spec
        values = StateDigests(self._reader.path).of({token_type: layers})
        digest = key_digest({"cache": spec.key, "images": image_digest(spec.images), "values": values})
        return places.calibrations_directory(self._reader.path) / f"own-{token_type}-{digest[:12]}.zarr"

    def _make_own(self, token_type: str, layers: Sequence[int]) -> Calibration:
        path = self._own_path(token_type, layers)
        if not (path / "zarr.json").is_file():
            made = calibrate(
                self._reader,
                layers=layers,
                token_types=(token_type,),
                events=self._events,
                summarize=self._summarize,
            )
            try:
                made.write(path)
            except StoreError:
                # Another replay of the same cache may have made the same artefact meanwhile: either serves both.
                if not (path / "zarr.json").is_file():
                    raise
        return Calibration.read(path)

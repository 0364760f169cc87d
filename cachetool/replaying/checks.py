"""What can be refused before anything is computed: stores, token types, states and edits that do not fit a cache."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cachetool.edits import Edit
from cachetool.errors import IncompleteError, InvalidEditError
from cachetool.objects import AnyPlace
from cachetool.replaying.reading import states_read
from cachetool.store import StoreReader, StoreSpec


def require_cache(spec: StoreSpec, path: AnyPlace) -> None:
    """Raise `InvalidEditError` for a store that is no cache: edited tokens are neither replayed nor natural."""
    if spec.kind != "cache":
        raise InvalidEditError(f"{path} is a {spec.kind}, not a cache; name the cache that it was made from")


def kept_types(spec: StoreSpec, wanted: Iterable[str] | None) -> tuple[str, ...]:
    """Token types to store, in storage order. Raises `InvalidEditError` naming those that the cache does not hold."""
    if wanted is None:
        return spec.token_types
    chosen = set(wanted)
    absent = sorted(chosen - set(spec.token_types))
    if absent or not chosen:
        raise InvalidEditError(
            f"--keep-tokens {', '.join(absent) or '(none)'}: the cache holds {', '.join(spec.token_types)}; "
            "choose among these"
        )
    return tuple(name for name in spec.token_types if name in chosen)


def draws(edit: Edit) -> bool:
    """Whether a calibration plays a part: as what is drawn from, or as what distances are measured against."""
    return edit.build().kind in ("values", "add")


def check_states(
    reader: StoreReader, edits: Sequence[Edit], keep: Sequence[int], depth: int, *, own_calibration: bool
) -> None:
    """Refuse all at once what the cache cannot serve."""
    if not edits:
        raise InvalidEditError("no edit was named; name at least one replacement with --ablation")
    for edit in edits:
        edit.edited_layers(depth)
        edit.parsed_target().check(reader.spec.layout)
    beyond = [layer for layer in keep if not 0 <= layer <= depth]
    early = [
        f"{layer} (edited from state {edit.from_layer} on)"
        for edit in dict.fromkeys(edits)
        for layer in keep
        if layer < edit.from_layer
    ]
    if beyond:
        raise InvalidEditError(f"--keep {', '.join(map(str, beyond))}: the cache has states 0 to {depth}")
    if early:
        raise InvalidEditError(f"--keep {', '.join(early)}: a run holds states from its first edited one on")
    missing: dict[str, set[int]] = {}
    held = {name: set(reader.coverage(name)) for name in reader.spec.token_types}  # once: it looks at every block
    for edit in edits:
        for name, wanted in states_read(edit, reader.spec, own_calibration=own_calibration).items():
            missing.setdefault(name, set()).update(wanted - held.get(name, set()))
    lacking = [f"  {name}: states {', '.join(map(str, sorted(layers)))}" for name, layers in missing.items() if layers]
    if lacking:
        listing = "\n".join(lacking)
        raise IncompleteError(
            f"{reader.path} does not hold all states that these edits need:\n{listing}\n"
            "extract them into the same cache with --layers and --tokens (sustained edits that draw on the cache need "
            "every edited state), or edit one state with --once"
        )

"""The cache of a request: made where there is none, compared and extended where there is one."""

from __future__ import annotations

from dataclasses import replace

from cachetool.errors import KeyMismatchError, StoreError
from cachetool.extraction.request import Request
from cachetool.places import model_slug
from cachetool.store import StoreReader, StoreSpec, StoreWriter, create, differences, extend, lock
from cachetool.tokens import TOKEN_TYPES


def open_for_writing(request: Request) -> tuple[Request, StoreWriter]:
    """Create the cache, or open the one that is there and make room for the request.

    Returns
    -------
    The request, with the states and tokens that the cache covers added where images are added, since a state counts as
    covered only where all images have it; and the writer.

    Raises
    ------
    KeyMismatchError
        Another key lies at the same place; names the parts that differ.
    StoreError
        The cache cannot be written, or another extraction holds it.
    """
    if not (request.path / "zarr.json").is_file():
        try:
            create(request.path, request.spec)
        except StoreError:
            # Another part of the same job may have made it in the meantime; then this part goes on with that one.
            if not (request.path / "zarr.json").is_file():
                raise
    check_same(request, StoreReader(request.path).spec)
    if _lacks_room(request):
        try:
            with lock(request.path, "extract"):
                _make_room(request)
        except StoreError:
            # Another part of the same job may be making, or have made, the same room.
            if _lacks_room(request):
                raise
    return _widen(request, StoreReader(request.path)), StoreWriter(request.path)


def _lacks_room(request: Request) -> bool:
    there = StoreReader(request.path).spec
    return len(request.spec.images) > len(there.images) or not set(request.token_types) <= set(there.token_types)


def _make_room(request: Request) -> None:
    """Add images and token types; what is to be stored of new images is promised first, so that a kill forgets none."""
    reader = StoreReader(request.path)
    there = reader.spec
    grows = len(request.spec.images) > len(there.images)
    if grows:
        covered = {name: reader.coverage(name) for name in there.token_types}
        promised = _widen(request, reader)
        layers = {*promised.layers, *(layer for found in covered.values() for layer in found)}
        types = {*promised.token_types, *(name for name, found in covered.items() if found)}
        StoreWriter(request.path).update_facts(
            {"promised": {"layers": sorted(layers), "token_types": [name for name in TOKEN_TYPES if name in types]}}
        )
    new_types = tuple(name for name in request.token_types if name not in there.token_types)
    extend(request.path, images=request.spec.images if grows else None, token_types=new_types)


def _widen(request: Request, reader: StoreReader) -> Request:
    """The request with the states and tokens that a growth has promised for all images."""
    promised = reader.spec.facts.get("promised", {"layers": [], "token_types": []})
    types = {*request.token_types, *promised["token_types"]}
    return replace(
        request,
        layers=tuple(sorted({*request.layers, *promised["layers"]})),
        token_types=tuple(name for name in TOKEN_TYPES if name in types),
    )


def check_same(request: Request, there: StoreSpec) -> None:
    """Raise `KeyMismatchError` unless the cache at the place has the request's key and begins with the same images."""
    wanted = request.spec
    different = differences(wanted.key, there.key)
    ours = zip(wanted.images.image_id, wanted.images.sha256, strict=True)
    theirs = zip(there.images.image_id, there.images.sha256, strict=True)
    changed = [image[0] for image, stored in zip(ours, theirs, strict=False) if image != stored]
    if changed:
        shown = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
        different.append(f"images: {len(changed)} have another id or content than those on disk ({shown})")
    labels = zip(wanted.images.label or (), there.images.label or (), strict=False)
    relabelled = sum(here != stored for here, stored in labels)
    if relabelled or (wanted.images.label is None) != (there.images.label is None):
        different.append(f"labels: {relabelled or 'all'} images have another label than on disk")
    if different:
        listing = "\n".join(f"  {line}" for line in different)
        raise KeyMismatchError(
            f"{request.path} holds another cache; what differs (here = asked for now, there = on disk):\n{listing}\n"
            f"keep both with --name {model_slug(request.model)}-2, "
            f"or remove that one with `cachetool remove {request.path}`"
        )

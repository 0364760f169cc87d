"""What a page shows of one cache: charts of its analyses, example images, and where all of it comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import xarray as xr

from analyses.analysis import analyses
from analyses.examples.photos import spread_images
from analyses.report.by_layer import charts_of
from analyses.report.charts import Chart
from analyses.report.galleries import CutoutRow, PairView, TokenGallery, cutout_gallery, pair_gallery, token_gallery
from analyses.report.missing import Missing, missing_analyses, missing_runs
from analyses.report.provenance import CertifiedRun, analysis_facts, cache_facts, certified_runs
from analyses.report.subject import Subject, gallery_runs
from cachetool.errors import CachetoolError, InvalidEditError
from cachetool.objects import Place

ORDER = (
    "token-norms", "effective-rank", "attention-flow", "attention-divergence", "register-probes", "register-cosine",
    "patch-similarity", "cka-between-layers", "cka-between-runs",
)  # fmt: skip
"""Analyses in the order in which they are read; others follow."""

IN_GALLERIES = ("nearest-patches", "attention-maps", "patch-colours")
"""Analyses that are shown as pictures."""

_Shown = TypeVar("_Shown")


@dataclass(frozen=True)
class Group:
    """The charts of one analysis."""

    name: str
    """Name of the analysis."""
    description: str
    """What it measures."""
    charts: tuple[Chart, ...]
    """Its charts."""


@dataclass(frozen=True)
class CacheSection:
    """One cache."""

    name: str
    """Model and data set."""
    key: str
    """Name within the page."""
    layers: tuple[int, ...]
    """Layers of the slider; empty where nothing depends on it."""
    groups: tuple[Group, ...]
    """Charts by analysis."""
    gallery: TokenGallery | None
    """Images with maps of their tokens."""
    cutouts: Sequence[CutoutRow]
    """Patches nearest to registers."""
    pairs: Sequence[PairView]
    """Carried keypoints."""
    facts: Mapping[str, str]
    """Provenance."""
    runs: Sequence[CertifiedRun]
    """Runs with certificates."""
    analyses: Sequence[Mapping[str, str]]
    """Provenance of analyses."""


def cache_section(
    subject: Subject,
    key: str,
    *,
    images: int | Sequence[int],
    runs: Sequence[Place],
    weights: Path | None,
    device: str | None,
) -> tuple[CacheSection, list[Missing]]:
    """The section of one cache, and what it lacks.

    Raises
    ------
    InvalidEditError
        An image is asked for that the cache lacks; names all of them.
    """
    missing = [*missing_runs(subject), *missing_analyses(subject)]
    missing += [Missing("the result of an analysis", reason, "") for reason in subject.stale]
    if subject.annotations is None:
        missing.append(Missing("photographs", subject.without_images, ""))
    shown = gallery_runs(subject, runs)
    positions = example_images(subject, shown, images)

    def attempt(what: str, make: Callable[[], _Shown]) -> _Shown | None:
        try:
            return make()
        except InvalidEditError:
            raise
        except CachetoolError as error:
            missing.append(Missing(what, str(error), ""))
            return None

    gallery = None
    if positions:
        gallery = attempt(
            "maps of tokens over images",
            lambda: token_gallery(subject, shown, positions, weights=weights, device=device),
        )
    cutouts = attempt("patches nearest to registers", lambda: cutout_gallery(subject)) or []
    pairs = attempt("carried keypoints", lambda: pair_gallery(subject, shown)) or []
    if gallery is not None and gallery.without_attention:
        block = int(subject.cache.attrs["depth"]) - 1
        missing.append(_without_attention(subject, gallery.without_attention, block))
    groups = _groups(subject, key)
    layers = {layer for group in groups for chart in group.charts for layer in chart.layers}
    layers |= {row.layer for row in cutouts}
    section = CacheSection(
        name=subject.name,
        key=key,
        layers=tuple(sorted(layers)) if len(layers) > 1 else (),
        groups=groups,
        gallery=gallery,
        cutouts=cutouts,
        pairs=pairs,
        facts=cache_facts(subject),
        runs=certified_runs(subject),
        analyses=analysis_facts(subject),
    )
    return section, missing


def example_images(subject: Subject, runs: Mapping[str, xr.Dataset], images: int | Sequence[int]) -> list[int]:
    """Positions of example images: those given, or so many, evenly spread over what the cache and these runs hold."""
    if not isinstance(images, int):
        return list(images)
    # A cache may have grown since it was replayed.
    held = min(store.sizes["image"] for store in (subject.cache, *runs.values()))
    return spread_images(subject.cache.readable.values[:held], images)


def _groups(subject: Subject, key: str) -> tuple[Group, ...]:
    known = analyses()
    names = sorted(subject.results, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    groups = []
    for name in names:
        if name in IN_GALLERIES:
            continue
        charts = charts_of(subject.results[name], f"{key}-{name}")
        description = known[name].description if name in known else "an analysis that is not installed here"
        if charts:
            groups.append(Group(name, description, tuple(charts)))
    return tuple(groups)


def _without_attention(subject: Subject, arms: Sequence[str], block: int) -> Missing:
    tokens = "registers" if "registers" in subject.cache else "cls"
    return Missing(
        f"attention of [CLS] in block {block} under {', '.join(arms)}",
        f"it needs state {block} with all tokens, and the weights",
        f"cachetool replay {subject.path} --tokens {tokens} --ablation zero --keep {block},{block + 1}",
    )

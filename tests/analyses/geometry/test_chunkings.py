"""Analyses give the same for any chunking of images, uneven ones too, as `--limit` and edited stores bring them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from analyses.geometry.effective_rank import effective_rank
from analyses.geometry.linear_cka import cka_between_layers, cka_between_runs
from analyses.geometry.nearest_patches import nearest_patches
from analyses.geometry.patch_colours import patch_colours
from analyses.geometry.patch_similarity import patch_similarity
from analyses.geometry.register_cosine import register_cosine
from analyses.geometry.token_norms import token_norms
from analyses.geometry.tokens_of import at_layers
from tests.analyses.geometry.stand_in import DEPTH, store, tokens

pytestmark = pytest.mark.slow

IMAGES, LAYERS = 9, (1, 3, DEPTH)

ONE, OTHER = (tokens(IMAGES, len(LAYERS), seed) for seed in (0, 4))


@st.composite
def chunkings(draw: st.DrawFn) -> tuple[int, ...]:
    """Sizes of chunks that sum to the number of images."""
    edges = sorted(draw(st.sets(st.integers(1, IMAGES - 1))))
    return tuple(last - first for first, last in zip([0, *edges], [*edges, IMAGES], strict=True))


def title(analysis: Any) -> str:
    """Name of an analysis with its options, the same in every process of a test run."""
    options = getattr(analysis, "keywords", {})
    return " ".join([getattr(analysis, "func", analysis).__name__, *(f"{name}={options[name]}" for name in options)])


def normed(values: dict[str, Any], chunks: tuple[int, ...]) -> xr.Dataset:
    """A store whose last state has a norm to go through, cut into these chunks."""
    found = store(values, layers=LAYERS)
    return found.assign_attrs(norm={"type": "layer_norm", "epsilon": 1e-6}).chunk(image=chunks)


@cache
def of_whole(analysis: Callable[..., xr.Dataset], *stores: int) -> xr.Dataset:
    """What an analysis gives of stores in one chunk each."""
    return analysis(*(normed((ONE, OTHER)[store], (IMAGES,)) for store in stores)).compute()


@pytest.mark.parametrize(
    "analysis",
    [
        partial(token_norms, maps=True),
        register_cosine,
        effective_rank,
        partial(effective_rank, tokens="registers", centre=False),
        cka_between_layers,
        partial(cka_between_layers, tokens="patches"),
        nearest_patches,
    ],
    ids=title,
)
@settings(max_examples=8, deadline=None)
@given(chunks=chunkings())
def test_analyses_of_one_store(analysis: Callable[[xr.Dataset], xr.Dataset], chunks: tuple[int, ...]) -> None:
    xr.testing.assert_allclose(analysis(normed(ONE, chunks)).compute(), of_whole(analysis, 0), rtol=1e-5)


@pytest.mark.parametrize("analysis", [partial(patch_similarity, maps=True), cka_between_runs, patch_colours], ids=title)
@settings(max_examples=8, deadline=None)
@given(chunks=chunkings(), others=chunkings())
def test_analyses_of_two_stores(
    analysis: Callable[[xr.Dataset, xr.Dataset], xr.Dataset], chunks: tuple[int, ...], others: tuple[int, ...]
) -> None:
    found = analysis(normed(OTHER, chunks), normed(ONE, others)).compute()
    xr.testing.assert_allclose(found, of_whole(analysis, 1, 0), rtol=1e-5, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(chunks=chunkings(), layers=st.permutations(LAYERS), count=st.integers(1, len(LAYERS)))
def test_states_are_chosen_as_xarray_does(chunks: tuple[int, ...], layers: list[int], count: int) -> None:
    opened, chosen = normed(ONE, chunks), layers[:count]
    found = at_layers(opened, chosen)
    xr.testing.assert_identical(found.compute(), opened.sel(layer=chosen).compute())
    xr.testing.assert_identical(at_layers(opened.cls, chosen).compute(), opened.cls.sel(layer=chosen).compute())

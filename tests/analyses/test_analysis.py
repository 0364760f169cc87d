"""What is an option of an analysis, and which texts are refused."""

from __future__ import annotations

import pytest
import xarray as xr

from analyses.analysis import Analysis, analyses, find_analysis
from analyses.analyze import analyze
from cachetool.errors import InvalidEditError, UnknownNameError


def measured(
    store: xr.Dataset, train: xr.Dataset, *, count: int = 3, share: float = 0.5, flag: bool = False,
    layers: tuple[int, ...] = (1,), word: str = "cls", free: int | None = None, device: str | None = None,
) -> xr.Dataset:  # fmt: skip
    """One line for lists.

    More.
    """
    return store


def compared(run: xr.Dataset, intact: xr.Dataset) -> xr.Dataset:
    """Compare."""
    return run - intact


def test_signature_tells_what_it_takes() -> None:
    analysis = Analysis("measured", measured)
    assert analysis.description == "One line for lists."
    assert analysis.needs_train
    assert not analysis.compares
    assert list(analysis.options) == ["count", "share", "flag", "layers", "word", "free"]
    assert Analysis("compared", compared).compares
    assert Analysis("compared", compared).options == {}


def test_options_are_read_by_the_type_of_their_default() -> None:
    given = {"count": "7", "share": "1", "flag": "true", "layers": "[3, 9]", "word": "registers:2", "free": "4"}
    parsed = Analysis("measured", measured).parse_options(given)
    assert parsed == {"count": 7, "share": 1, "flag": True, "layers": [3, 9], "word": "registers:2", "free": 4}


def test_all_wrong_options_are_named() -> None:
    analysis = Analysis("measured", measured)
    with pytest.raises(UnknownNameError, match=r"no option depth, rank; its options are: count=3, share=0.5"):
        analysis.parse_options({"depth": "1", "rank": "2", "count": "3"})
    with pytest.raises(InvalidEditError, match=r"count=true \(as 3\), share=much \(as 0.5\), flag=1 \(as False\)"):
        analysis.parse_options({"count": "true", "share": "much", "flag": "1", "layers": "[1]"})


def unbounded(store: xr.Dataset, *, most: float = float("inf"), share: float = 0.5) -> xr.Dataset:
    """An option whose default is infinite."""
    return store


def test_numbers_that_are_not_finite_are_named() -> None:
    analysis = Analysis("measured", measured)
    with pytest.raises(InvalidEditError, match=r"finite numbers, found share=nan, layers=\[1, inf\], free=-inf$"):
        analysis.parse_options({"share": "nan", "layers": "[1, inf]", "free": "-inf", "count": "2", "word": "inf."})
    allows = Analysis("unbounded", unbounded)
    assert allows.parse_options({"most": "inf", "share": "1e300"}) == {"most": float("inf"), "share": 1e300}
    with pytest.raises(InvalidEditError, match=r"finite numbers, found most=nan, share=inf$"):
        allows.parse_options({"most": "nan", "share": "inf"})
    with pytest.raises(InvalidEditError, match="measured: expected finite numbers, found share=nan"):
        analyze(analysis, "nowhere", options={"share": float("nan")})


def test_announced_analyses_are_found_and_described() -> None:
    found = analyses()
    assert list(found) == sorted(found)
    assert all(analysis.description.endswith(".") for analysis in found.values())
    name = next(iter(found))
    assert find_analysis(name).function is found[name].function
    with pytest.raises(UnknownNameError, match=f"unknown analysis 'nonsense'; there are .*{name}"):
        find_analysis("nonsense")

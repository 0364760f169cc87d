from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import cachetool
from analyses.evaluation.arms import MeasuredRun
from analyses.evaluation.comparison import Statistics, compare_runs
from analyses.evaluation.describing import dataset_label
from analyses.evaluation.rows import Row
from analyses.inference import Design
from analyses.tasks.correspondence import Correspondence
from analyses.tasks.retrieval import Retrieval
from cachetool.errors import DatasetError
from tests.analyses.conftest import Small

STATISTICS = Statistics(resamples=2000)


@pytest.fixture(scope="module")
def measured(small: Small) -> dict[str, list[MeasuredRun]]:
    annotations = cachetool.open_annotations(small.cache)
    runs = small.opened()
    return {
        task.name: [MeasuredRun(run, task.measure(run, None, annotations)) for run in runs]
        for task in (Retrieval(), Correspondence())
    }


@pytest.fixture(scope="module")
def rows(small: Small, measured: dict[str, list[MeasuredRun]]) -> list[Row]:
    return compare_runs(Retrieval(), measured["retrieval"], cache=cachetool.open(small.cache), statistics=STATISTICS)


def row(rows: list[Row], edit: str, metric: str = "recall@1") -> Row:
    (found,) = (row for row in rows if row.edit == edit and row.metric == metric)
    return found


def test_one_row_per_arm_and_metric(rows: list[Row]) -> None:
    edits = ["intact", "registers mean", "registers shuffle", "[CLS] zero", "[CLS] zero, to 11"]
    assert [(row.metric, row.edit) for row in rows] == [
        (metric.name, edit) for metric in Retrieval().metrics for edit in edits
    ]
    assert {(row.model, row.dataset, row.train) for row in rows} == {("tiny-reg", "shapes#val", "")}
    assert {row.seeds for row in rows if row.edit == "registers shuffle"} == {2}


def test_values_are_means_over_units_and_seeds(rows: list[Row], measured: dict[str, list[MeasuredRun]]) -> None:
    hits = [run.outcomes.hit1.values for run in measured["retrieval"]]
    shuffled = row(rows, "registers shuffle")
    assert shuffled.value == pytest.approx((hits[2].mean() + hits[3].mean()) / 2)
    assert shuffled.intact == pytest.approx(hits[0].mean())
    assert shuffled.difference_pp == pytest.approx(100 * (shuffled.value - shuffled.intact))
    assert shuffled.units == shuffled.images == len(hits[0])
    early = row(rows, "[CLS] zero, to 11")
    assert early.value == pytest.approx(hits[5].mean())
    assert early.low_pp < early.difference_pp < early.high_pp


def test_intervals_are_those_of_a_paired_bootstrap(rows: list[Row], measured: dict[str, list[MeasuredRun]]) -> None:
    runs = measured["retrieval"]
    difference = runs[5].outcomes.hit1.values.astype(float) - runs[0].outcomes.hit1.values
    low, high = stats.bootstrap(
        (difference,), np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    early = row(rows, "[CLS] zero, to 11")
    assert early.low_pp == pytest.approx(100 * low, abs=2)
    assert early.high_pp == pytest.approx(100 * high, abs=2)


def test_an_intact_arm_is_compared_with_nothing(rows: list[Row]) -> None:
    intact = row(rows, "intact")
    assert intact.difference_pp == 0
    assert np.isnan([intact.low_pp, intact.high_pp, intact.p_value, intact.p_holm, intact.off_distribution]).all()
    assert intact.value_low < intact.value <= intact.value_high
    assert (intact.from_layer, intact.until_layer) == (6, 6)


def test_p_values_are_adjusted_over_the_edits_of_a_metric(rows: list[Row]) -> None:
    family = [row for row in rows if row.metric == "recall@1" and row.replacement != "none"]
    order = np.argsort([row.p_value for row in family])
    adjusted = np.maximum.accumulate(
        [min(1, family[place].p_value * (len(family) - rank)) for rank, place in enumerate(order)]
    )
    assert [family[place].p_holm for place in order] == pytest.approx(adjusted)


def test_facts_of_runs_are_carried_over(rows: list[Row], measured: dict[str, list[MeasuredRun]]) -> None:
    runs = [run.store for run in measured["retrieval"]]
    shuffled = row(rows, "registers shuffle")
    ranks = [float(run.off_distribution_mahalanobis_percentile.mean()) for run in runs[2:4]]
    assert shuffled.off_distribution == pytest.approx(np.mean(ranks))
    assert shuffled.certificate == max(run.attrs["facts"]["certificate"]["relative_error"] for run in runs[2:4])
    assert (shuffled.edited_tokens, row(rows, "[CLS] zero").edited_tokens, row(rows, "intact").edited_tokens) == (
        4,
        1,
        0,
    )
    assert {row.confidence for row in rows} == {0.95}
    assert (shuffled.calibration, shuffled.calibration_overlap) == ("other.zarr", 0)
    assert row(rows, "[CLS] zero").by_construction
    assert not row(rows, "[CLS] zero, to 11").by_construction
    assert (row(rows, "[CLS] zero").until_layer, row(rows, "[CLS] zero, to 11").until_layer) == (12, 11)


def test_pairs_are_resampled_by_their_images_and_stand_beside_floors(
    small: Small, measured: dict[str, list[MeasuredRun]]
) -> None:
    cache, runs = cachetool.open(small.cache), measured["correspondence"]
    annotations = cachetool.open_annotations(small.cache)
    task = Correspondence()
    rows = compare_runs(task, runs, cache=cache, floors=task.floors(annotations), statistics=STATISTICS)
    names = [row.edit for row in rows if row.metric == "pck@0.1"]
    assert names[:3] == ["intact", "copy-position floor", "identity floor"]
    shuffled = row(rows, "registers shuffle", "pck@0.1")
    outcomes = runs[0].outcomes
    assert shuffled.units == outcomes.sizes["pair"]
    assert shuffled.images == len({*outcomes.source_id.values, *outcomes.target_id.values})
    metric = task.metrics[0]
    weights = np.concatenate(list(Design.pairs(outcomes.source.values, outcomes.target.values).weights(2000, seed=0)))
    columns = metric.columns(runs[5].outcomes)
    with np.errstate(invalid="ignore"):
        resampled = (weights @ columns[:, 0]) / (weights @ columns[:, 1])
    zeroed = row(rows, "[CLS] zero, to 11", "pck@0.1")
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    assert (zeroed.value_low, zeroed.value_high) == (pytest.approx(low), pytest.approx(high))
    floor = row(rows, "copy-position floor", "pck@0.1")
    assert floor.value == pytest.approx(task.floors(annotations)["copy-position floor"].pipe(metric.value))
    assert floor.replacement == "floor"
    assert np.isnan(floor.p_holm)


def test_sequences_are_drawn_as_a_whole(small: Small, measured: dict[str, list[MeasuredRun]]) -> None:
    cache = cachetool.open(small.cache)
    groups = np.array([f"sequence {index // 10}" for index in range(cache.sizes["image"])], dtype=object)
    grouped = compare_runs(
        Retrieval(), measured["retrieval"], cache=cache, statistics=Statistics(groups, resamples=2000)
    )
    early = row(grouped, "[CLS] zero, to 11")
    assert np.isnan(early.mcnemar_p)
    assert early.units == measured["retrieval"][0].outcomes.sizes["image"]


def test_runs_of_other_images_are_refused(small: Small, measured: dict[str, list[MeasuredRun]]) -> None:
    runs = list(measured["retrieval"])
    runs[2] = MeasuredRun(runs[2].store, runs[2].outcomes.isel(image=slice(1, None)))
    with pytest.raises(DatasetError, match=r"registers\.shuffle"):
        compare_runs(Retrieval(), runs, cache=cachetool.open(small.cache), statistics=STATISTICS)


@pytest.mark.parametrize(
    ("dataset", "label"),
    [
        ("shapes#val", "shapes#val"),
        ("imagefolder:/data/photos/caltech/val", "imagefolder:caltech/val"),
        ("pairs:/data/pf_willow#test", "pairs:data/pf_willow#test"),
    ],
)
def test_names_of_data_sets_do_not_hold_their_place(dataset: str, label: str) -> None:
    facts: dict[str, Any] = {"dataset": dataset}
    assert dataset_label(xr.Dataset(attrs={"facts": facts})) == label

"""The rows that a figure is drawn from: one model on one data set, edited arms, one metric a task."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from cachetool.errors import DatasetError, MissingDataError, UnknownNameError

HEADLINES = ("top1", "recall@1", "miou", "pck@0.1")
"""The metric that stands for a task; a task with none of these is shown by the first one that it has in the table."""

ORACLE = " (oracle)"
"""What follows the name of a replacement that injects the image's label."""

_TEXT = ("model", "dataset", "task", "metric", "edit", "target", "replacement", "head")
_NUMBERS = ("from_layer", "until_layer", "difference_pp", "low_pp", "high_pp", "off_distribution_mahalanobis")
_FLAGS = ("sustained", "equivalent_1pp", "oracle", "by_construction")
_ARM = ["task", "metric", "edit", "from_layer", "until_layer", "head"]


@dataclass(frozen=True)
class Part:
    """The edited arms of one model on one data set under the headline metric of every task."""

    model: str
    """The model."""
    dataset: str
    """The evaluated data set."""
    metrics: dict[str, str]
    """Headline metric of each task, in the order of the table."""
    arms: pd.DataFrame
    """One row per arm and task, with heads fitted on intact features: the columns of `analyses.evaluation.rows.Row`,
    and `subject`: what was edited and where it ended, such as `[CLS], to 11`; `name`: the edit, marked if an oracle."""
    refit: pd.DataFrame
    """The same with heads that were fitted under the edit."""

    @property
    def title(self) -> str:
        """The part in words."""
        return f"{self.model} on {self.dataset}"

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks, in the order of the table."""
        return tuple(self.metrics)


def parts(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """The pairs of model and data set of a table, in its order."""
    _check_columns(frame)
    return list(dict.fromkeys(zip(frame["model"].astype(str), frame["dataset"].astype(str), strict=True)))


def select_part(frame: pd.DataFrame, model: str | None = None, dataset: str | None = None) -> Part:
    """The rows of one model on one data set; either may be left out where the table leaves no choice.

    Tables that were read back from CSV are as good as those of `analyses.evaluation.rows.as_frame`.

    Raises
    ------
    DatasetError
        The table lacks columns, or has several rows for the same arm, as with two calibrations; names them.
    UnknownNameError
        The table has no such model and data set, or several and none was chosen; names those it has.
    MissingDataError
        The table has no rows.
    """
    known = parts(frame)
    if not known:
        raise MissingDataError("the table has no rows; run `cachetool study` or `cachetool evaluate` to fill one")
    chosen = [pair for pair in known if model in (None, pair[0]) and dataset in (None, pair[1])]
    if len(chosen) != 1:
        problem = "several parts fit" if chosen else "no part fits"
        listing = "; ".join(f"model {pair[0]!r}, dataset {pair[1]!r}" for pair in chosen or known)
        raise UnknownNameError(
            f"a figure shows one model on one data set, but {problem} model {model!r} and dataset {dataset!r}; "
            f"choose with `model` and `dataset` among: {listing}"
        )
    rows = frame[(frame["model"] == chosen[0][0]) & (frame["dataset"] == chosen[0][1])].copy()
    # An empty text comes back from CSV as NaN.
    rows[list(_TEXT)] = rows[list(_TEXT)].fillna("").astype(str)
    rows[list(_FLAGS)] = rows[list(_FLAGS)].astype(bool)
    metrics = {str(task): _headline(list(of_task["metric"])) for task, of_task in rows.groupby("task", sort=False)}
    # Intact arms and floors edit nothing: they have no target.
    edited = rows[(rows["target"] != "") & (rows["metric"] == rows["task"].map(metrics))].reset_index(drop=True)
    _check_repeated(edited)
    edited["subject"] = [
        edit.replace(f" {replacement}", "", 1)
        for edit, replacement in zip(edited["edit"], edited["replacement"], strict=True)
    ]
    edited["name"] = edited["edit"] + edited["oracle"].map({True: ORACLE, False: ""})
    refit = edited["head"] == "refit"
    return Part(*chosen[0], metrics, edited[~refit].reset_index(drop=True), edited[refit].reset_index(drop=True))


def earliest_of_each_edit(arms: pd.DataFrame) -> pd.DataFrame:
    """Every edit from the earliest state that it begins at; token types, and targets in them, in the table's order.

    Names in the column `name` gain the first state where it is not the earliest of all.
    """
    earliest = arms.groupby("edit")["from_layer"].transform("min")
    rows = arms[arms["from_layer"] == earliest]
    kind = rows["target"].str.split(":").str[0]
    keys = pd.DataFrame({"kind": pd.factorize(kind)[0], "target": pd.factorize(rows["target"])[0]}, index=rows.index)
    rows = rows.loc[keys.sort_values(["kind", "target"], kind="stable").index]
    first = rows["from_layer"].min()
    names = [
        name + (f", from {start}" if start != first else "")
        for name, start in zip(rows["name"], rows["from_layer"], strict=True)
    ]
    return rows.assign(name=names)


def lacking(part: Part, what: str, how: str) -> MissingDataError:
    """The error for a figure whose rows are absent: what it needs, and how they come into the table."""
    edits = ", ".join(dict.fromkeys(part.arms["edit"])) or "none"
    return MissingDataError(
        f"the table has no rows of {what} for {part.title}; {how}. Edits with heads fitted on intact features: {edits}"
    )


def _headline(metrics: list[str]) -> str:
    return next((name for name in HEADLINES if name in metrics), metrics[0])


def _check_columns(frame: pd.DataFrame) -> None:
    absent = [name for name in (*_TEXT, *_NUMBERS, *_FLAGS) if name not in frame.columns]
    if absent:
        raise DatasetError(
            f"the table lacks the columns {', '.join(absent)}; figures are drawn from the table of `cachetool study` "
            "or from `analyses.evaluation.rows.as_frame`"
        )


def _check_repeated(edited: pd.DataFrame) -> None:
    repeated = edited[edited.duplicated(_ARM, keep=False)]
    if len(repeated):
        arms = dict.fromkeys(
            f"{row.task}: {row.edit} from {row.from_layer}, {row.head} head" for row in repeated.itertuples()
        )
        raise DatasetError(
            f"the table has several rows for the same arm, as with two calibrations or training sets: "
            f"{'; '.join(arms)}; keep one of each"
        )

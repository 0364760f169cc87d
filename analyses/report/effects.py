"""The changes of one model under every edit: the rows of a table that headline, heat map and listing are made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from analyses.figures.selection import earliest_of_each_edit, parts, select_part
from analyses.figures.style import metric_name
from analyses.inference import EQUIVALENCE_MARGIN
from cachetool.errors import DatasetError, MissingDataError

MARGIN = 100 * EQUIVALENCE_MARGIN
"""Percentage points within which a change counts as none."""

Outcome = Literal["breaks", "holds", "gains", "open"]
"""`breaks`: the whole interval of the change lies below -1 pp; `gains`: above 1 pp; `holds`: within; else `open`."""


@dataclass(frozen=True)
class Effects:
    """The edited arms of one model, over all data sets of a table."""

    model: str
    """The model."""
    source: Path
    """File of the table."""
    arms: pd.DataFrame
    """One row per arm and measurement: the columns of `analyses.figures.selection.Part.arms`, and `column`, the
    measurement for people, such as `classification: top-1 accuracy`."""
    refit: pd.DataFrame
    """The same with heads that were fitted under the edit."""
    intact: pd.DataFrame
    """One row per measurement: the unedited replay from the earliest state."""

    @property
    def columns(self) -> list[str]:
        """The measurements, in the order of the table."""
        return list(dict.fromkeys(self.arms["column"]))

    @property
    def states(self) -> list[int]:
        """First edited states."""
        return sorted(int(state) for state in self.arms["from_layer"].unique())

    def rows(self, state: int | None = None) -> pd.DataFrame:
        """Arms that begin at a state; without one, every edit from the earliest state that it begins at."""
        if state is None:
            return earliest_of_each_edit(self.arms)
        return earliest_of_each_edit(self.arms[self.arms["from_layer"] == state])


def read_table(path: Path) -> pd.DataFrame:
    """A table that `cachetool study` or `cachetool evaluate` wrote.

    Raises
    ------
    MissingDataError
        There is no such file.
    DatasetError
        The file is no table of these; says what is absent.
    """
    file = path / "table.csv" if path.is_dir() else path
    if not file.is_file():
        raise MissingDataError(
            f"no table at {file}; make one with `cachetool study` or `cachetool evaluate --output DIRECTORY`"
        )
    try:
        frame = pd.read_csv(file)
    except (ValueError, OSError) as error:
        raise DatasetError(f"{file} is no table of cachetool: {error}") from error
    try:
        parts(frame)
    except DatasetError as error:
        raise DatasetError(f"{file}: {error}") from error
    return frame


def effects_of(frame: pd.DataFrame, source: Path) -> list[Effects]:
    """The edited arms of every model of a table; models with none are left out. Raises as `select_part`."""
    return [
        one
        for model in dict.fromkeys(frame["model"].astype(str))
        if len((one := _of_model(frame[frame["model"] == model], model, source)).arms)
    ]


def outcome_of(low: float, high: float) -> Outcome:
    """What the interval of a change, in percentage points, says."""
    if high < -MARGIN:
        return "breaks"
    if low > MARGIN:
        return "gains"
    return "holds" if low >= -MARGIN and high <= MARGIN else "open"


def _of_model(frame: pd.DataFrame, model: str, source: Path) -> Effects:
    found = [select_part(frame, model, dataset) for _, dataset in parts(frame)]
    several = len(found) > 1
    metrics = {(part.dataset, task): metric for part in found for task, metric in part.metrics.items()}
    tasks = [task for _, task in metrics]

    def named(rows: pd.DataFrame) -> pd.DataFrame:
        columns = []
        for row in rows.itertuples():
            # The data set is named only where the same task was measured on several.
            where = f" on {row.dataset}" if several and tasks.count(str(row.task)) > 1 else ""
            columns.append(f"{row.task}{where}: {metric_name(str(row.metric))}")
        return rows.assign(column=columns)

    arms, refit = (
        named(pd.concat([getattr(part, which) for part in found], ignore_index=True)) for which in ("arms", "refit")
    )
    headline = [metrics.get((str(row.dataset), str(row.task))) == row.metric for row in frame.itertuples()]
    intact = frame[headline]
    intact = intact[(intact["edit"] == "intact") & (intact["head"] == "intact")].sort_values("from_layer")
    intact = named(intact.drop_duplicates(["dataset", "task"]))
    return Effects(model, source, arms, refit, intact.reset_index(drop=True))

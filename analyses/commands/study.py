"""`cachetool study`: a whole study over models, data sets, tasks and edits, from a TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cachetool.cli import completion
from cachetool.cli.console import (
    BatchSizeOption,
    ClusterOption,
    DeviceOption,
    JsonOption,
    RootOption,
    WeightsOption,
    errors,
    output,
    print_json,
    progress,
)
from cachetool.errors import CachetoolError, UnknownNameError
from cachetool.packages import FIGURES, require

if TYPE_CHECKING:
    import pandas as pd

    from analyses.study.run import StudyResult


def command(
    study: Annotated[str, typer.Argument(help="Name of a built-in study, or a TOML file.")] = "zero-ablation",
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="Model, instead of those of the study; repeat for several.",
            autocompletion=completion.models,
        ),
    ] = None,
    weights: WeightsOption = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", help="Evaluated data set, instead of those of the study.", autocompletion=completion.datasets
        ),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(
            "--train", help="Data set that heads are fitted on; with --data.", autocompletion=completion.datasets
        ),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option("--task", help="Task, instead of those of the study; repeat for several.")
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(help="Data set that means and variances come from.", autocompletion=completion.datasets),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most N images of every data set.")] = None,
    root: RootOption = None,
    output_directory: Annotated[
        Path | None, typer.Option("--output", help="Directory of tables and figures [studies/NAME].")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print bytes, time and what is there already; run nothing.")
    ] = False,
    show: Annotated[bool, typer.Option("--print", help="Print the study as TOML, to copy and change.")] = False,
    list_studies: Annotated[bool, typer.Option("--list", help="List the built-in studies.")] = False,
    figures: Annotated[bool, typer.Option("--figures/--no-figures", help="Draw figures beside the tables.")] = True,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that decode images [on the CPU 0: this one decodes].")
    ] = None,
    batch_size: BatchSizeOption = None,
    device: DeviceOption = None,
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a study: extract, calibrate, replay, evaluate, and write one tidy table as CSV and netCDF.

    Interrupted, it resumes where it stopped; run again, it uses all that is there.

    Examples:

    - `cachetool study zero-ablation --dry-run`

    - `cachetool study zero-ablation --print > mine.toml`, then `cachetool study mine.toml`

    - `cachetool study --model timm:vit_tiny_patch16_224 --weights FILE --data pairs:photos --task correspondence`
    """
    from analyses.study.loading import builtin_studies, load_study, study_file

    options: dict[str, Any] = {
        "models": model,
        "weights": weights,
        "data": data,
        "train": train,
        "tasks": task,
        "calibration": calibration,
        "limit": limit,
        "batch_size": batch_size,
    }
    if list_studies:
        _list(builtin_studies(), as_json)
        return
    if show:
        _print(study_file(study), options)
        return
    from analyses.study.narrowing import narrow

    chosen = narrow(load_study(study), **options)
    if figures and not dry_run:
        require("figures of cachetool study", FIGURES, "report", "take the tables alone with --no-figures")
    from analyses.study.parts import take_apart
    from analyses.study.plan import plan_study
    from analyses.study.run import run_study
    from analyses.table_files import check_directory

    parts = take_apart(chosen, root=root, device=device)
    plan = plan_study(chosen, parts=parts, root=root, device=device)
    if dry_run:
        if as_json:
            print_json(plan.to_json())
            return
        output.print(plan.table())
        _say("notes", plan.notes)
        return
    errors.print(plan.table())
    _say("notes", plan.notes)
    directory = output_directory or Path("studies") / chosen.name
    check_directory(directory)
    with progress() as events:
        result = run_study(
            chosen, parts=parts, root=root, device=device, workers=workers, cluster=cluster, events=events
        )
    _report(result, directory, figures=figures, as_json=as_json)


def _print(file: Path, options: dict[str, Any]) -> None:
    """The file as it is, comments included: what was named on the command line is not part of it."""
    given = [name.replace("_", "-") for name, value in options.items() if value]
    if given:
        raise UnknownNameError(
            f"--print shows a study as it is written, without options ({', '.join(given)}); write them into the copy"
        )
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UnknownNameError(f"{file} is no TOML: {error}") from error
    output.print(text, markup=False, highlight=False, soft_wrap=True, end="")


def _report(result: StudyResult, directory: Path, *, figures: bool, as_json: bool) -> None:
    """Write tables and figures, and say what was found."""
    from analyses.study.published import published_note
    from analyses.study.table import study_rows, study_table, summary, write_study

    paths = write_study(result, directory)
    drawn = _draw(study_table(result), directory / "figures") if figures else []
    if as_json:
        files = {ending: str(path) for ending, path in paths.items()}
        print_json(
            {
                "study": result.study.name,
                "rows": study_rows(result),
                "notes": list(result.notes),
                "files": files,
                "figures": [str(path) for path in drawn],
            }
        )
        return
    for table in summary(result):
        errors.print(table)
    _say("notes", list(result.notes))
    if study_table(result).published_source.any():
        errors.print(f"published numbers: {published_note()}", markup=False)
    for path in (*paths.values(), *drawn):
        output.print(str(path), markup=False, highlight=False, soft_wrap=True)


def _draw(table: pd.DataFrame, directory: Path) -> list[Path]:
    """All figures that the table allows; the tables stand whatever becomes of them."""
    from analyses.figures import write_figures

    with errors.status("drawing figures"):
        try:
            return write_figures(table, directory)
        except CachetoolError as error:
            errors.print(f"no figures: {error}", markup=False, highlight=False, soft_wrap=True)
            return []


def _say(heading: str, lines: list[str]) -> None:
    if lines:
        listing = "\n".join(f"  {line}" for line in lines)
        errors.print(f"{heading}:\n{listing}", markup=False, highlight=False, soft_wrap=True)


def _list(files: dict[str, Path], as_json: bool) -> None:
    from rich.table import Table

    from analyses.study.loading import load_study

    studies: dict[str, Any] = {name: load_study(name) for name in files}
    if as_json:
        print_json({"studies": [{"name": name, "description": study.description} for name, study in studies.items()]})
        return
    table = Table("study", "models", "data", "description")
    for name, study in studies.items():
        models, data = [entry.name for entry in study.models], [entry.evaluate for entry in study.data]
        table.add_row(name, ", ".join(models), ", ".join(data), study.description)
    output.print(table)

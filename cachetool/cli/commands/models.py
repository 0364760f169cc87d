"""`cachetool models`: what can be named."""

from __future__ import annotations

from dataclasses import asdict

from rich.table import Table

from cachetool.cli.console import JsonOption, output, print_json


def command(as_json: JsonOption = False) -> None:
    """List the models that have names of their own, with whether their weights are here, and how to name others."""
    from cachetool.backbones import catalogue, forms

    entries = catalogue()
    if as_json:
        print_json({"models": [asdict(entry) for entry in entries], "forms": [asdict(form) for form in forms()]})
        return
    table = Table("name", "blocks", "channels", "registers", "image size", "parameters", "weights here", "description")
    for entry in entries:
        table.add_row(
            entry.name,
            str(entry.depth),
            str(entry.channels),
            str(entry.registers),
            str(entry.image_size),
            f"{entry.parameters / 1e6:.1f} M",
            "yes" if entry.available_here else "no",
            entry.description,
        )
    output.print(table)
    for form in forms():
        output.print(f"{form.name} names {form.description}.")
    output.print("--weights FILE loads weights from a file.")

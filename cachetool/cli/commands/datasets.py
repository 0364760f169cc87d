"""`cachetool datasets`: what can be named."""

from __future__ import annotations

from rich.table import Table

from cachetool.cli.console import JsonOption, output, print_json


def command(as_json: JsonOption = False) -> None:
    """List the data sets that can be named, where they are, or where they were looked for."""
    from cachetool.datasets import catalogue

    entries = catalogue()
    if as_json:
        print_json(
            {
                "datasets": [
                    {
                        "name": entry.name,
                        "kind": entry.kind,
                        "description": entry.description,
                        "splits": list(entry.splits),
                        "root": None if entry.root is None else str(entry.root),
                        "looked": list(entry.looked),
                        "available": entry.available,
                    }
                    for entry in entries
                ]
            }
        )
        return
    table = Table("name", "task", "splits", "available", "description")
    for entry in entries:
        table.add_row(
            entry.name,
            entry.kind or "depends on its files",
            ", ".join(entry.splits),
            "yes" if entry.available else "no",
            entry.description,
        )
    output.print(table)
    output.print(
        "A split follows the name: shapes#train. CACHETOOL_DATA names the folder (or TOML file) of named sets."
    )

"""Where the numbers of a page come from: caches, runs with their certificates, analyses and tables."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analyses.report.charts import number
from analyses.report.subject import Subject, run_label


@dataclass(frozen=True)
class CertifiedRun:
    """One run with what stands behind it, as text."""

    run: str
    """Its edit."""
    error: str
    """Relative error of the unedited replay against the stored last state."""
    bound: str
    """Error beyond which the run would have been refused."""
    kernel: str
    """Device and kernel."""
    calibration: str
    """Calibration, and how many evaluated images are among its own."""
    images: str
    """Number of images."""


def cache_facts(subject: Subject) -> dict[str, str]:
    """What identifies a cache and how it was made, by name."""
    cache = subject.cache
    key, facts = cache.attrs["key"], cache.attrs["facts"]
    transform = dict(key["transform"])
    storage = facts.get("storage_error") or {}
    found = {
        "cache": str(subject.path),
        "architecture": key["architecture"],
        "weights, SHA-256": key["weights_sha256"],
        "data set": subject.dataset,
        "images": f"{cache.sizes['image']:,}, {int((~cache.readable.values).sum())} unreadable",
        "transform": ", ".join(f"{name} {_short(value)}" for name, value in transform.items()),
        "position embedding": key.get("position_embedding", ""),
        "stored as": key["dtype"],
        "states held": ", ".join(map(str, cache.layer.values)),
        "storage error, largest": number(max(map(float, storage.values()))) if storage else "",
        "environment": ", ".join(f"{name} {value}" for name, value in facts.get("environment", {}).items()),
    }
    return {name: str(value) for name, value in found.items() if value != ""}


def certified_runs(subject: Subject) -> list[CertifiedRun]:
    """The runs of a cache with their certificates, in the order of their names."""
    return [
        CertifiedRun(
            run=run_label(run),
            error=_error(run.attrs["facts"]["certificate"]),
            bound=number(float(run.attrs["facts"]["certificate"]["bound"])),
            kernel=str(run.attrs["facts"]["certificate"]["kernel"]),
            calibration=_calibration(run.attrs["facts"].get("calibration")),
            images=f"{run.sizes['image']:,}",
        )
        for run in subject.runs
    ]


def analysis_facts(subject: Subject) -> list[dict[str, str]]:
    """What was analysed with which options and version."""
    return [
        {
            "analysis": name,
            "options": ", ".join(
                f"{option} {value}" for option, value in json.loads(str(found.attrs.get("options", "{}"))).items()
            ),
            "images": f"{found.sizes['image']:,}" if "image" in found.sizes else "pooled",
            "version": str(found.attrs.get("cachetool_version", "")),
        }
        for name, found in subject.results.items()
    ]


def digest(file: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _error(certificate: dict[str, Any]) -> str:
    return "bit-equal" if certificate.get("bit_equal") else number(float(certificate["relative_error"]))


def _calibration(facts: dict[str, Any] | None) -> str:
    if not facts:
        return "none needed"
    name = Path(str(facts.get("path", "its own cache"))).name
    return f"{name}, {facts.get('images', '?')} images, {facts.get('overlap', '?')} of them evaluated"


def _short(value: object) -> str:
    return "/".join(f"{one:g}" for one in value) if isinstance(value, list) else str(value)

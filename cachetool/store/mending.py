"""What to do about damage, as errors say it."""

from __future__ import annotations

from cachetool.objects import ObjectPath, Place


def advice(path: Place) -> str:
    """What mends the store that a file belongs to; what can only be read is for others to mend."""
    if isinstance(path, ObjectPath) and not path.writable:
        return (
            "It can only be read there: fetch it anew where it is a copy, or ask whoever publishes it to run "
            "`cachetool verify --repair`."
        )
    return "Run `cachetool verify --repair`."

"""Remove stores, with all that was made from them: what was made first, so that the same command again goes on."""

from __future__ import annotations

from cachetool.errors import StoreError
from cachetool.objects import ObjectPath, Place, check_writable, remove_tree
from cachetool.places import analyses_directory, calibrations_directory, outcomes_directory, runs_directory
from cachetool.store.object_folders import remove_whole


def check_removable(path: Place) -> None:
    """Make sure that a path is a cache, run or calibration of ours.

    Raises
    ------
    StoreError
        It is something else, or where things can only be read; nothing was removed.
    """
    check_writable(path)
    document = path / "zarr.json"
    if path.is_symlink() or not document.is_file() or '"cachetool"' not in document.read_text(errors="replace"):
        raise StoreError(f"{path} is not a cache, run or calibration of cachetool; nothing was removed")


def remove_store(path: Place) -> None:
    """Remove a run or calibration, or a cache with all that was made from it. Raises `StoreError`.

    What was made from a cache goes with it: beside another cache of the same name it would pass for that one's.
    """
    check_removable(path)
    try:
        for folder in (runs_directory, calibrations_directory, outcomes_directory, analyses_directory):
            made = folder(path)
            if made.is_dir():
                remove_tree(made)
        if isinstance(path, ObjectPath):
            remove_whole(path)
        else:
            remove_tree(path)
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"{path} could not be removed as a whole ({error.strerror}: {error.filename})") from error

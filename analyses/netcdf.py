"""Small labelled results on disk: netCDF-4 files that are whole or absent, and whose damage is seen.

netCDF has checksums for numbers at most, not for text, attributes or its own structure. So the file is followed by four
bytes with its CRC32C, which readers of netCDF-4 do not look at.
"""

from __future__ import annotations

from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import google_crc32c
import xarray as xr

from cachetool.heaps import check_heaps
from cachetool.objects import ObjectPath, Place
from cachetool.store.atomic import make_folder, remove_leftovers, write_atomically

ENGINE: Final = "h5netcdf"

MOST_PACKED, MOST_UNWRITTEN = 2000, 2**24
"""How many times its size a file may hold, as compression allows about 1000, and bytes that may be unwritten."""


def write_netcdf(data: xr.Dataset, path: Place) -> None:
    """Write a loaded data set beside its place and move it there, so that a reader never meets half a file.

    Numbers are compressed and carry checksums, so that changed bytes are an error also for plain readers.

    Raises
    ------
    StoreError
        It cannot be written, on a full disk for example; a file that was there is as it was.
    """
    _load_packages()
    checked: dict[str, Any] = {"zlib": True, "complevel": 1, "fletcher32": True}
    encoding = {
        name: checked for name, variable in data.variables.items() if variable.dtype.kind in "biuf" and variable.size
    }
    # In memory first: on a full disk HDF5 cannot close its file, and takes the process down when that ends.
    # Encodings that came with a file it was read from would contradict these.
    content = bytes(data.drop_encoding().to_netcdf(engine=ENGINE, encoding=encoding))
    make_folder(path.parent, parents=True)
    remove_leftovers(path.parent, path.name)
    write_atomically(path, content, _checksum(content))


def _load_packages() -> None:
    """Import what reads and writes netCDF: xarray would not name a package that is missing or broken."""
    for name in (ENGINE, "h5py"):
        import_module(name)


def _checksum(content: bytes) -> bytes:
    return int(google_crc32c.value(content)).to_bytes(4, "little")


def read_netcdf(path: Place) -> xr.Dataset:
    """Read a whole file into memory and close it.

    Raises `OSError` or `ValueError` for a file that is damaged, whose values lie in other files, or which claims more
    than it can hold: it may have come with a cache from somebody else.
    """
    _load_packages()
    if not path.is_file():
        raise OSError(f"{path} is no file")
    content = path.read_bytes()
    if _checksum(content[:-4]) != content[-4:]:
        raise OSError(f"{path} is damaged: its checksum does not match; compute it again")
    try:
        check_heaps(content)
        # An object was read as a whole already.
        source = BytesIO(content[:-4]) if isinstance(path, ObjectPath) else path
        _check(source, len(content))
        with xr.open_dataset(source, engine=ENGINE) as opened:
            return opened.load()
    except OSError:
        raise
    except Exception as error:  # HDF5 and xarray raise whatever a damaged file makes them stumble over
        raise ValueError(f"{path} cannot be read as netCDF: {error}") from error


def _check(source: Path | BytesIO, size: int) -> None:
    """Raise `ValueError` before anything is read that lies elsewhere, or for which memory would be taken in vain."""
    import h5py

    claimed = 0
    with h5py.File(source, "r") as file:
        for name in file:
            linked = not isinstance(file.get(name, getlink=True), h5py.HardLink)
            if linked:
                raise ValueError(f"{name} is a link")
            array: Any = file[name]
            if isinstance(array, h5py.Dataset):
                if array.is_virtual or array.external:
                    raise ValueError(f"{name} lies in other files")
                claimed += array.nbytes
    if claimed > MOST_PACKED * size + MOST_UNWRITTEN:
        raise ValueError(f"it claims {claimed:,} bytes, more than it can hold")

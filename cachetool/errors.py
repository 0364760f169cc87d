"""What cachetool raises on purpose: each error says what was expected, what was found, and what to do.

Every class derives from `CachetoolError`, so that one `except` (and the command line) can tell a message meant for the
user from a defect, and from the built-in that fits, so that callers who never heard of cachetool catch it too.
"""

from __future__ import annotations


class CachetoolError(Exception):
    """The base of every error that cachetool raises on purpose; its text is a message for the user."""


class UnknownNameError(CachetoolError, ValueError):
    """A model, data set, target, replacement or option was named that does not exist."""


class InvalidEditError(CachetoolError, ValueError):
    """An edit cannot be carried out: its layers, tokens, labels or parameters do not fit the cache."""


class MissingDataError(CachetoolError, FileNotFoundError):
    """Files of a data set, weights, a cache or a calibration are not where they were looked for."""


class WeightsError(CachetoolError, ValueError):
    """A weights file cannot be read, or does not hold the named architecture."""


class UnsupportedModelError(CachetoolError, ValueError):
    """The architecture has a part that cachetool cannot run block by block."""


class DatasetError(CachetoolError, ValueError):
    """A data set is there, but its files contradict each other or the layout that was named."""


class ImageError(CachetoolError, OSError):
    """An image cannot be read; the text names the file."""


class StoreError(CachetoolError, OSError):
    """A cache or run cannot be written or read (no space, no permission, not a store)."""


class IncompleteError(StoreError):
    """Activations were asked for that the store does not hold, or not yet."""


class DamagedError(StoreError):
    """Stored bytes contradict their checksum, size or done record."""


class KeyMismatchError(CachetoolError, ValueError):
    """Another cache (another key) lies at the same place; the text names the parts that differ."""


class StaleRunWarning(UserWarning):
    """Runs were left out because values of their cache changed since they were made."""


class MissingPackageError(CachetoolError, ImportError):
    """A package that one command alone needs cannot be imported; the text names it and how to install it."""


class BrokenPluginWarning(UserWarning):
    """An analysis, replacement or command of another package was left out because it cannot be loaded."""


class RangeError(CachetoolError, OverflowError):
    """An activation lies beyond the range of the storage dtype."""


class OutOfMemoryError(CachetoolError, MemoryError):
    """Not even one image at a time fits into memory."""


class ClusterError(CachetoolError, ConnectionError):
    """A cluster cannot be reached, or its workers cannot do the work; the text names all that cannot."""


class CertificateError(CachetoolError, ArithmeticError):
    """The unedited replay does not reproduce the stored last state within the stated bound."""

"""Files of the Hugging Face hub, and the weights that timm publishes there: from local caches, or downloaded."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import huggingface_hub
import torch
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from timm.models import get_pretrained_cfg

from cachetool.errors import MissingDataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names under which timm publishes weights in a hub repository, the preferred one first."""

CONNECT_TIMEOUT = 5.0
"""Seconds to wait for the hub to answer at all; a machine without network should say so at once."""


class NotFetchedError(Exception):
    """A file was not downloaded; the text says why."""


class NotPublishedError(NotFetchedError):
    """The hub answers, but the repository has none of the files."""


def cached_weights(timm_name: str) -> Path | None:
    """Weights of a timm model that are on this machine already: in the cache of the hub, or in that of torch.hub."""
    config = get_pretrained_cfg(timm_name)
    if config is None:
        return None
    if config.hf_hub_id:
        repository, revision = _repository(config)
        cached = cached_file(repository, revision, _files(config))
        if cached is not None:
            return cached
    published = _torch_hub_file(config)
    return published if published is not None and published.is_file() else None


def fetch_weights(timm_name: str) -> Path:
    """Weights of a timm model, from a local cache or else downloaded from the hub.

    Raises `MissingDataError` that names the repository, the folders that were looked in and `--weights`, where there is
    no network or the hub has no such file, after seconds and without retrying.
    """
    cached = cached_weights(timm_name)
    if cached is not None:
        return cached
    config = get_pretrained_cfg(timm_name)
    if config is None or not config.hf_hub_id:
        raise MissingDataError(
            f"timm publishes no weights for {timm_name}; give a .safetensors or .pth file with `--weights FILE`"
        )
    repository, revision = _repository(config)
    try:
        return download_file(repository, revision, _files(config), "timm")
    except NotFetchedError as error:
        raise _missing(timm_name, config, str(error)) from error


def cached_file(repository: str, revision: str | None, files: Sequence[str]) -> Path | None:
    """The first of some files of a repository that the cache of the hub has; None where it has none of them."""
    for file in files:
        found = huggingface_hub.try_to_load_from_cache(repository, file, revision=revision)
        if isinstance(found, str):
            return Path(found)
    return None


def download_file(repository: str, revision: str | None, files: Sequence[str], library: str) -> Path:
    """Download the first of some files that a repository of the hub has; `library` is named to the hub.

    Raises `NotPublishedError` where it has none, `NotFetchedError` that says why not elsewhere, after seconds and
    without retrying.
    """
    if constants.HF_HUB_OFFLINE:
        raise NotFetchedError("not downloaded, because HF_HUB_OFFLINE is set")
    try:
        return _download(repository, revision, files, library)
    except GatedRepoError as error:
        raise NotFetchedError(
            f"{repository} is gated: agree to its terms on its page of the hub, then log in with `hf auth login` or "
            "set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise NotFetchedError(
            f"the hub has no repository {repository}, or it is private: log in with `hf auth login` or set HF_TOKEN"
        ) from error
    except EntryNotFoundError as error:
        raise NotPublishedError(f"{repository} has no {' or '.join(files)}") from error
    except Exception as error:  # the classes of network errors differ between versions of the hub's client
        raise NotFetchedError(f"download failed: {_first_line(error)}") from error


def _download(repository: str, revision: str | None, files: Sequence[str], library: str) -> Path:
    for file in files:
        url = huggingface_hub.hf_hub_url(repository, file, revision=revision)
        with _quiet():
            try:
                # Asked first, because this question is not retried, while a download without network is for a minute.
                huggingface_hub.get_hf_file_metadata(url, timeout=CONNECT_TIMEOUT)
            except EntryNotFoundError:
                if file == files[-1]:
                    raise
                continue
            return Path(
                huggingface_hub.hf_hub_download(
                    repository, file, revision=revision, etag_timeout=CONNECT_TIMEOUT, library_name=library
                )
            )
    raise ValueError(f"{repository} names no weights file")


def _missing(timm_name: str, config: Any, reason: str) -> MissingDataError:
    repository, _ = _repository(config)
    published = _torch_hub_file(config)
    also = "" if published is None else f" and {published}"
    return MissingDataError(
        f"the weights of {timm_name} are not on this machine ({reason})\n"
        f"looked for {' or '.join(_files(config))} of hub repository {repository} in {constants.HF_HUB_CACHE}{also}\n"
        "give a .safetensors or .pth file of timm, Meta or Hugging Face with `--weights FILE`, or connect once"
    )


def _repository(config: Any) -> tuple[str, str | None]:
    repository, _, revision = str(config.hf_hub_id).partition("@")
    return repository, revision or None


def _files(config: Any) -> tuple[str, ...]:
    return (str(config.hf_hub_filename),) if config.hf_hub_filename else WEIGHTS_FILES


def _torch_hub_file(config: Any) -> Path | None:
    """Where torch.hub keeps the original release, if that is a PyTorch file."""
    name = Path(urlparse(config.url or "").path).name
    return Path(torch.hub.get_dir()) / "checkpoints" / name if name.endswith((".pth", ".pt", ".safetensors")) else None


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the hub's progress bars and its log: what goes wrong is said once, by the error."""
    logger = logging.getLogger("huggingface_hub")
    level, hidden = logger.level, are_progress_bars_disabled()
    logger.setLevel(logging.CRITICAL)
    disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if not hidden:
            enable_progress_bars()

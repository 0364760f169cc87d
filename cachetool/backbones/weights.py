"""Weights files: read without running code from them, find the tensors inside, and give them a format-free digest."""

from __future__ import annotations

import hashlib
import pickletools
import re
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cachetool.errors import MissingDataError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WRAPPERS = ("teacher", "model_ema", "state_dict_ema", "state_dict", "model", "module")
"""Keys under which training scripts nest the weights, the averaged ones first."""

PREFIXES = (
    "_orig_mod.",
    "module.",
    "teacher.",
    "backbone.",
    "model.",
    "dinov2.",
    "dinov2_with_registers.",
    "dinov3_vit.",
    "vit.",
)
"""Prefixes that wrappers put before every name."""

MOST_WRAPPERS = 16
"""Dicts around the weights that are looked into; a pickle may hold one that holds itself."""

MOST_SHARED = 16
"""How many times the size of a file its tensors may show."""

TRAINING_HEADS = ("dino_head.", "ibot_head.")
"""Heads of self-distillation that training checkpoints keep beside the backbone."""


def read_weights(*paths: Path) -> dict[str, Tensor]:
    """Tensors by the names in safetensors or PyTorch files, unwrapped from the dicts and prefixes of training scripts.

    The format is told by content, not by suffix. Pickled code is never run. Raises `MissingDataError` where there is no
    such file, `WeightsError` where it cannot be read or holds something else than named tensors, or where two files
    hold the same.
    """
    found: dict[str, Tensor] = {}
    for path in paths:
        tensors = _read(path)
        if twice := found.keys() & tensors.keys():
            raise WeightsError(
                f"{path.name} holds tensors that {' or '.join(one.name for one in paths if one != path)} holds too: "
                f"{', '.join(sorted(twice))}; fetch the files again"
            )
        found |= tensors
    return _strip_prefixes(found)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise MissingDataError(
            f"no weights file at {path}; give the path of a .safetensors or .pth file with `--weights FILE`"
        )
    content = _load_safetensors(path) if _is_safetensors(path) else _load_pickle(path)
    tensors = _unwrap(content, path)
    _check_plain(tensors, path)
    return tensors


def canonical(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy the tensors as a model computes with them: float32, contiguous, in memory of their own, sorted by name.

    Own memory, because the alignment of a mapped file would otherwise decide which vector kernel runs.
    """
    return {name: tensors[name].detach().to(torch.float32, copy=True).contiguous() for name in sorted(tensors)}


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over name, dtype, shape and little-endian bytes of every tensor, in the order of their names.

    It is taken over the canonical tensors under timm's names, before a position embedding is resampled, so that the
    same weights have one digest whatever the file format, the naming scheme, the stored dtype (a float16 file and its
    float32 copy agree) and the image size. A classification head is part of it.
    """
    sha256 = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name].detach().to(torch.float32).contiguous().numpy().astype("<f4", copy=False)
        sha256.update(f"{name} float32 {values.shape}\n".encode())
        sha256.update(values.data)
    return sha256.hexdigest()


def _is_safetensors(path: Path) -> bool:
    """Whether a file starts as safetensors do: eight bytes of header length, then the JSON header."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from error
    return path.suffix == ".safetensors" or start[8:9] == b"{"


def _load_safetensors(path: Path) -> dict[str, Any]:
    try:
        return dict(load_file(path, device="cpu"))
    except (SafetensorError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, OSError) as error:
        raise WeightsError(
            f"{path.name} is not a readable safetensors file ({error}); it is damaged or incomplete: fetch it again"
        ) from error


def _load_pickle(path: Path) -> Any:
    try:
        _refuse_compressed(path)
        with warnings.catch_warnings(action="ignore"):  # of old formats, which a file of somebody else may well have
            return torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except Exception as error:  # torch raises whatever a damaged file makes it stumble over
        # torch's own text advises to load without protection, so only the name of what was refused is taken from it.
        named = re.search(r"GLOBAL (\S+)", str(error))
        forbidden = _named_code(path) if named is None else named[1]
        if forbidden is not None:
            raise WeightsError(
                f"{path.name} was expected to hold tensors alone, but asks to run code on loading ({forbidden}), "
                "which is refused; save the model's state_dict alone, best as .safetensors"
            ) from error
        raise WeightsError(
            f"{path.name} is neither a safetensors nor a PyTorch weights file, or it is damaged or incomplete; "
            "fetch it again"
        ) from error


def _named_code(path: Path) -> str | None:
    """The first function that a bare pickle names, found by listing its instructions, none of which is followed."""
    texts: list[str] = []
    try:
        with path.open("rb") as file:
            for instruction, argument, _ in pickletools.genops(file.read(2**20)):
                if instruction.name in ("GLOBAL", "INST"):
                    return str(argument).replace(" ", ".")
                if instruction.name == "STACK_GLOBAL":
                    return ".".join(texts[-2:])
                texts += [argument] if isinstance(argument, str) else []
    except Exception:  # it is no pickle, or a damaged one
        return None
    return None


def _refuse_compressed(path: Path) -> None:
    """Raise `WeightsError` for a compressed archive: torch writes none, and a small one can fill the memory."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise WeightsError(
                f"{path.name} is a compressed archive, expected one as torch.save writes it; save the weights again, "
                "best as .safetensors"
            )


def _check_plain(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise `WeightsError` for tensors that are no plain numbers, or far more of them than the file can hold."""
    strange = [
        name
        for name, tensor in tensors.items()
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized
        or tensor.dtype.is_complex
    ]  # fmt: skip
    if strange:
        raise WeightsError(
            f"{path.name} was expected to hold dense real numbers, but these are complex, sparse, quantized or empty "
            f"shells: {', '.join(strange)}; save the model's state_dict as floating-point numbers"
        )
    # Views may share memory, so that a file holds less than its tensors show, but not by so much.
    claimed, held = sum(tensor.nbytes for tensor in tensors.values()), path.stat().st_size
    if claimed > MOST_SHARED * held:
        raise WeightsError(
            f"{path.name} has {held:,} bytes, but its tensors show {claimed:,}, as views of the same few numbers; save "
            "the model's state_dict with tensors of their own"
        )


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    """Find the dict of tensors inside the dicts that training scripts put around it."""
    for _ in range(MOST_WRAPPERS):
        if not isinstance(content, dict):
            break
        wrapper = next((key for key in WRAPPERS if isinstance(content.get(key), dict)), None)
        if wrapper is None:
            break
        content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise WeightsError(
            f"{path.name} was expected to hold named tensors, but holds "
            f"{'nothing' if isinstance(content, dict) else f'a {type(content).__name__}'}; save the model's state_dict"
        )
    others = [str(key) for key, value in content.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if others:
        raise WeightsError(
            f"{path.name} was expected to hold named tensors alone, but these entries are something else: "
            f"{', '.join(others)}; save the model's state_dict alone"
        )
    return dict(content)


def _strip_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefixes that all of them share, and without the heads of self-distillation."""
    names = {name: name for name in tensors if not name.startswith(TRAINING_HEADS)}
    while prefix := next((p for p in PREFIXES if names and _shared(p, names)), None):
        names = {name.removeprefix(prefix): original for name, original in names.items()}
        names = {name: original for name, original in names.items() if not name.startswith(TRAINING_HEADS)}
    return {name: tensors[original] for name, original in names.items()}


def _shared(prefix: str, names: Mapping[str, str]) -> bool:
    """Whether every name has the prefix; a classifier that lies beside a wrapped backbone does not count."""
    body = [name for name in names if not name.startswith(("classifier.", *TRAINING_HEADS))]
    return bool(body) and all(name.startswith(prefix) for name in body)

"""From the tensors of a weights file to those of one timm architecture: every name and shape has to match."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import timm
import torch

from cachetool.backbones import facebook, huggingface
from cachetool.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor


def to_timm_names(tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Rename the tensors of a release of Meta or Hugging Face to timm's names; timm's own stay as they are."""
    try:
        if huggingface.recognized(tensors):
            return huggingface.to_timm(tensors, source)
        if facebook.recognized(tensors):
            return facebook.to_timm(tensors, source)
    except (RuntimeError, IndexError, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        # Parts of a tensor are taken, or several joined, before shapes are compared.
        raise WeightsError(
            f"{source} has tensors whose shapes do not fit each other ({error}); it is damaged, or another model's"
        ) from error
    return dict(tensors)


def fit_bias_variant(tensors: Mapping[str, Tensor], architecture: str, model: Any) -> tuple[dict[str, Tensor], str]:
    """Choose between timm's plain DINOv3 and its `_qkvb` variant by the biases of queries and values.

    timm publishes the plain variant where all of them are zero. So zeros are left out for a plain architecture, and
    other values lead to the `_qkvb` variant where timm has it. Returns the tensors and the architecture's name.
    """
    biases = [name for name in tensors if name.endswith((".attn.q_bias", ".attn.v_bias"))]
    plain, _, tag = architecture.partition(".")
    if not biases or "dinov3" not in plain or any(name in model.state_dict() for name in biases):
        return dict(tensors), architecture
    if not any(torch.count_nonzero(tensors[name]) for name in biases):
        return {name: tensor for name, tensor in tensors.items() if name not in biases}, architecture
    variant = f"{plain}_qkvb"
    return dict(tensors), ".".join(filter(None, (variant, tag))) if timm.is_model(variant) else architecture


def count_classes(tensors: Mapping[str, Tensor]) -> int:
    """Count the classes of the classification head among the tensors; 0 where there is none."""
    head = tensors.get("head.weight")
    return 0 if head is None or head.ndim == 0 else int(head.shape[0])


def check_match(tensors: Mapping[str, Tensor], model: Any, architecture: str, source: str) -> None:
    """Compare the tensors with those that the model expects.

    Raises `WeightsError` that lists every missing and unexpected name, every other shape and every tensor with values
    that are not finite; blocks that offend alike share an entry (`blocks.0-11.attn.qkv.weight`).
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    missing = expected.keys() - found.keys()
    unexpected = found.keys() - expected.keys()
    shapes = defaultdict(list)
    for name in expected.keys() & found.keys():
        if expected[name] != found[name]:
            shapes[f"expected {expected[name]}, found {found[name]}"].append(name)
    broken = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    lines = [
        *([f"missing: {_fold(missing)}"] if missing else []),
        *([f"unexpected: {_fold(unexpected)}"] if unexpected else []),
        *(f"another shape: {_fold(names)} {text}" for text, names in sorted(shapes.items())),
        *([f"not finite: {_fold(broken)}"] if broken else []),
    ]
    if lines:
        raise WeightsError(
            "\n".join(
                (
                    f"{source} does not hold the weights of {architecture}: expected {_summary(expected)}, "
                    f"found {_summary(found)}",
                    *lines,
                    "Name the model that the file was made for (`cachetool models`), or another file with `--weights`",
                )
            )
        )


def _summary(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Depth, width and registers of a model, read from its tensors."""
    blocks = {match[1] for name in shapes if (match := re.match(r"blocks\.(\d+)\.", name))}
    width = next(
        (shapes[name][-1] for name in ("cls_token", "norm.weight", "pos_embed") if shapes.get(name)), "unknown"
    )
    registers = shapes.get("reg_token", (1, 0, 0))
    return f"{len(blocks)} blocks of {width} channels with {registers[1] if len(registers) > 1 else 0} registers"


def _fold(names: Iterable[str]) -> str:
    """Names in order, those that differ in the number of the block alone as one: `blocks.0-3,7.norm1.weight`."""
    blocks: dict[str, list[int]] = defaultdict(list)
    for name in sorted(names):
        match = re.match(r"blocks\.(\d+)\.", name)
        blocks[re.sub(r"^blocks\.\d+\.", "blocks.*.", name)].extend([int(match[1])] if match else [])
    return ", ".join(name.replace("*", _ranges(sorted(numbers)), 1) for name, numbers in blocks.items())


def _ranges(numbers: list[int]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)

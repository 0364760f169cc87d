"""Measure a frozen ``tiny-reg`` on held-out scenes: ``python -m cachetool.embedded.probe_tiny_reg --weights FILE``.

Every read-out is fitted on tokens of training scenes and scored on tokens of validation scenes. Edits are sustained:
they apply to every state from the input of block 1 to the output of the last block; the read-outs stay those of intact
tokens.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional

from cachetool.embedded.architecture import IMAGE_SIZE, PATCH_SIZE, build_tiny_reg
from cachetool.embedded.augment import normalise, to_float
from cachetool.embedded.rendered import Rendered, render

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

CLASSES = 10
SIDE = IMAGE_SIZE // PATCH_SIZE

FloatArray = NDArray[np.float32]
Visitor = Callable[[int, Tensor], Tensor]
"""From the number k of a state and the state (image, token, channel) to the state that goes on."""


@torch.inference_mode()
def run(
    backbone: VisionTransformer, images: NDArray[np.uint8], visit: Visitor | None = None, batch: int = 250
) -> FloatArray:
    """Compute the normalised final tokens (image, token, channel) of stored images (image, row, column, rgb)."""
    assert backbone.cls_token is not None
    assert backbone.reg_token is not None
    prefix = torch.cat([backbone.cls_token, backbone.reg_token], 1)
    outputs = []
    for first in range(0, len(images), batch):
        pixels = normalise(to_float(torch.from_numpy(images[first : first + batch])))
        patches = backbone.patch_embed(pixels) + backbone.pos_embed
        state = torch.cat([prefix.expand(len(patches), -1, -1), patches], 1)
        for k, block in enumerate(backbone.blocks):
            state = block(state if visit is None else visit(k, state))
        outputs.append(backbone.norm(state if visit is None else visit(len(backbone.blocks), state)))
    return torch.cat(outputs).numpy()


def linear_probe(features: FloatArray, labels: NDArray[np.integer[Any]], iterations: int = 1_000) -> Pipeline:
    """Fit a logistic regression on standardised features (sample, channel)."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=iterations)).fit(features, labels)


def quick_probe(backbone: VisionTransformer, scenes: Rendered) -> float:
    """Top-1 of a linear probe of [CLS], fitted on two thirds of the scenes and scored on the rest: a guide."""
    cls = run(backbone, scenes.images)[:, 0]
    split = len(cls) * 2 // 3
    return float(linear_probe(cls[:split], scenes.labels[:split], 300).score(cls[split:], scenes.labels[split:]))


def interval(correct: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion."""
    z, share = 1.96, correct / count
    middle, scale = share + z * z / (2 * count), 1 + z * z / count
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return (middle - half) / scale, (middle + half) / scale


def segmentation(probe: Pipeline, patches: FloatArray, masks: NDArray[np.uint8]) -> float:
    """Mean intersection over union of classes and background at the input's pixels, from interpolated patch logits."""
    logits = probe.decision_function(patches.reshape(-1, patches.shape[-1])).reshape(len(patches), SIDE, SIDE, -1)
    confusion = np.zeros((CLASSES + 1, CLASSES + 1))
    for first in range(0, len(masks), 200):
        coarse = torch.from_numpy(logits[first : first + 200]).permute(0, 3, 1, 2)
        predicted = functional.interpolate(coarse, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear").argmax(1).numpy()
        pairs = masks[first : first + 200].astype(np.int64) * (CLASSES + 1) + predicted
        confusion += np.bincount(pairs.ravel(), minlength=confusion.size).reshape(confusion.shape)
    overlap = np.diag(confusion)
    return float(np.mean(overlap / (confusion.sum(0) + confusion.sum(1) - overlap)))


def correspondence(
    patches: FloatArray, scenes: Rendered, pairs: int, threshold: float, seed: int = 0
) -> tuple[int, int]:
    """Count the keypoints found in the other scene of a pair of one class, and the keypoints in all.

    A point is sought at the most similar of the bilinearly interpolated features; it is found if that lies within
    ``threshold`` times the larger side of the box around the target's keypoints.
    """
    random = np.random.Generator(np.random.Philox(seed))
    grids = torch.from_numpy(patches).permute(0, 2, 1).reshape(len(patches), -1, SIDE, SIDE)
    found = total = 0
    for _ in range(pairs):
        first = int(random.integers(len(patches)))
        same = scenes.labels == scenes.labels[first]
        same[first] = False
        second = int(random.choice(np.flatnonzero(same)))
        both = scenes.visible[first] & scenes.visible[second]
        if not both.any():
            continue
        place = torch.from_numpy(scenes.keypoints[first][both] * 2 - 1)[None, None]
        query = functional.grid_sample(
            grids[first][None], place, mode="bilinear", padding_mode="border", align_corners=False
        )[0, :, 0]
        target = functional.interpolate(grids[second][None], (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear")[0].flatten(1)
        best = (query.T @ functional.normalize(target, dim=0)).argmax(1).numpy()
        guess = (np.stack([best % IMAGE_SIZE, best // IMAGE_SIZE], 1) + 0.5) / IMAGE_SIZE
        points = scenes.keypoints[second]
        extent = float((np.nanmax(points, axis=0) - np.nanmin(points, axis=0)).max())
        distance = np.linalg.norm(guess - scenes.keypoints[second][both], axis=1)
        found, total = found + int((distance <= threshold * extent).sum()), total + int(both.sum())
    return found, total


@torch.inference_mode()
def cls_attention(backbone: VisionTransformer, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean attention (layer, token type) of [CLS] on itself, the registers and the patches, over heads and images."""
    shares = np.zeros((len(backbone.blocks), 3))
    registers = backbone.num_prefix_tokens
    blocks: list[Any] = list(backbone.blocks)

    def visit(k: int, state: Tensor) -> Tensor:
        if k < len(blocks):
            attention = blocks[k].attn
            packed = attention.qkv(blocks[k].norm1(state))
            packed = packed.reshape(*packed.shape[:2], 3, attention.num_heads, -1)
            query, key = packed[:, :1, 0].transpose(1, 2), packed[:, :, 1].transpose(1, 2)
            weights = (query @ key.transpose(2, 3) * attention.scale).softmax(-1)[:, :, 0]
            parts = weights[..., :1], weights[..., 1:registers], weights[..., registers:]
            shares[k] += [float(part.sum(-1).mean(1).sum()) for part in parts]
        return state

    run(backbone, images, visit)
    return shares / len(images)


def mean_registers(backbone: VisionTransformer, images: NDArray[np.uint8]) -> Tensor:
    """Mean of every register at every state (layer, register, channel)."""
    stop = backbone.num_prefix_tokens
    sums = torch.zeros(len(backbone.blocks) + 1, stop - 1, backbone.embed_dim)

    def visit(k: int, state: Tensor) -> Tensor:
        sums[k] += state[:, 1:stop].sum(0)
        return state

    run(backbone, images, visit)
    return sums / len(images)


def replacing(first: int, stop: int, values: Tensor) -> Visitor:
    """Put ``values`` (layer, token or 1, channel or 1) in place of tokens ``first`` to ``stop - 1`` from state 1 on."""

    def visit(k: int, state: Tensor) -> Tensor:
        if k == 0:
            return state
        replacement = values[k].expand(len(state), stop - first, state.shape[2])
        return torch.cat([state[:, :first], replacement, state[:, stop:]], 1)

    return visit


def measure(backbone: VisionTransformer, train: Rendered, val: Rendered) -> dict[str, Any]:
    """Compute every figure of the model card, as JSON values."""
    prefix, count = backbone.num_prefix_tokens, len(val.images)
    fitted = run(backbone, train.images)
    probe = linear_probe(fitted[:, 0], train.labels)
    mean_probe = linear_probe(fitted[:, prefix:].mean(1), train.labels)
    some = len(fitted) // 4  # of the scenes: each gives 64 patches
    tiles = train.masks[:some].reshape(some, SIDE, PATCH_SIZE, SIDE, PATCH_SIZE).transpose(0, 1, 3, 2, 4)
    tiles = tiles.reshape(some * SIDE * SIDE, PATCH_SIZE**2)
    majority = (tiles[:, :, None] == np.arange(CLASSES + 1)).sum(1).argmax(1)
    patch_probe = linear_probe(fitted[:some, prefix:].reshape(len(majority), -1), majority, 200)

    zero = torch.zeros(len(backbone.blocks) + 1, 1, 1)
    visitors: dict[str, Visitor | None] = {
        "intact": None,
        "registers zero": replacing(1, prefix, zero),
        "registers mean": replacing(1, prefix, mean_registers(backbone, train.images)),
        "4 patches zero": replacing(prefix + 26, prefix + 30, zero),  # four neighbours in the middle of the picture
    }
    rows: dict[str, Any] = {}
    for name, visitor in visitors.items():
        tokens = run(backbone, val.images, visitor)
        right = int((probe.predict(tokens[:, 0]) == val.labels).sum())
        mean_right = int((mean_probe.predict(tokens[:, prefix:].mean(1)) == val.labels).sum())
        rows[name] = {
            "cls top-1": right / count,
            "cls interval": interval(right, count),
            "mean patch top-1": mean_right / count,
            "mean patch interval": interval(mean_right, count),
            "segmentation mIoU": segmentation(patch_probe, tokens[:, prefix:], val.masks),
        }
        for threshold in (0.1, 0.2):
            found, total = correspondence(tokens[:, prefix:], val, 1_000, threshold)
            rows[name] |= {f"PCK@{threshold}": found / total, "keypoints": total}
    attention = cls_attention(backbone, val.images)
    return {
        "training scenes of the read-outs": len(train.images),
        "held-out scenes": count,
        "edits": rows,
        "attention of [CLS], last block": {
            kind: float(share) for kind, share in zip(("cls", "registers", "patches"), attention[-1], strict=True)
        },
        "attention of [CLS] on the registers, by block": attention[:, 1].tolist(),
        "fraction if uniform": (prefix - 1) / (prefix + SIDE * SIDE),
    }


def main() -> None:
    """Measure the weights that the command line names and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--weights", type=Path, help="exported weights; without them the untrained model is measured")
    parser.add_argument("--train-scenes", type=int, default=6_000, help="scenes that the read-outs are fitted on")
    parser.add_argument("--scenes", type=int, default=3_000, help="held-out scenes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, help="folder that keeps the drawn scenes between runs")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    backbone = build_tiny_reg().eval()
    if options.weights is not None:
        backbone.load_state_dict({name: value.to(torch.float32) for name, value in load_file(options.weights).items()})
    train = render("train", options.train_scenes, seed=options.seed, cache=options.cache)
    val = render("val", options.scenes, seed=options.seed, cache=options.cache)
    print(json.dumps(measure(backbone, train, val), indent=2))


if __name__ == "__main__":
    main()

"""Self-distillation: a student that sees part of one view predicts what its slow average says about another.

The recipe combines known parts. As in DINO, student and teacher share one architecture, the teacher is an exponential
average, and what they compare is a distribution over learned prototypes. As in masked Siamese networks, the student's
patches are dropped before the first block, which also halves its cost. As in SwAV and DINOv2, Sinkhorn-Knopp spreads
the teacher's assignments evenly over the prototypes, so that nothing can collapse.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from cachetool.embedded.architecture import build_tiny_reg

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

CLASSES = 10
PROTOTYPES = 256
QUEUE = 512
"""[CLS] similarities that are balanced together: a batch alone holds fewer images than there are prototypes."""

Encoder = Callable[..., tuple[Tensor, Tensor]]
"""``encode``, or a compiled form of it."""

_BACKGROUND_WEIGHT = 0.2  # of a patch without an object, where a patch inside an object has 1
_STUDENT_TEMPERATURE = 0.1
_SHARPNESS = 3.0  # standard deviation of the teacher's logits


class PrototypeHead(nn.Module):
    """From tokens (..., channel) to cosine similarities with the prototypes (..., prototype)."""

    def __init__(self, channels: int, hidden: int = 256, bottleneck: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, bottleneck))
        self.prototypes = nn.Parameter(torch.randn(PROTOTYPES, bottleneck))

    def forward(self, tokens: Tensor) -> Tensor:
        """Similarities, from -1 to 1, of every token."""
        return functional.normalize(self.layers(tokens), dim=-1) @ functional.normalize(self.prototypes, dim=-1).T


class Network(nn.Module):
    """The backbone with what exists for training alone: two prototype heads, two linear read-outs of the labels."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone: VisionTransformer = build_tiny_reg()
        channels = self.backbone.embed_dim
        self.cls_head, self.patch_head = PrototypeHead(channels), PrototypeHead(channels)
        self.class_readout, self.patch_readout = nn.Linear(channels, CLASSES), nn.Linear(channels, CLASSES + 1)


def encode(backbone: VisionTransformer, images: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Map images (image, rgb, row, column) to final [CLS] (image, channel) and patches (image, patch, channel).

    Both are normalised. ``kept`` (image, kept patch) selects the patches that enter the first block; without it all do.
    """
    assert backbone.cls_token is not None
    assert backbone.reg_token is not None
    # Patches get their positions before any is dropped; [CLS] and registers have none.
    patches = backbone.patch_embed(images) + backbone.pos_embed
    if kept is not None:
        patches = patches.gather(1, kept[:, :, None].expand(-1, -1, patches.shape[2]))
    count = len(patches)
    tokens = torch.cat([backbone.cls_token.expand(count, -1, -1), backbone.reg_token.expand(count, -1, -1), patches], 1)
    tokens = backbone.norm(backbone.blocks(tokens))
    return tokens[:, 0], tokens[:, backbone.num_prefix_tokens :]


def teacher_of(student: Network) -> Network:
    """Copy the student; the copy is frozen, but ``follow`` moves it."""
    teacher = copy.deepcopy(student)
    return teacher.requires_grad_(False)


@torch.no_grad()
def follow(teacher: Network, student: Network, step: int) -> None:
    """Move the teacher towards the student: quickly at first, over about 300 steps in the long run."""
    momentum = min(0.997, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1.0 - momentum)


@torch.no_grad()
def balanced(similarities: Tensor, iterations: int = 3) -> Tensor:
    """Assign tokens to prototypes, (image, ..., prototype): rows sum to one, every prototype gets an equal share.

    Similarities are centred over the images first, at each position by itself: otherwise a patch could be told by its
    position embedding alone. Dividing by their spread gives targets that are sharp before the tokens differ much. The
    equal shares come from the iteration of Sinkhorn and Knopp.
    """
    centred = similarities.float() - similarities.float().mean(0)
    scaled = (_SHARPNESS * centred / centred.std().clamp_min(1e-6)).flatten(0, -2)
    shares = (scaled - scaled.max()).exp()
    for _ in range(iterations):
        shares = shares / shares.sum(0, keepdim=True).clamp_min(1e-12) / shares.shape[1]
        shares = shares / shares.sum(1, keepdim=True).clamp_min(1e-12)
    return shares.reshape(similarities.shape)


def distillation_loss(similarities: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the student's prototype distribution (..., prototype) with the teacher's assignments."""
    predicted = functional.log_softmax(similarities.float() / _STUDENT_TEMPERATURE, dim=-1)
    return -(targets * predicted).sum(-1).mean()


@dataclass
class Views:
    """What one step sees; the patches of the first ``shared`` images lie at the same places in both views."""

    student: Tensor  # (image, channel, row, column)
    teacher: Tensor  # (image, channel, row, column)
    kept: Tensor  # (image, kept patch), positions the student sees
    shared: int
    labels: Tensor  # (image,)
    patch_shares: Tensor  # (image, patch, class + 1), share of each class, background first, among a patch's pixels


def losses(
    student: Network, teacher: Network, views: Views, queue: Tensor, encoder: Encoder = encode, *, supervised: bool
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the losses of one step by name, and the queue (image, prototype) with the teacher's [CLS] appended."""
    with torch.no_grad():
        teacher_cls, teacher_patches = encoder(teacher.backbone, views.teacher)
        queue = torch.cat([queue, teacher.cls_head(teacher_cls).float()])[-QUEUE:]
        cls_targets = balanced(queue)[-len(teacher_cls) :]
        dense = teacher.patch_head(teacher_patches[: views.shared])
        positions = views.kept[: views.shared, :, None].expand(-1, -1, PROTOTYPES)
        dense_targets = balanced(dense).gather(1, positions)
    cls, patches = encoder(student.backbone, views.student, views.kept)
    parts = {
        "cls": distillation_loss(student.cls_head(cls), cls_targets),
        "dense": distillation_loss(student.patch_head(patches[: views.shared]), dense_targets),
    }
    if supervised:
        parts["label"] = functional.cross_entropy(student.class_readout(cls).float(), views.labels)
        shares = views.patch_shares.gather(1, views.kept[:, :, None].expand(-1, -1, CLASSES + 1))
        readout = student.patch_readout(patches).float()
        # Most patches show background; weighted like this, about half of the loss is about the class of an object.
        weights = _BACKGROUND_WEIGHT + (1.0 - _BACKGROUND_WEIGHT) * (1.0 - shares[..., 0])
        errors = -(shares * functional.log_softmax(readout, dim=-1)).sum(-1)
        parts["mask"] = (weights * errors).sum() / weights.sum()
    return parts, queue

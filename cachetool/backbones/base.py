"""The contract of a backbone: embed, run blocks with a visitor, normalise, and expose attention."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from cachetool.backbones.allocation import reuse_freed_memory
from cachetool.backbones.attention import attention_probabilities
from cachetool.backbones.first_block import Projections, project_block, run_projected_block
from cachetool.backbones.last_block import run_block_for
from cachetool.backbones.support import check_supported

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachetool.tokens import TokenLayout

NormType = Literal["layer_norm", "rms_norm", "none"]


@dataclass(frozen=True)
class TransformDefaults:
    """How images are prepared for a model unless the user says otherwise."""

    size: int
    """Side of the model's square input, in pixels."""
    mean: tuple[float, float, float]
    """Mean per colour channel (red, green, blue) that is subtracted, for values from 0 to 1."""
    std: tuple[float, float, float]
    """Standard deviation per colour channel that is divided by, for values from 0 to 1."""
    interpolation: str
    """Name of the resampling filter: `bicubic`, `bilinear`, ..."""
    crop_fraction: float
    """Side of the centre crop as a fraction of the resized shorter side."""


@dataclass(frozen=True)
class Identity:
    """What a backbone is and where its weights came from; everything here but `weights_source` belongs into a key."""

    name: str
    """The name under which the user asked for it, for example `dinov2-reg-s`."""
    architecture: str
    """timm's name of the architecture, with the arguments in which it differs from timm's own."""
    weights_sha256: str
    """SHA-256 of the weights, independent of the file format (see `weights.digest`)."""
    weights_source: str
    """Where the weights were read: a file name, a hub repository, the package, or a seed."""
    position_embedding: str
    """How positions enter: `native 16x16`, `resampled 37x37 -> 16x16 (bicubic, antialias)`, `rotary 14x14`."""
    transform_defaults: TransformDefaults
    """How images are prepared for it, its image size included."""


class Backbone(ABC):
    """A vision transformer as a loop over blocks that maps one residual-stream state to the next.

    State k is the input of block k: state 0 is the output of the embedding, state `depth` that of the last block,
    before the final norm. The model is in evaluation mode; callers choose the gradient mode (`torch.inference_mode`).
    Every result is bit-equal to that of the timm model's own `forward_features` on the same device.
    """

    def __init__(self, model: Any, identity: Identity) -> None:
        check_supported(model, identity.architecture)
        model.eval()
        self.model: Any = model
        """The timm model whose modules do the work."""
        self.identity = identity
        self.name = identity.name
        self.architecture = identity.architecture
        self.weights_sha256 = identity.weights_sha256
        self.weights_source = identity.weights_source
        self.position_embedding = identity.position_embedding
        self.transform_defaults = identity.transform_defaults
        self.image_size = identity.transform_defaults.size
        """Side of the square input, in pixels."""
        self.patch_size = int(self.model.patch_embed.patch_size[0])
        """Side of a patch, in pixels."""
        self.depth = len(self.model.blocks)
        """Number of blocks; there are `depth` + 1 states."""
        self.channels = int(self.model.embed_dim)
        """Width of the residual stream."""
        self.classes = int(self.model.num_classes)
        """Number of classes of the classification head; 0 where the weights bring none."""
        self.layout: TokenLayout = self._read_layout()
        """Where each token type lies in the sequence."""

    @abstractmethod
    def _read_layout(self) -> TokenLayout:
        """Token counts as this family of timm models names them."""

    @abstractmethod
    def _embed(self, images: Tensor) -> Tensor:
        """Images (image, rgb, row, column) to state 0 (image, token, channel)."""

    @abstractmethod
    def _run_block(self, block: int, state: Tensor, attention_mask: Tensor | None) -> Tensor:
        """State `block` to state `block` + 1, both (image, token, channel)."""

    @abstractmethod
    def _rope(self, block: int) -> Tensor | None:
        """Rotary position embedding of the patches in one block; None where the model has none."""

    @abstractmethod
    def _embedding_modules(self) -> tuple[nn.Module, ...]:
        """Modules that only the embedding needs."""

    @property
    def heads(self) -> int:
        """Number of attention heads of a block."""
        block = self.model.blocks[0]
        return int(
            block.attns[0].attn.num_heads if hasattr(block, "attns") else getattr(block, "attn", block).num_heads
        )

    @property
    def device(self) -> torch.device:
        """Where the last block and the final norm are."""
        parameter: nn.Parameter = next(self.model.blocks[-1].parameters())
        return parameter.device

    @property
    def norm_type(self) -> NormType:
        """Kind of the final norm; `none` where the model normalises only after pooling."""
        if isinstance(self.model.norm, nn.Identity):
            return "none"
        return "layer_norm" if isinstance(self.model.norm, nn.LayerNorm) else "rms_norm"

    @property
    def norm_weight(self) -> Tensor | None:
        """Weight (channel) of the final norm, where it has one."""
        weight: Tensor | None = getattr(self.model.norm, "weight", None)
        return None if weight is None else weight.detach()

    @property
    def norm_bias(self) -> Tensor | None:
        """Bias (channel) of the final norm, where it has one."""
        bias: Tensor | None = getattr(self.model.norm, "bias", None)
        return None if bias is None else bias.detach()

    @property
    def norm_epsilon(self) -> float | None:
        """Epsilon of the final norm; None where there is no norm."""
        return None if self.norm_type == "none" else float(self.model.norm.eps)

    def embed(self, images: Tensor) -> Tensor:
        """State 0 (image, token, channel) of normalised float32 images (image, rgb, row, column).

        Raises `ValueError` for images of another size than `image_size`.
        """
        expected = (3, self.image_size, self.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"{self.name} takes images of shape (image, 3, {self.image_size}, {self.image_size}), "
                f"found {tuple(images.shape)}; load the model with the image size of the transform"
            )
        return self._embed(images)

    def run(
        self,
        state: Tensor,
        start: int,
        stop: int,
        visit: Callable[[int, Tensor], Tensor] | None = None,
        *,
        attention_mask: Tensor | None = None,
        wanted: Tensor | None = None,
        projections: Projections | None = None,
    ) -> Tensor:
        """State `stop` from state `start` (image, token, channel), through the blocks between them.

        `visit(k, state)` is called on every state from `start` to `stop`, both included, and returns the state to go
        on with. `attention_mask` is bool (image, 1, token, token), True where a query (third dimension) may attend to
        a key (fourth). `wanted` holds positions in the sequence, int64 (token,): the last block computes these tokens
        alone, within rounding, and all others are NaN in state `stop`; blocks without an MLP after their attention are
        computed as a whole. `projections` are those of state `start` in block `start`, see `project`; tokens that
        `visit` changes there are named in them. Raises `ValueError` unless 0 <= start <= stop <= depth.
        """
        if not 0 <= start <= stop <= self.depth:
            raise ValueError(f"states of {self.name} run from 0 to {self.depth}, found start {start} and stop {stop}")
        for k in range(start, stop):
            if visit is not None:
                state = visit(k, state)
            if wanted is not None and k == stop - 1:
                state = self._run_block_for(k, state, wanted, attention_mask)
            elif projections is not None and k == start:
                block = self.model.blocks[k]
                state = run_projected_block(block, state, projections, self._rope(k), attention_mask)
            else:
                state = self._run_block(k, state, attention_mask)
        return state if visit is None else visit(stop, state)

    def _run_block_for(self, block: int, state: Tensor, wanted: Tensor, attention_mask: Tensor | None) -> Tensor:
        found = run_block_for(self.model.blocks[block], state, wanted, self._rope(block), attention_mask)
        if found is None:
            found = self._run_block(block, state, attention_mask)[:, wanted]
        following = torch.full_like(state, torch.nan)
        following[:, wanted] = found
        return following

    def project(self, state: Tensor, block: int) -> Projections | None:
        """Queries, keys and values of state `block` (image, token, channel) in that block, for runs of edits of it.

        A run that starts with them computes anew those of edited tokens alone, within rounding; all else is bit-equal.
        None where a block has not one attention followed by one MLP.
        """
        return project_block(self.model.blocks[block], state)

    def normalize(self, state: Tensor) -> Tensor:
        """Apply the final norm of the model to each token of state `depth` (image, token, channel)."""
        tokens: Tensor = self.model.norm(state)
        return tokens

    def attention(self, state: Tensor, block: int, *, attention_mask: Tensor | None = None) -> Tensor:
        """Softmax probabilities (image, head, query, key), float32, of one block run on its input, state `block`.

        Raises `UnsupportedModelError` where a block has no single softmax attention (parallel or differential ones).
        """
        if not 0 <= block < self.depth:
            raise ValueError(f"blocks of {self.name} run from 0 to {self.depth - 1}, found {block}")
        return attention_probabilities(self.model.blocks[block], state, self._rope(block), attention_mask)

    def classify(self, state: Tensor) -> Tensor | None:
        """Logits (image, class) of state `depth` (image, token, channel), by the model's own norm, pooling and head.

        None where the weights bring no classification head.
        """
        if self.classes == 0:
            return None
        logits: Tensor = self.model.forward_head(self.model.norm(state))
        return logits

    def place(self, device: torch.device | str, first_block: int = 0, *, embedding: bool = True) -> None:
        """Move blocks `first_block`.. with the norm and head, and the embedding if asked, to a device.

        Earlier blocks stay where they are, so that a replay from state k costs the memory of blocks k.. alone. On the
        CPU, the process keeps freed memory from now on, see `cachetool.backbones.allocation`.
        """
        if torch.device(device).type == "cpu":
            reuse_freed_memory()
        for block in self.model.blocks[first_block:]:
            block.to(device)
        for name in ("norm", "fc_norm", "attn_pool", "head"):
            module: nn.Module | None = getattr(self.model, name, None)
            if module is not None:
                module.to(device)
        if embedding:
            for module in self._embedding_modules():
                module.to(device)
            for name, parameter in list(self.model.named_parameters(recurse=False)):
                setattr(self.model, name, nn.Parameter(parameter.detach().to(device), parameter.requires_grad))

"""Vision transformers as loops over blocks, whose states can be read and edited on the way."""

from cachetool.backbones.base import Backbone, Identity, TransformDefaults
from cachetool.backbones.batching import default_batch_size
from cachetool.backbones.catalogue import ModelForm, catalogue, forms
from cachetool.backbones.checkpoint import absolute_model
from cachetool.backbones.first_block import Projections
from cachetool.backbones.loading import load
from cachetool.named_models import ModelEntry

__all__ = [
    "Backbone",
    "Identity",
    "ModelEntry",
    "ModelForm",
    "Projections",
    "TransformDefaults",
    "absolute_model",
    "catalogue",
    "default_batch_size",
    "forms",
    "load",
]

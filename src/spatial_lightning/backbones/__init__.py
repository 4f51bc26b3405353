"""A vision-language model behind one call: a packed row of token trees in, log-probabilities of the trained tokens out."""

from spatial_lightning.backbones.backbone import Backbone
from spatial_lightning.backbones.processor import Processor

__all__ = ["Backbone", "Processor"]

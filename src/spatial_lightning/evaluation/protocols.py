"""Ways of scoring, by name: ``_target_: spatial_lightning.evaluation.protocols.Choice`` and so on."""

from spatial_lightning.evaluation.forms import Bands, Choice, Exact, General, Truth
from spatial_lightning.evaluation.judge import Judged
from spatial_lightning.evaluation.omni3d import Omni3D
from spatial_lightning.evaluation.protocol import Protocol
from spatial_lightning.evaluation.published import CVBench, QSpatial, RGPTBench, ThreeDSR

__all__ = [
    "Bands",
    "CVBench",
    "Choice",
    "Exact",
    "General",
    "Judged",
    "Omni3D",
    "Protocol",
    "QSpatial",
    "RGPTBench",
    "ThreeDSR",
    "Truth",
]

"""DataModules: corpora as records, records as token trees, trees as packed rows."""

from spatial_lightning.data.encode import Encoder
from spatial_lightning.data.mixture import MixtureDataModule
from spatial_lightning.data.preferences import PreferenceDataModule
from spatial_lightning.data.spare import SpaREDataModule
from spatial_lightning.data.spatialvlm import SpatialVLMDataModule
from spatial_lightning.data.traces import TraceDataModule
from spatial_lightning.data.trees import TreeDataModule

__all__ = [
    "Encoder",
    "MixtureDataModule",
    "PreferenceDataModule",
    "SpaREDataModule",
    "SpatialVLMDataModule",
    "TraceDataModule",
    "TreeDataModule",
]

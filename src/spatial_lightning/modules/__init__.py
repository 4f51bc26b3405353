"""LightningModules: one short final class per objective family over one abstract base."""

from spatial_lightning.modules.finetuner import FineTuner, NonFiniteLossError
from spatial_lightning.modules.offline_rl import OfflineRLModule
from spatial_lightning.modules.optimization import Optimization
from spatial_lightning.modules.preference import DPOModule, FDPOModule
from spatial_lightning.modules.sft import SFTModule

__all__ = ["DPOModule", "FDPOModule", "FineTuner", "NonFiniteLossError", "OfflineRLModule", "Optimization", "SFTModule"]
